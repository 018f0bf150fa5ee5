"""One trial of a study: an ordinary distillation, scored on validation; where it is final, evaluated on test as well.

A trial has a folder of its own, named after all that it depends on: an interrupted one goes on there. Teachers are shared:
the pool of models trained on the real data is built once for each seed, for all studies, and copied from their ``pools``.
"""

import contextlib
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional

import numpy as np

from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split
from recbole_farzi.errors import FarziError, StorageError, TakenError
from recbole_farzi.evaluation import TrainingCounts, evaluate_by_strata
from recbole_farzi.experiment import Experiment
from recbole_farzi.locks import alone_in
from recbole_farzi.options import read_options
from recbole_farzi.pool import build_pool
from recbole_farzi.results import Run, gather
from recbole_farzi.storage import new_directory, read_arrays, read_json, remove_tree, write_arrays, write_json
from recbole_farzi.studies.generated import known_answer
from recbole_farzi.trainer import FarziTrainer
from recbole_farzi.training import WindowTrainer

__all__ = ["OUTCOME", "ROWS", "Setting", "is_whole", "read_outcome", "run_trial"]

OUTCOME, ROWS = "outcome.json", "rows.npz"
FULL = "full data"
"""Key of the teacher among what is evaluated on test: one model, trained on everything with early stopping."""


@dataclass(frozen=True)
class Setting:
    """What every trial of a study starts from.

    Attributes:
        model, dataset: names.
        files: property files.
        options: of the study and the command line.
        contenders: what is evaluated on test.
    """

    model: str
    dataset: str
    files: tuple
    options: Mapping
    contenders: tuple

    def config(self, options, folder):
        """RecBole's Config of a trial that has these options and works in this folder; and the model's class."""
        places = {
            "checkpoint_dir": str(folder), "farzi_report_path": str(folder / "report"), "farzi_output_path": str(folder / "summary"),
            "farzi_contenders": list(self.contenders), "farzi_report_metrics": [], "show_progress": False,
        }  # fmt: skip
        given = {**self.options, **options}
        dataset = given.pop("dataset", self.dataset)
        return build_config(self.model, dataset, self.files, {**given, **places})


def read_outcome(folder):
    """What a trial came to, or None if it has not ended, or not as far as was asked for."""
    with contextlib.suppress(StorageError):
        outcome = read_json(Path(folder) / OUTCOME)
        if isinstance(outcome, dict) and outcome.keys() >= {"valid", "error", "warnings", "seconds"}:
            return outcome
    return None


def is_whole(folder, final):
    """Whether what a trial that has ended came to can be read."""
    outcome = read_outcome(folder)
    if outcome is None or outcome["error"] or not final:
        return outcome is not None
    try:
        read_arrays(Path(folder) / ROWS)
    except StorageError:
        return False
    return "test" in outcome


def run_trial(setting, options, folder, pools, final, tell=lambda share: None):
    """Run, or go on with, one trial.

    Args:
        setting: :class:`Setting`.
        options: of the point, with its tuned options and its seed.
        folder: the trial's own.
        pools: folder of pools, shared by all trials.
        final: evaluate on test, too.
        tell: called with the share of the distillation that is done.

    Returns:
        dict, also written as ``outcome.json``: ``valid`` (the score that validation selects by; None for a trial that
        failed), ``error`` and ``warnings`` (what the user was told), sizes, seconds, and, if final, ``test``: contender to
        the metrics of each run. ``rows.npz`` holds the rows behind those.
    """
    folder = Path(folder)
    known = read_outcome(folder)
    if known is not None and (known["error"] or not final or "test" in known):
        return known
    begun = time.perf_counter()
    with _listening() as heard:
        try:
            outcome = _distil(setting, options, folder, Path(pools), final, tell)
        except FarziError as error:
            if isinstance(error, StorageError):  # of the machine, not of the trial
                raise
            outcome = {"valid": None, "error": str(error)}
    earlier = known["seconds"] if known else 0.0
    outcome = {"error": None, **outcome, "warnings": heard, "seconds": earlier + time.perf_counter() - begun}
    write_json(folder / OUTCOME, outcome)
    return outcome


def _distil(setting, options, folder, pools, final, tell):
    config, model_class = setting.config(options, folder)
    checked = read_options(config)
    split = load_split(config)
    experiment = Experiment(config, checked, split, model_class)
    trainer = FarziTrainer(config, experiment.factory(config["seed"]))
    experiment.trainer, experiment.traits = trainer, trainer.student.traits
    steps = max(checked.outer.steps, 1)
    with _pool(config, checked, experiment, folder / "farzi", pools) as pool:
        score, result = trainer.fit(
            split.train, split.valid, verbose=False, callback_fn=lambda step, _: tell(step / steps)
        )  # fmt: skip
        history, summary = trainer.history, trainer.summary
        outcome = {
            "valid": float(score),
            "valid_metrics": result,
            "start_valid_metrics": history["validations"][0]["metrics"],
            "teacher_valid": pool.score,
            "events": summary.events,
            "bytes": summary.nbytes,
            "training_events": split.sequences.events,
            "shape": [*summary.latent.shape, summary.decoder.shape[1]],
            **{name: history[name] for name in ("outer_steps", "best_step", "skipped", "reductions", "stopped_early")},
            "distillation_seconds": history["seconds"],
            "step_seconds": trainer.step_seconds,
            "pool_seconds": pool.seconds,
            "writing_seconds": trainer.writing_seconds,
            "starts": trainer.starts,
            "starting_seconds": trainer.starting_seconds,
            "written": trainer.written,
        }
        if final:
            experiment.summary = summary
            outcome["test"], rows = _on_test(experiment, pool)
            outcome["known"] = known_answer(Path(config["data_path"]), config["topk"])
            write_arrays(folder / ROWS, rows)
    return outcome


def _on_test(experiment, pool):
    """Metrics on test of every contender's runs and of the pool's best model, and the rows behind them."""
    compared, rows = experiment.compare(experiment.contenders(), needed=("summary",))
    config, split, output = experiment.config, experiment.split, experiment.options.output
    model = experiment.factory(config["seed"])
    model.load_state_dict(pool.models[0])
    teacher = WindowTrainer(config, model, experiment.traits)
    counts = TrainingCounts(experiment._events_of, split.counts)
    evaluation = evaluate_by_strata(
        teacher, split.train, split.test, counts, output.user_strata, output.item_strata, output.report_metrics
    )
    teacher.tensorboard.close()
    alone, of_teacher = gather([({"key": "teacher"}, [Run(config["seed"], pool.seconds, evaluation)])])
    found = {contender["key"]: contender["runs"] for contender in compared["contenders"]}
    found[FULL] = alone["contenders"][0]["runs"]
    values = {f"values/{key}": rows[f"all/{key}"] for key in found if key != FULL}
    arrays = {"users": rows["all/users"], **values, f"values/{FULL}": of_teacher["all/teacher"]}
    arrays["metrics"] = np.array(compared["row_metrics"])
    return {key: [{"seed": run["seed"], "metrics": run["metrics"]} for run in runs] for key, runs in found.items()}, arrays


@contextlib.contextmanager
def _pool(config, options, experiment, place, pools):
    """The pool of a trial: built in, or copied from, the shared folder; the copy goes when the trial has ended."""
    split = experiment.split
    with _one_at_a_time(pools):
        pool = build_pool(
            config, options.pool, experiment.factory, experiment.traits, split.sequences, split.checksum, split.valid, pools
        )  # fmt: skip
    name = f"pool-{pool.fingerprint[:12]}"
    if not (place / name).is_dir():
        with new_directory(place / name) as copy:
            shutil.copytree(pools / name, copy, dirs_exist_ok=True)
    try:
        yield pool
    finally:
        with contextlib.suppress(StorageError):
            remove_tree(place / name)


@contextlib.contextmanager
def _one_at_a_time(place):
    """Inside, no other trial is in a place: it waits for its turn."""
    place.mkdir(parents=True, exist_ok=True)
    while True:
        held = contextlib.ExitStack()
        try:
            held.enter_context(alone_in(place))
            break
        except TakenError:
            time.sleep(1.0)
    with held:
        yield


@contextlib.contextmanager
def _listening():
    """Collects the warnings that are logged inside."""
    heard = []

    class Handler(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())

    handler = Handler(level=logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield heard
    finally:
        logging.getLogger().removeHandler(handler)
