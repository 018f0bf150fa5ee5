"""The whole job: distil, emit, train contenders, evaluate them all on test, report.

Each contender's run is stored as soon as it is there, so that an interrupted job goes on where it was.
"""

import functools
import logging
import os
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Optional

from recbole.utils import dict2str, set_color
from tqdm import tqdm

from recbole_farzi.atomic import check_tokens
from recbole_farzi.contenders import ContenderFactory, load_trained
from recbole_farzi.data import Split, history_field, load_split, rows_checksum
from recbole_farzi.emission import align, check_place, emit, load_summary, summary_digest
from recbole_farzi.errors import DataError, DivergenceError, OptionError, StorageError
from recbole_farzi.evaluation import TrainingCounts, evaluate_by_strata
from recbole_farzi.models import ModelFactory, seeded
from recbole_farzi.options import Options, is_checkpoint
from recbole_farzi.provenance import code, command_line, environment, settings
from recbole_farzi.results import Run, gather, read_run, write_run
from recbole_farzi.resumption import interruptible
from recbole_farzi.storage import check_writable, digest, remove, remove_leftovers
from recbole_farzi.strata import split_rows
from recbole_farzi.trainer import FarziTrainer

__all__ = ["Experiment"]

_LEAST_FREE = 64 * 2**20  # bytes: several times what checkpoints, summary and report take at the default sizes
_OF_EVALUATION = ("farzi_positions", "farzi_user_strata", "farzi_item_strata", "farzi_report_metrics")


class Experiment:
    """Distils, emits and compares, on one dataset with one model.

    Args:
        config: RecBole's Config, checked (:func:`recbole_farzi.configuration.build_config`).
        options: :func:`recbole_farzi.options.read_options` of it.
        split: :func:`recbole_farzi.data.load_split` of it.
        model_class: the student's class.
    """

    def __init__(self, config, options: Options, split: Split, model_class):
        self.config = config
        self.options = options
        self.split = split
        self.factory = ModelFactory(model_class, config, split.train.dataset)
        self.logger = logging.getLogger()
        self.progress = bool(config["show_progress"])
        self.trainer: Optional[FarziTrainer] = None
        self.summary = None
        self.traits = None
        self.output, self.report = places(config, options, model_class)

    @classmethod
    def prepare(cls, config, options: Options, model_class):
        """Load and split the data, after refusing directories that cannot be written.

        Raises:
            StorageError, DataError
        """
        output, report = places(config, options, model_class)
        _check_apart(output, {"farzi_report_path": report, "checkpoint_dir": Path(config["checkpoint_dir"]) / "farzi"})
        for place in (output.parent, report.parent, Path(config["checkpoint_dir"]), Path("log_tensorboard")):
            check_writable(place, _LEAST_FREE)
        for place in (output, report, Path(config["checkpoint_dir"]) / "farzi"):
            remove_leftovers(place)
        check_place(output)
        split = load_split(config)
        check_tokens(split.train.dataset.field2id_token[split.train.dataset.iid_field][1:])
        for name in filter(is_checkpoint, options.output.contenders):
            load_trained(name, config)
        experiment = cls(config, options, split, model_class)
        experiment._check_strata()
        return experiment

    def _check_strata(self):
        """Cut the test rows as the report will, so that an empty stratum is found before the work."""
        dataset, output = self.split.test.dataset, self.options.output
        rows = dataset.inter_feat
        users, targets = rows[dataset.uid_field].numpy(), rows[dataset.iid_field].numpy()
        split_rows(users, targets, self._events_of, self.split.counts, output.user_strata, output.item_strata)

    def distil(self):
        """Fit a :class:`FarziTrainer`; returns it."""
        self.trainer = FarziTrainer(self.config, self.factory(self.config["seed"]))
        self.traits = self.trainer.student.traits
        self.logger.info(set_color("Model", "pink") + f": {type(self.trainer.model).__name__} reads {self.traits.reading}")
        self.trainer.fit(self.split.train, self.split.valid, show_progress=self.progress)
        return self.trainer

    def emit(self, hard):
        """Write the summary as RecBole atomic files; returns the folder."""
        config, dataset = self.config, self.split.train.dataset
        recipe = {
            "temperature": self.options.summary.temperature,
            "inner": asdict(self.trainer.inner),
            "batch_order": "torch.randperm(sequences) from a torch.Generator seeded with the run's seed, permutation after "
            "permutation, each split into batches",
            "model": type(self.trainer.model).__name__,
            "source": {
                "dataset": config["dataset"],
                "training_events": self.split.sequences.events,
                "training_histories_sha256": self.split.checksum,
            },
            "run": self.trainer.identity.record,
            "settings": settings(config, keep=lambda name: True),
            "environment": self.trainer.identity.environment,
            "distillation": {key: self.trainer.history[key] for key in ("outer_steps", "best_step", "skipped", "reductions")},
        }
        folder = emit(
            self.output,
            self.trainer.summary,
            hard,
            dataset.field2id_token[dataset.iid_field],
            {"valid": list(self._real_rows(self.split.valid)), "test": list(self._real_rows(self.split.test))},
            recipe,
            config["MAX_ITEM_LIST_LENGTH"],
        )
        self.logger.info(set_color("Summary", "pink") + f": written to {folder}")
        # What is evaluated is what was written.
        emitted, tokens, _ = load_summary(folder)
        self.summary = align(emitted, tokens, dataset.field2id_token[dataset.iid_field]).to(self.trainer.device)
        return folder

    def contenders(self):
        """Everything that is compared, in the order of the report; see :mod:`recbole_farzi.contenders`."""
        trainer = self.trainer
        options = replace(self.options, inner=trainer.inner)
        return ContenderFactory(
            self.config, options, self.split, self.factory, self.traits, self.summary, trainer.start, trainer.teacher,
            digest([trainer.pool.fingerprint, self.options.pool.teachers, trainer.interpolation]), trainer.pool,
        ).contenders()  # fmt: skip

    def compare(self, contenders, needed=()):
        """Train and evaluate every run of every contender on test; stored runs are read back. One that cannot be trained is left out
        with a warning, unless it is ``needed`` (keys).

        Returns:
            ``(results, arrays)``: plain values and the rows behind them, as :func:`recbole_farzi.results.gather` makes
            them.
        """
        out = []
        with self._bar("Compare    ", sum(len(contender.seeds) for contender in contenders)) as bar:
            for contender in contenders:
                try:
                    runs = self._runs(contender, contender.seeds, bar)
                except (DataError, DivergenceError) as error:
                    if contender.key in needed:
                        raise
                    self.logger.warning(f"{contender.label} is left out of the comparison: {error}")
                    continue
                plain = {key: getattr(contender, key) for key in ("key", "label", "note", "events", "bytes")}
                out.append((plain, runs))
        return gather(out)

    def runs(self, contender, seeds=None):
        """Every :class:`recbole_farzi.results.Run` of one contender, or those of some seeds; stored ones are read back."""
        seeds = contender.seeds if seeds is None else seeds
        with self._bar("Train      ", len(seeds)) as bar:
            return self._runs(contender, seeds, bar)

    def _bar(self, name, total):
        return tqdm(total=total, ncols=100, disable=not self.progress, desc=set_color(name, "pink"))

    def _runs(self, contender, seeds, bar):
        place = Path(self.config["checkpoint_dir"]) / "farzi" / "runs"
        runs = []

        def tell(progress):
            bar.set_postfix_str(set_color(f"{contender.label}{progress}", "yellow"))

        for seed in seeds:
            tell("")
            runs.append(self._stored_run(place, contender, seed, tell))
            bar.update(1)
        return runs

    def results(self, compared):
        """The whole result as plain values, for ``recbole_farzi.report``.

        Args:
            compared: what :meth:`compare` found.
        """
        config, split, summary = self.config, self.split, self.trainer.summary
        dataset = split.train.dataset
        pool = self.trainer.pool
        farzi = {name: value for name, value in settings(config, keep=lambda name: True).items() if name.startswith("farzi_")}
        return {
            **compared,
            "dataset": config["dataset"],
            "model": type(self.trainer.model).__name__,
            "seed": config["seed"],
            "run": self.trainer.identity.record,
            "date": date.today().isoformat(),
            "command": command_line() or "recbole_farzi.run_farzi(...)",
            "environment": environment(config["device"]),
            "data": {
                "users": dataset.user_num - 1,
                "items": dataset.item_num - 1,
                "training_events": split.sequences.events,
                "valid_rows": len(split.valid.dataset),
                "test_rows": len(split.test.dataset),
            },
            "summary": {
                "sequences": summary.latent.shape[0],
                "length": summary.latent.shape[1],
                "latent_dim": summary.latent.shape[2],
                "temperature": summary.temperature,
                "events": summary.events,
                "bytes": summary.nbytes,
                "sha256": summary_digest(summary),
            },
            "options": {**farzi, **{k: config[k] for k in ("learning_rate", "train_batch_size", "epochs", "stopping_step")}},
            "extra_metrics": [metric for metric in compared["metrics"] if not self._asks_for(metric)],
            "valid_metric": config["valid_metric"].lower(),
            "pool": {"seconds": pool.seconds, "reused": pool.reused, "models": self.options.pool.models},
            "distillation": self.trainer.history,
        }

    def _real_rows(self, loader):
        dataset = loader.dataset
        rows = dataset.inter_feat
        users = dataset.field2id_token[dataset.uid_field]
        lists, lengths = rows[history_field(dataset)].tolist(), rows[dataset.item_list_length_field].tolist()
        for user, items, length, target in zip(
            rows[dataset.uid_field].tolist(), lists, lengths, rows[dataset.iid_field].tolist()
        ):
            yield str(users[user]), items[:length], target

    def _stored_run(self, place, contender, seed, tell):
        depends = {
            "code": code(self.factory.model_class),
            "environment": environment(self.config["device"]),
            "data": self.split.checksum,
            "evaluation": [rows_checksum(self.split.valid), rows_checksum(self.split.test)],
            "settings": settings(self.config, keep=lambda name: name in _OF_EVALUATION),
            "contender": contender.key,
            "on": contender.depends,
            "seed": seed,
            **({"validate": True} if contender.validate else {}),
        }
        file = place / f"{contender.key}-{digest(depends)[:16]}.npz"
        state_file = file.with_suffix(".state.pt")
        if self.options.output.fresh:
            remove(state_file)
        elif file.is_file():
            try:
                run = read_run(file)
                remove(state_file)  # left by a process that was killed before it could
                return run
            except StorageError as error:
                self.logger.warning(f"A stored run is computed again: {error}")
        output = self.options.output
        counts = TrainingCounts(self._events_of, self.split.counts)
        with interruptible(lambda: f"while training and evaluating {contender.label}, seed {seed}"):
            with seeded(seed):  # dropout draws from the global generators
                trainer, seconds = contender.run(seed, tell, state_file)
            evaluation = evaluate_by_strata(
                trainer, self.split.train, self.split.test, counts, output.user_strata, output.item_strata,
                output.report_metrics,
            )  # fmt: skip
            run = Run(seed if contender.seeded else None, seconds, evaluation)
            if contender.validate:
                validation = trainer.evaluate(self.split.valid, show_progress=False)
                run = run._replace(valid=float(validation[self.config["valid_metric"].lower()]), epochs=trainer.best_epoch)
        asked = {name: value for name, value in evaluation.metrics.items() if self._asks_for(name)}
        self.logger.info(set_color(f"{contender.label}, seed {seed}", "green") + f": {dict2str(asked)}")
        write_run(file, run)
        remove(state_file)
        trainer.tensorboard.close()
        return run

    @functools.cached_property
    def _events_of(self):
        sequences = self.split.sequences
        return {int(user): len(items) for user, items in zip(sequences.users, sequences.items)}

    def _asks_for(self, metric):
        """Whether a metric is among the configured ones; others are the report's alone."""
        return metric.partition("@")[0] in {name.lower() for name in self.config["metrics"]}


def _check_apart(output, others):
    """Refuse a folder of the summary that holds others: it is replaced as a whole when a summary is written."""
    whole = Path(os.path.realpath(output))
    for option, place in others.items():
        place = Path(os.path.realpath(place))
        if whole in (place, *place.parents):
            raise OptionError(
                f"the summary would be written to {output}, and replace what is in it: {option} must lie elsewhere (farzi_output_path)"
            )


def places(config, options, model_class):
    """Where the summary and the report are written: ``(folder, folder)``."""
    name = config["dataset"]
    # RecBole reads ml-100k from its own wheel, where nothing should be written: ask for what was configured
    beside = Path(config.external_config_dict.get("data_path") or "dataset")
    output = Path(options.output.output_path or beside / f"{name}-farzi")
    return output, Path(options.output.report_path) / f"{name}-{model_class.__name__}"
