"""Is a summary the same, bit for bit, in every process, with every hash seed, with one thread and with two?

    PYTHONPATH=tests python -m reliability.same_answer --output results/reliability/same_answer.json

Each distillation runs in a process of its own. PyTorch does not promise the same bits with another number of threads: what is
recorded for them is what was found, on a tiny dataset and on ML-100K (few steps), and how far the summaries are apart if they differ.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from recbole_farzi.configuration import build_config
from recbole_farzi.emission import summary_digest
from recbole_farzi.experiment import Experiment
from recbole_farzi.options import read_options
from recbole_farzi.storage import digest, load_tensors, save_tensors, write_json

from .kills import OPTIONS, ROOT, write_data

ML_100K = {
    "epochs": 2, "show_progress": False, "state": "ERROR", "use_gpu": False, "farzi_inner_steps": 20, "farzi_window": 10,
    "farzi_outer_steps": 3, "farzi_eval_step": 3, "farzi_eval_students": 1, "farzi_pool_models": 1, "farzi_pool_snapshots": [1],
    "farzi_start_draws": 1,
    "farzi_start_covering": 1,
}  # fmt: skip


def distil(dataset, options, device=None):
    """Distil in the current folder; returns the trainer."""
    from recbole.utils import init_seed  # after the plugin, which repairs RecBole

    config, model_class = build_config("SASRec", dataset, (), options)
    if device is not None:
        config["device"] = torch.device(device)
    init_seed(config["seed"], config["reproducibility"])
    return Experiment.prepare(config, read_options(config), model_class).distil()


def in_a_process(dataset, hash_seed, threads, tensors=None):
    """Distil in a process of its own, in a folder of its own; returns the SHA-256 of the summary and of all losses.

    Args:
        dataset: ``tiny``, which is written there, or ``ml-100k``.
        hash_seed: ``PYTHONHASHSEED``, text.
        threads: of PyTorch.
        tensors: file for the summary's tensors, or None.
    """
    with tempfile.TemporaryDirectory(prefix="same-") as folder:
        command = [sys.executable, "-m", "reliability.same_answer", "--child", dataset, "--threads", str(threads)]
        command += ["--tensors", tensors] if tensors else []
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "PYTHONHASHSEED": hash_seed,
            "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
        }  # fmt: skip
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def child(dataset, threads, tensors):
    """What the process does: prints the digests as its last line."""
    torch.set_num_threads(threads)
    if dataset == "tiny":
        write_data(Path("."))
    trainer = distil(dataset, OPTIONS if dataset == "tiny" else {**ML_100K, "data_path": "dataset/"})
    if tensors:
        save_tensors(tensors, list(trainer.summary.tensors))
    losses = digest([trainer.history["losses"], trainer.history["validations"]])
    seeds = {"hash": hash("a text"), "threads": torch.get_num_threads()}
    print(json.dumps({"summary": summary_digest(trainer.summary), "losses": losses, **seeds}))


def apart(one, other):
    """Largest relative distance of two lists of tensors, norm against norm."""
    return max(float((a - b).norm() / a.norm()) for a, b in zip(one, other))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["tiny", "ml-100k"])
    parser.add_argument("--output", type=Path, help="JSON file for the record")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tensors", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.threads, given.tensors)
        return
    record = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine(), "datasets": {}}
    with tempfile.TemporaryDirectory() as folder:
        for dataset in given.datasets:
            files = [f"{folder}/{dataset}-{threads}.pt" for threads in (1, 2)]
            first = in_a_process(dataset, "0", 1, files[0])
            others = [in_a_process(dataset, seed, 1) for seed in ("1", "random")]
            two = in_a_process(dataset, "2", 2, files[1])
            again = in_a_process(dataset, "3", 2)
            same = [(o["summary"], o["losses"]) == (first["summary"], first["losses"]) for o in (*others, two)]
            record["datasets"][dataset] = {
                "processes with other hash seeds, one thread": len(others),
                "of them with the same bits": sum(same[:-1]),
                "two threads: the same bits as one": same[-1],
                "two threads: the same bits in another process": (two["summary"], two["losses"]) == (again["summary"], again["losses"]),
                "two threads: largest relative distance from one": apart(*map(load_tensors, files)),
            }
            print(dataset, json.dumps(record["datasets"][dataset], indent=1), flush=True)
            if given.output:
                write_json(given.output, record)


if __name__ == "__main__":
    main()
