"""The whole job under SIGKILL: killed at random moments, started again, until it is done; is all as if nothing had been?

    python tests/reliability/kills.py --kills 60 --seed 0 --output results/reliability/kills.json

Every *series* starts in a folder of its own. The job runs in a child of this process (which has imported
everything already, so that a start takes no seconds); its stages (pool, choice of the start, written histories, distillation,
emission, evaluation, report) are marked as it goes. A stage is drawn, and a moment in it; there the child gets SIGKILL. After each kill every file of the
folder must be whole, and after a few kills the job is left alone and must end with exactly the files of a job that was never
disturbed: the summary's bytes, the pool's tensors, and all results but times.
"""

import argparse
import contextlib
import json
import logging
import mmap
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

STAGES = ("start", "pool", "choice", "writing", "distillation", "emission", "evaluation", "report", "end")

OPTIONS = {
    "MAX_ITEM_LIST_LENGTH": 10, "hidden_size": 8, "inner_size": 16, "epochs": 6, "train_batch_size": 16,
    "eval_batch_size": 64, "topk": [5, 10], "show_progress": False, "state": "ERROR", "use_gpu": False, "data_path": "data",
    "farzi_sequences": 4, "farzi_latent_dim": 3, "farzi_inner_steps": 6, "farzi_inner_batch_size": 2, "farzi_window": 3,
    "farzi_trajectories": 2, "farzi_inner_dropout": True, "farzi_outer_steps": 40, "farzi_outer_batch_size": 16,
    "farzi_unroll": "windows", "farzi_eval_step": 10, "farzi_eval_students": 1, "farzi_pool_models": 2, "farzi_pool_snapshots": [0, 1, 2, 4],
    "farzi_pretrained": 0.5, "farzi_seeds": 1, "farzi_contenders": ["full", "summary", "hard", "random", "popularity"],
    "farzi_user_strata": 2, "farzi_item_strata": 2, "farzi_report_metrics": [],
}  # fmt: skip


def write_data(folder):
    """A small dataset: 40 users, 30 items, most items followed by one certain other."""
    rng = np.random.default_rng(20)
    follows, lines = rng.permutation(30), ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(40):
        item = int(rng.integers(30))
        for time_ in range(int(rng.integers(6, 26))):
            lines.append(f"u{user}\ti{item}\t{time_}")
            item = int(follows[item]) if rng.random() < 0.7 else int(rng.integers(30))
    (folder / "data" / "tiny").mkdir(parents=True)
    (folder / "data" / "tiny" / "tiny.inter").write_text("\n".join(lines) + "\n")


class Child:
    """One start of the job in a folder, in a process of its own that can be killed at a moment of a stage.

    Args:
        folder: where it works.
        options: of the job.
    """

    def __init__(self, folder, options):
        self._shared = mmap.mmap(-1, 16 + 16 * len(STAGES))
        self.pid = os.fork()
        if self.pid == 0:
            try:
                code = self._run(folder, options)
            except BaseException:
                import traceback

                traceback.print_exc()
                code = 70
            os._exit(code)

    def _run(self, folder, options):
        os.chdir(folder)
        log = os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from recbole_farzi import experiment, run, trainer

        self._mark("start")
        self._wrap(trainer, "build_pool", "pool")
        self._wrap(trainer.FarziTrainer, "_choose_start", "choice")
        self._wrap(trainer.FarziTrainer, "_generated_windows", "writing")
        self._wrap(trainer.FarziTrainer, "_distil", "distillation")
        self._wrap(experiment.Experiment, "emit", "emission")
        self._wrap(experiment.Experiment, "compare", "evaluation")
        self._wrap(experiment.Experiment, "results", "report")
        code = run.main(["-d", "tiny", *(f"--{name}={value}" for name, value in options.items())])
        self._mark("end")
        return code

    def _wrap(self, owner, name, stage):
        original = getattr(owner, name)

        def marked(*args, **kwargs):
            self._mark(stage)
            return original(*args, **kwargs)

        setattr(owner, name, marked)

    def _mark(self, stage):
        number = STAGES.index(stage)
        np.frombuffer(self._shared, np.float64, offset=16)[number] = time.monotonic()
        self._shared[0] = number

    @property
    def stage(self):
        return STAGES[self._shared[0]]

    def begun(self):
        """Moment at which each stage began; 0 for those that did not."""
        return dict(zip(STAGES, np.frombuffer(self._shared, np.float64, offset=16)[: len(STAGES)].tolist()))

    def ended(self):
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return None if pid == 0 else os.waitstatus_to_exitcode(status)

    def wait(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill_in(self, stage, delay, limit=120.0):
        """SIGKILL ``delay`` seconds after a stage (or one after it) has begun; returns the stage that it was in, or None
        if it ended before, or hung until the limit."""
        number, give_up = STAGES.index(stage), time.monotonic() + limit
        while self._shared[0] < number and time.monotonic() < give_up:
            if self.ended() is not None:
                return None
            time.sleep(0.0005)
        time.sleep(delay)
        if self.ended() is not None:
            return None
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return self.stage


def whole(folder):
    """Check that every file with a final name can be read; raises if one is damaged."""
    from recbole_farzi.emission import load_summary
    from recbole_farzi.storage import load_tensors, read_arrays, read_json

    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        if path.suffix == ".pt":
            load_tensors(path)
        elif path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".npz":
            read_arrays(path)
        elif path.suffix == ".html":
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), path
    if (folder / "data" / "tiny-farzi").exists():
        load_summary(folder / "data" / "tiny-farzi")


def outcome(folder):
    """What must be the same whatever happened on the way: plain values and digests, by name."""
    from recbole_farzi.results import read_run
    from recbole_farzi.storage import digest, load_tensors

    found = {}
    for path in sorted((folder / "data").rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = digest(path.read_bytes())
    for path in sorted((folder / "saved" / "farzi").rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".pt" and "distillation" not in path.name:
            state = load_tensors(path)
            found[name] = digest([[key, digest(value)] for key, value in sorted(state.items())])
        elif path.suffix == ".pt":
            state = load_tensors(path)
            found[name] = [digest(tensor) for tensor in state["distiller"]["tensors"]] + [
                state["record"]["losses"], state["record"]["validations"]
            ]  # fmt: skip
        elif path.suffix == ".npz":
            run = read_run(path)
            arrays = {key: digest(array.tobytes()) for key, array in run.evaluation.arrays.items()}
            found[name] = [run.seed, run.evaluation._replace(arrays=arrays)._asdict()]
        elif path.is_file():
            found[name] = _without_times(json.loads(path.read_text()))
    results = json.loads((folder / "report" / "tiny-SASRec" / "results.json").read_text())
    results["pool"].pop("reused")
    found["results"] = _without_times(results)
    found["report"] = sorted(p.name for p in (folder / "report" / "tiny-SASRec").iterdir())
    found["left behind"] = sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.startswith(".") or p.name.endswith(".state.pt")
    )
    return found


def _without_times(value):
    if isinstance(value, dict):
        return {key: _without_times(entry) for key, entry in value.items() if "seconds" not in key and key != "date"}
    return [_without_times(entry) for entry in value] if isinstance(value, list) else value


def differences(one, other, name=""):
    """Names, down to the entry, of what is not the same in two plain values."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [line for key in sorted(one.keys() | other.keys())
                for line in differences(one.get(key), other.get(key), f"{name}/{key}")]  # fmt: skip
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [line for number, pair in enumerate(zip(one, other)) for line in differences(*pair, f"{name}/{number}")]
    return [] if one == other else [f"{name}: {one!r} became {other!r}"[:300]]


@contextlib.contextmanager
def _place():
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        write_data(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare():
    """Import all that a job needs, so that its children are there at once."""
    import plotly.graph_objects  # noqa: F401
    import plotly.io  # noqa: F401
    import recbole.model.sequential_recommender  # noqa: F401
    import torch._dynamo  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    from recbole.data import create_dataset  # noqa: F401

    from recbole_farzi import experiment, report, run, trainer  # noqa: F401
    from recbole_farzi.report import aggregate, documents, page  # noqa: F401

    torch.set_num_threads(1)
    logging.disable(logging.NOTSET)


def undisturbed(options=OPTIONS):
    """Run the job once; returns its outcome and how long each stage took, in seconds."""
    with _place() as folder:
        child = Child(folder, options)
        code = child.wait()
        if code:
            raise RuntimeError(f"the undisturbed job failed with {code}:\n{(folder / 'stderr').read_text()}")
        begun = child.begun()
        ends = list(begun.values())[1:]
        return outcome(folder), {stage: end - start for (stage, start), end in zip(begun.items(), ends)}


def series(kills, rng, durations, expected, options=OPTIONS, stages=STAGES[1:-1]):
    """Kill a job so many times, then let it end.

    Returns:
        ``(stages in which it was killed, names of what differs from the undisturbed job)``.
    """
    killed = []
    with _place() as folder:
        # In the order of the job: a stage that is done is over in a moment, and the kill would hit a later one.
        for stage in sorted(rng.choices(stages, k=kills), key=stages.index):
            where = Child(folder, options).kill_in(stage, rng.uniform(0, durations[stage]))
            whole(folder)
            if where is not None:
                killed.append(where)
        code = Child(folder, options).wait()
        if code:
            return killed, [f"ended with {code}: {(folder / 'stderr').read_text()[-500:]}"]
        said = [line for line in (folder / "stderr").read_text().splitlines() if line.strip()]
        if any("Traceback" in line for line in said):
            return killed, ["a traceback: " + said[-1]]
        return killed, differences(expected, outcome(folder))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--each", type=int, default=5, help="kills of one job before it is let end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the record")
    given = parser.parse_args(arguments)
    prepare()
    begun, rng, counts, wrong, ended = time.monotonic(), random.Random(given.seed), Counter(), [], 0
    expected, durations = undisturbed()
    print("undisturbed:", ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in durations.items()), flush=True)
    while sum(counts.values()) < given.kills:
        killed, different = series(min(given.each, given.kills - sum(counts.values())), rng, durations, expected)
        ended += 1
        counts.update(killed)
        if different:
            wrong.append({"killed in": killed, "differs": different})
        print(f"{sum(counts.values())} kills: {', '.join(killed)}: {different or 'as undisturbed'}", flush=True)
    record = {
        "what": "SIGKILL at random moments of whole jobs, each started again until done",
        "kills": sum(counts.values()),
        "by stage": {stage: counts[stage] for stage in STAGES if counts[stage]},
        "jobs": ended,
        "jobs that ended bit for bit as undisturbed": ended - len(wrong),
        "wrong": wrong,
        "seed": given.seed,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(json.dumps(record, indent=1))
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    import recbole_farzi  # noqa: F401  (repairs RecBole before anything imports it)

    sys.exit(main())
