"""One trained model on test, whole and by strata: what a run of a report consists of, as plain values and arrays."""

import copy
from typing import NamedTuple, Optional

import numpy as np
import torch
from recbole.evaluator import Evaluator

from recbole_farzi.data import history_field, training_sequences
from recbole_farzi.language_metrics import sums_by_user
from recbole_farzi.metrics import RowCollector, RowMetrics
from recbole_farzi.strata import split_rows

__all__ = ["Evaluation", "TrainingCounts", "describe", "evaluate_by_strata", "training_counts"]


class TrainingCounts(NamedTuple):
    """What is known of users and items from training.

    Attributes:
        events_of: dict of user to number of training events; 0 where absent.
        occurrences: of each item, shape [V].
    """

    events_of: dict
    occurrences: np.ndarray

    @property
    def events(self):
        """Number of training events."""
        return int(self.occurrences.sum())


class Evaluation(NamedTuple):
    """A model on test.

    Attributes:
        metrics: RecBole's metrics over everything.
        strata: kind of strata to the metrics of each stratum, from cold to warm.
        described: kind to what each stratum is: ``label``, ``rows``, ``users``, ``unseen``, ``cell``.
        row_metrics: names of the metrics that ``arrays`` has row by row.
        arrays: ``all/users`` [n] and ``all/values`` [row metrics, n], and for each kind ``KIND/stratum`` [n], the
            number of each row's stratum. Where users have several held-out items, kinds of strata that part those of
            one user have rows of their own: ``KIND/users`` and ``KIND/values`` beside it.
        by_user: :func:`recbole_farzi.language_metrics.sums_by_user`, where every position of a history is evaluated.
    """

    metrics: dict
    strata: dict
    described: dict
    row_metrics: list
    arrays: dict
    by_user: Optional[dict] = None


def training_counts(dataset):
    """:class:`TrainingCounts` of a RecBole train dataset, sequential or not."""
    if hasattr(dataset, f"{dataset.iid_field}_list_field") and history_field(dataset) in dataset.inter_feat:
        sequences = training_sequences(dataset)
        events_of = {int(user): 0 for user in sequences.users}
        for user, items in zip(sequences.users, sequences.items):
            events_of[int(user)] += len(items)
        return TrainingCounts(events_of, sequences.counts(dataset.item_num))
    users, counts = np.unique(dataset.inter_feat[dataset.uid_field].numpy(), return_counts=True)
    occurrences = np.bincount(dataset.inter_feat[dataset.iid_field].numpy(), minlength=dataset.item_num)
    return TrainingCounts(dict(zip(users.tolist(), counts.tolist())), occurrences)


def evaluate_by_strata(trainer, train_data, test_data, counts, user_strata, item_strata, extra_metrics=()):
    """Evaluate a trained model with RecBole's evaluator on the whole test data and on every stratum of it.

    Args:
        trainer: a RecBole trainer with a :class:`recbole_farzi.metrics.RowCollector`; its best model is evaluated.
        train_data: RecBole's train loader, which some metrics ask for counts.
        test_data: RecBole's test loader.
        counts: :class:`TrainingCounts`.
        user_strata, item_strata: a number of quantiles, or edges; see :func:`recbole_farzi.strata.split_rows`.
        extra_metrics: RecBole metrics to compute beside the configured ones, here alone: some are slow.

    Returns:
        :class:`Evaluation`.

    Raises:
        OptionError: a stratum between the edges that were asked for is empty.
    """
    config = copy.copy(trainer.config)
    config.final_config_dict = dict(config.final_config_dict)
    asked = [metric.lower() for metric in config["metrics"]]
    config["metrics"] = list(config["metrics"]) + [metric for metric in extra_metrics if metric.lower() not in asked]
    collector, evaluator = trainer.eval_collector, trainer.evaluator
    trainer.eval_collector, trainer.evaluator = RowCollector(config), Evaluator(config)
    trainer.eval_collector.probabilities = getattr(collector, "probabilities", False)
    try:
        trainer.eval_collector.data_collect(train_data)
        metrics = trainer.evaluate(test_data, show_progress=False)
        rows = trainer.eval_collector.rows
    finally:
        trainer.eval_collector, trainer.evaluator = collector, evaluator
    users, targets = rows.get("rec.user").numpy(), rows.get("rec.target").numpy()
    strata = split_rows(users, targets, counts.events_of, counts.occurrences, user_strata, item_strata)
    of_rows = RowMetrics(config, rows)
    everything = np.ones(len(users), dtype=bool)
    row_users, values = of_rows.values(everything)
    arrays = {"all/users": row_users.astype(np.int32), "all/values": np.stack(list(values.values()))}
    for kind, group in strata.items():
        arrays.update(_of_kind(kind, group, of_rows, rows, list(values)))
    return Evaluation(
        _plain(metrics),
        {kind: [_plain(of_rows.evaluate(torch.from_numpy(s.rows))) for s in group] for kind, group in strata.items()},
        {kind: [describe(stratum, users) for stratum in group] for kind, group in strata.items()},
        list(values),
        arrays,
        sums_by_user(rows) if config["farzi_positions"] == "every" else None,
    )


def describe(stratum, users):
    """A :class:`recbole_farzi.strata.Stratum` as plain values; ``users`` are those of all rows, shape [n]."""
    return {
        "label": stratum.label,
        "rows": int(stratum.rows.sum()),
        "users": len(np.unique(users[stratum.rows])),
        "unseen": stratum.unseen,
        "cell": None if stratum.cell is None else list(stratum.cell),
    }


def _of_kind(kind, group, of_rows, rows, names):
    row = rows.get("rec.row").numpy()
    if of_rows.single:
        number = np.empty(len(row), dtype=np.int16)
        for position, stratum in enumerate(group):
            number[row[stratum.rows]] = position
        return {f"{kind}/stratum": number}
    users, values, numbers = [], [], []
    for position, stratum in enumerate(group):
        of_users, by_metric = of_rows.values(torch.from_numpy(stratum.rows))
        users.append(of_users.astype(np.int32))
        values.append(np.stack([by_metric[name] for name in names]))
        numbers.append(np.full(len(of_users), position, dtype=np.int16))
    return {
        f"{kind}/users": np.concatenate(users),
        f"{kind}/values": np.concatenate(values, axis=1),
        f"{kind}/stratum": np.concatenate(numbers),
    }


def _plain(metrics):
    return {key: float(value) for key, value in metrics.items()}
