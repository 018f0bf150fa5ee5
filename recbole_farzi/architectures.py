"""Cross-architecture: several models, each trained on summaries that others distilled, against its own full-data quality.

Every run is stored as soon as it is there (as :class:`recbole_farzi.experiment.Experiment` stores them), and the table is
written again after each model, so that an interrupted job goes on where it was and leaves what it has.
"""

import logging
from dataclasses import replace
from datetime import date
from pathlib import Path

from recbole.evaluator.register import smaller_metrics
from recbole.utils import set_color

from recbole_farzi.configuration import build_config
from recbole_farzi.contenders import ContenderFactory
from recbole_farzi.data import load_split
from recbole_farzi.emission import align, summary_digest
from recbole_farzi.errors import OptionError
from recbole_farzi.experiment import Experiment
from recbole_farzi.inspection import check_twice_differentiable
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import read_options
from recbole_farzi.provenance import environment
from recbole_farzi.report.architectures import csv_document, markdown_document
from recbole_farzi.storage import write_json, write_text
from recbole_farzi.student import Student

__all__ = ["compare_architectures"]

_FORMAT = 1


class _Architecture:
    """A model with its own configuration and data, inspected before any long work."""

    def __init__(self, model, dataset, files, overrides):
        self.config, self.model_class = build_config(model, dataset, files, overrides)
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

    def runs(self, kind, summary=None, inner=None):
        """Stored or new runs of the contender ``full`` or ``summary``, on test."""
        output = replace(self.options.output, contenders=(kind,))
        options = replace(self.options, output=output, inner=inner or self.options.inner)
        experiment = Experiment(self.config, options, self.split, self.model_class)
        makers = ContenderFactory(
            self.config, options, self.split, self.factory, self.traits, summary, summary, None, None
        )
        compared = experiment.compare(makers.contenders())[0]["contenders"][0]
        return [{key: run[key] for key in ("seed", "seconds", "metrics")} for run in compared["runs"]]


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
    made = {}

    def architecture(model):
        key = model if isinstance(model, str) else f"{model.__module__}:{model.__qualname__}"
        if key not in made:
            made[key] = _Architecture(model, dataset, config_file_list, config_dict)
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
    summaries = {distiller.name: _distil(distiller) for distiller in distillers}
    first = students[0]
    folder = Path(first.options.output.report_path) / f"{first.config['dataset']}-architectures"
    results = {
        "format": _FORMAT,
        "dataset": first.config["dataset"],
        "date": date.today().isoformat(),
        "command": command,
        "environment": environment(first.config["device"]),
        "training_events": first.split.sequences.events,
        "test_rows": len(first.split.test.dataset),
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
            for distiller, (summary, history, identity) in zip(distillers, summaries.values())
        ],
        "students": [],
    }
    for student in students:
        runs = {
            distiller.name: student.runs(
                "summary", align(summaries[distiller.name][0], distiller.tokens, student.tokens), distiller.options.inner
            )
            for distiller in distillers
        }
        full = student.runs("full", summaries[distillers[0].name][0])
        results["metrics"] = list(full[0]["metrics"])
        results["smaller_is_better"] = [m for m in results["metrics"] if m.partition("@")[0] in smaller_metrics]
        results["students"].append(
            {
                "model": student.name,
                "reads": student.traits.reading,
                "options": {
                    name: student.config[name]
                    for name in ("epochs", "stopping_step", "learning_rate", "train_batch_size", "eval_step", "loss_type")
                },
                "full": full,
                "on": runs,
            }
        )
        write_json(folder / "architectures.json", results)
        write_text(folder / "architectures.md", markdown_document(results))
        write_text(folder / "architectures.csv", csv_document(results))
        logger.info(set_color("Table", "pink") + f": {student.name} is in {folder / 'architectures.md'}")
    return results, folder


def _distil(distiller):
    """The summary that a model distils (or distilled: the run is found again), on the CPU, and history and identity of the run."""
    experiment = Experiment(distiller.config, distiller.options, distiller.split, distiller.model_class)
    trainer = experiment.distil()
    return trainer.summary.to("cpu"), trainer.history, trainer.identity
