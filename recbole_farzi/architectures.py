"""Cross-architecture: several models, each trained on summaries that others distilled, against its own full-data quality.

Every run is stored as soon as it is there (as :class:`recbole_farzi.experiment.Experiment` stores them), and the table is
written again after each model, so that an interrupted job goes on where it was and leaves what it has.
"""

import logging
from datetime import date
from pathlib import Path

from recbole.evaluator.register import smaller_metrics
from recbole.utils import set_color

from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split
from recbole_farzi.emission import align, summary_digest
from recbole_farzi.errors import OptionError
from recbole_farzi.experiment import Experiment
from recbole_farzi.inspection import check_twice_differentiable
from recbole_farzi.locks import alone_in
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import read_options
from recbole_farzi.provenance import environment
from recbole_farzi.report.architectures import csv_document, markdown_document, relative_intervals
from recbole_farzi.report.architectures_figure import html_document
from recbole_farzi.results import gather
from recbole_farzi.storage import check_writable, remove_leftovers, write_json, write_text
from recbole_farzi.student import Student
from recbole_farzi.tuning import on_full_data, on_summary, tuned_runs

__all__ = ["compare_architectures"]

_FORMAT = 2


class _Architecture:
    """A model with its own configuration and data, inspected before any long work."""

    def __init__(self, model, dataset, files, overrides, beside):
        self.config, self.model_class = build_config(model, dataset, files, overrides, beside)
        self.options = read_options(self.config)
        self.name = self.model_class.__name__
        self.split = load_split(self.config)
        self.factory = ModelFactory(self.model_class, self.config, self.split.train.dataset)
        self.student = Student(self.factory(self.config["seed"]), config=self.config)
        self.traits = self.student.traits

    @property
    def tokens(self):
        dataset = self.split.train.dataset
        return dataset.field2id_token[dataset.iid_field]

    def on_full_data(self):
        """Stored or new runs on full data, and how they train; see :func:`recbole_farzi.tuning.tuned_runs`."""
        candidates = on_full_data(self.config, self.options, self.split, self.factory, self.traits)
        return tuned_runs(candidates, f"{self.name} on full data")

    def on_summary(self, distiller, summary, inner):
        """The same on a summary."""
        summary = align(summary, distiller.tokens, self.tokens).to(self.config["device"])
        candidates = on_summary(self.config, self.options, self.split, self.factory, self.traits, summary, inner)
        return tuned_runs(candidates, f"{self.name} on {distiller.name}'s summary")


def compare_architectures(distillers, students, dataset=None, config_file_list=(), config_dict=None, command=""):
    """Distil with each of some models, train each of some models on every summary, and write the table.

    Args:
        distillers: models that distil: names, ``package.module:Class``, or classes.
        students: models that train on the summaries, likewise.
        dataset, config_file_list, config_dict: as for :func:`recbole_farzi.run.run_farzi`; they hold for all models.
        command: for the record.

    Returns:
        ``(results, folder)``: plain values, and where ``architectures.md``, ``.csv`` and ``.json`` are.

    Raises:
        FarziError: whatever a user can mend, in one line; a model that cannot take part is refused before work starts.
    """
    logger = logging.getLogger()
    made, everyone = {}, [*distillers, *students]

    def architecture(model):
        key = model if isinstance(model, str) else f"{model.__module__}:{model.__qualname__}"
        if key not in made:
            made[key] = _Architecture(model, dataset, config_file_list, config_dict, everyone)
            found = made[key]
            logger.info(set_color("Model", "pink") + f": {found.name} reads {found.traits.reading}")
        return made[key]

    distillers, students = ([architecture(model) for model in models] for models in (distillers, students))
    for group in (distillers, students):
        names = [member.name for member in group]
        if len(set(names)) < len(names):
            raise OptionError(f"a model is named twice: {', '.join(names)}")
    for distiller in distillers:
        check_twice_differentiable(distiller.student)
    first = students[0]
    folder = Path(first.options.output.report_path) / f"{first.config['dataset']}-architectures"
    state = Path(first.config["checkpoint_dir"]) / "farzi"
    with alone_in(folder, state):
        for place in (folder, state, Path("log_tensorboard")):
            check_writable(place)
        for place in (folder, state):
            remove_leftovers(place)
        return _compare(distillers, students, folder, command)


def _compare(distillers, students, folder, command):
    logger, first = logging.getLogger(), students[0]
    summaries = {distiller.name: _distil(distiller) for distiller in distillers}
    results = {
        "format": _FORMAT,
        "dataset": first.config["dataset"],
        "date": date.today().isoformat(),
        "command": command,
        "environment": environment(first.config["device"]),
        "training_events": first.split.sequences.events,
        "test_rows": len(first.split.test.dataset),
        "valid_metric": first.config["valid_metric"].lower(),
        "passes": {"steps": first.options.students.steps, "eval_step": first.options.students.eval_step},
        "metrics": [],
        "smaller_is_better": [],
        "summaries": [
            {
                "model": distiller.name,
                "events": summary.events,
                "bytes": summary.nbytes,
                "sha256": summary_digest(summary),
                "run": identity.record,
                "outer_steps": history["outer_steps"],
                "best_step": history["best_step"],
            }
            for distiller, (summary, _, history, identity) in zip(distillers, summaries.values())
        ],
        "students": [],
    }
    for student in students:
        on = {distiller.name: student.on_summary(distiller, *summaries[distiller.name][:2]) for distiller in distillers}
        full, chosen = student.on_full_data()
        runs = {"full": full, **{name: found for name, (found, _) in on.items()}}
        compared, arrays = gather([({"key": key, "label": key}, of) for key, of in runs.items()])
        plain = {key: [_plain(run) for run in of] for key, of in runs.items()}
        results["metrics"] = list(plain["full"][0]["metrics"])
        results["smaller_is_better"] = [m for m in results["metrics"] if m.partition("@")[0] in smaller_metrics]
        results["students"].append(
            {
                "model": student.name,
                "reads": student.traits.reading,
                "options": {
                    name: student.config[name]
                    for name in ("epochs", "stopping_step", "learning_rate", "train_batch_size", "eval_step", "loss_type")
                },
                "full": plain.pop("full"),
                "on": plain,
                "relative": relative_intervals(arrays, list(on), compared["row_metrics"]),
                "chosen": {"full": chosen, "on": {name: how for name, (_, how) in on.items()}},
            }
        )
        write_json(folder / "architectures.json", results)
        write_text(folder / "architectures.md", markdown_document(results))
        write_text(folder / "architectures.csv", csv_document(results))
        write_text(folder / "architectures.html", html_document(results, _in_picture(results)))
        logger.info(set_color("Table", "pink") + f": {student.name} is in {folder / 'architectures.md'}")
    return results, folder


def _plain(run):
    return {"seed": run.seed, "seconds": run.seconds, "metrics": run.evaluation.metrics, "valid": run.valid, "epochs": run.epochs}


def _in_picture(results):
    """Of each kind of ranking metric the first, at most two, and those of which less is better."""
    kinds = {metric.partition("@")[0]: metric for metric in reversed(results["metrics"]) if metric not in results["smaller_is_better"]}
    return [*reversed(kinds.values())][:2] + results["smaller_is_better"]


def _distil(distiller):
    """What a model distils (or distilled: the run is found again): summary (on the CPU), recipe, history and identity."""
    experiment = Experiment(distiller.config, distiller.options, distiller.split, distiller.model_class)
    trainer = experiment.distil()
    return trainer.summary.to("cpu"), trainer.inner, trainer.history, trainer.identity
