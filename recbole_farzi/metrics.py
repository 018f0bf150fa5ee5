"""Cross-entropy of the held-out event as a RecBole metric, and the rows behind every RecBole metric.

RecBole's evaluator works on a table with a row for each evaluated user. :class:`RowCollector` keeps that table, and
each row's held-out items, so that any RecBole metric can be computed for any subset of them, and each row's share in a
metric can be told.
"""

import copy

import numpy as np
import torch
from recbole.evaluator import Collector, Evaluator
from recbole.evaluator import register as _registry
from recbole.evaluator.base_metric import AbstractMetric
from recbole.evaluator.collector import DataStruct
from recbole.utils import EvaluatorType

from recbole_farzi.language_metrics import Accuracy, Perplexity

__all__ = ["OWN_METRICS", "CrossEntropy", "RowCollector", "RowMetrics", "evaluate_rows", "register_metrics"]

_OF_TARGETS = ("rec.user", "rec.target", "rec.row", "rec.rank", "rec.mean_rank", "rec.cross_entropy", "rec.first")
_MEANS_OVER_TARGETS = {"crossentropy": "rec.cross_entropy", "accuracy": "rec.first"}


class CrossEntropy(AbstractMetric):
    """Mean of ``-log p(target)`` over evaluated targets, in nats; ``p`` is the softmax of the scores of all items but
    padding. Less is better. It is far less noisy than a ranking metric, since every row has a graded say."""

    metric_type = EvaluatorType.RANKING
    metric_need = ["rec.cross_entropy"]
    smaller = True

    def calculate_metric(self, dataobject):
        value = dataobject.get("rec.cross_entropy").double().mean().item()
        return {"crossentropy": round(value, self.decimal_place)}


OWN_METRICS = (CrossEntropy, Perplexity, Accuracy)


def register_metrics():
    """Make :data:`OWN_METRICS` valid as ``metrics`` and ``valid_metric`` in RecBole's Config. Idempotent."""
    for metric in OWN_METRICS:
        name = metric.__name__.lower()
        _registry.metrics_dict[name] = metric
        _registry.metric_information[name] = metric.metric_need
        _registry.metric_types[name] = metric.metric_type
        if getattr(metric, "smaller", False) and name not in _registry.smaller_metrics:
            _registry.smaller_metrics.append(name)


class RowCollector(Collector):
    """RecBole's collector, which also keeps of each held-out item (*target*): its user, its row, its rank, its
    cross-entropy. Where users have one held-out item each, as in leave-one-out, targets and rows are the same.

    Attributes:
        rows: the ``DataStruct`` of the last evaluation, or None before the first. Beside RecBole's entries, which have
            a row a user, it holds one number a target: ``rec.user``, ``rec.target``, ``rec.row`` (of RecBole's
            entries), ``rec.rank`` (from 1; 0 beyond the longest list), ``rec.mean_rank`` (if a metric needs it) and
            ``rec.cross_entropy``.
        probabilities: the model scores by probabilities, not by their logarithms up to a constant (RepeatNet).
    """

    def __init__(self, config):
        super().__init__(config)
        self.rows = None
        self.probabilities = False
        self._collected = 0

    def eval_batch_collect(self, scores_tensor, interaction, positive_u, positive_i):
        super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        device = scores_tensor.device
        positive_u, positive_i = positive_u.to(device), positive_i.to(device)
        own = scores_tensor[positive_u, positive_i]
        found = torch.topk(scores_tensor, max(self.topk), dim=-1).indices[positive_u] == positive_i.unsqueeze(1)
        rank = torch.where(found.any(dim=1), found.int().argmax(dim=1) + 1, 0)
        keep = self.data_struct.update_tensor
        logits = torch.log(scores_tensor.clamp(min=0) + 1e-8) if self.probabilities else scores_tensor
        keep("rec.cross_entropy", torch.logsumexp(logits, dim=-1)[positive_u] - logits[positive_u, positive_i])
        if self.register.need("rec.first"):
            keep("rec.first", scores_tensor.argmax(dim=-1)[positive_u] == positive_i)
        keep("rec.user", interaction[self.config["USER_ID_FIELD"]].to(device)[positive_u])
        keep("rec.target", positive_i)
        keep("rec.row", positive_u + self._collected)
        keep("rec.rank", rank)
        if self.register.need("rec.meanrank"):
            scores, own = scores_tensor[positive_u], own.unsqueeze(1)
            keep("rec.mean_rank", (scores > own).sum(dim=1) + ((scores == own).sum(dim=1) + 1) / 2)
        self._collected += len(scores_tensor)

    def get_data_struct(self):
        """As RecBole's, which fails where a metric needs what is no tensor (numbers and counts of items and users)."""
        held = self.data_struct._data_dict
        held.update({key: value.cpu() for key, value in held.items() if torch.is_tensor(value)})
        self.rows = copy.deepcopy(self.data_struct)
        for key in [key for key in held if key.startswith("rec.") or key == "data.label"]:
            del held[key]
        self._collected = 0
        return self.rows


def evaluate_rows(config, rows, keep):
    """Every configured RecBole metric on some of the targets, by RecBole's own evaluator.

    Args:
        config: RecBole's Config.
        rows: a ``DataStruct`` that :class:`RowCollector` kept.
        keep: boolean mask over targets, shape [n], with at least one True. Of a user with several held-out items, the
            others than these do not count as right.

    Returns:
        dict of metric to value, as RecBole's ``Trainer.evaluate`` gives it.
    """
    return dict(Evaluator(config).evaluate(_subset(rows, keep)))


class RowMetrics:
    """RecBole's metrics on any strata of one evaluation, and what each row contributes to them.

    What RecBole's metrics compute row by row they compute once; each stratum's mean is taken by them again.

    Args:
        config: RecBole's Config.
        rows: a ``DataStruct`` that :class:`RowCollector` kept.

    Attributes:
        single: whether every row has one held-out item, as in leave-one-out.
    """

    def __init__(self, config, rows):
        self._config, self._rows = config, rows
        self._row = rows.get("rec.row").numpy()
        self.single = len(np.unique(self._row)) == len(self._row)
        self._whole = self._by_row(rows)

    def evaluate(self, keep):
        """As :func:`evaluate_rows` gives it.

        Args:
            keep: boolean mask over targets, shape [n].
        """
        if not self.single:
            return evaluate_rows(self._config, self._rows, keep)
        subset, chosen, out = _subset(self._rows, keep), self._row[np.asarray(keep)], {}
        for name, metric in Evaluator(self._config).metric_class.items():
            table = self._whole.get(name)
            if table is None or name in _MEANS_OVER_TARGETS:
                out.update(metric.calculate_metric(subset))
            else:
                out.update(metric.topk_result(name, table[np.sort(chosen)]))
        return out

    def values(self, keep):
        """What each row contributes to those metrics that are means over rows.

        Args:
            keep: boolean mask over targets, shape [n].

        Returns:
            ``(users, values)``: the user of each row, shape [m], and a dict of metric to float64 array, shape [m],
            whose mean is the metric before rounding. Metrics of the recommended lists as a whole (coverage, Gini index,
            entropy) and GAUC are absent.
        """
        subset = _subset(self._rows, keep)
        row = subset.get("rec.row").numpy()
        users = np.empty(int(row.max()) + 1, dtype=np.int64)
        users[row] = subset.get("rec.user").numpy()
        if self.single:
            chosen = np.sort(self._row[np.asarray(keep)])
            tables = {name: table[chosen] for name, table in self._whole.items()}
        else:
            tables = self._by_row(subset)
        values = {}
        for name, table in tables.items():
            if table.ndim == 1:
                values[name] = table.astype(np.float64)
                continue
            values.update({f"{name}@{k}": table[:, k - 1].astype(np.float64) for k in self._config["topk"]})
        return users, values

    def _by_row(self, subset):
        """Metric to the table of what its rows contribute: shape [m, longest list], or [m]; others are left out."""
        row, out = subset.get("rec.row").numpy(), {}
        for name, metric in Evaluator(self._config).metric_class.items():
            if name in _MEANS_OVER_TARGETS:
                sums = np.bincount(row, weights=subset.get(_MEANS_OVER_TARGETS[name]).double().numpy())
                out[name] = sums * (len(sums) / len(row))  # a mean over targets: a row with several weighs more
                continue
            if not hasattr(metric, "topk_result"):
                continue
            seen, own = [], metric.topk_result
            metric.topk_result = lambda named, table, own=own, seen=seen: (seen.append(table), own(named, table))[1]
            result = metric.calculate_metric(subset)
            if len(seen) != 1 or getattr(seen[0], "shape", None) != (int(row.max()) + 1, max(self._config["topk"])):
                continue
            means = {f"{name}@{k}": round(seen[0][:, k - 1].mean(), metric.decimal_place) for k in self._config["topk"]}
            if means == dict(result):
                out[name] = seen[0]
        return out


def _subset(rows, keep):
    """The entries of some targets and of their rows, as if the rows' other targets were any other items."""
    keep = torch.as_tensor(keep)
    held, subset = rows._data_dict, DataStruct()
    kept_rows, row = torch.unique(held["rec.row"][keep], return_inverse=True)
    whole = bool(torch.isin(held["rec.row"][~keep], kept_rows).logical_not().all())
    for key, value in held.items():
        if key in _OF_TARGETS:
            subset.set(key, value[keep])
        else:
            subset.set(key, value[kept_rows] if key.startswith("rec.") else value)
    subset.set("rec.row", row)
    if whole:
        return subset
    held_out = torch.bincount(row)
    if "rec.topk" in subset:
        found, rank = torch.zeros_like(subset.get("rec.topk")), subset.get("rec.rank")
        found[row[rank > 0], rank[rank > 0] - 1] = 1
        found[:, -1] = held_out
        subset.set("rec.topk", found)
    if "rec.meanrank" in subset:
        ranks = subset.get("rec.meanrank").clone()
        ranks[:, 0] = torch.bincount(row, weights=subset.get("rec.mean_rank").double()).to(ranks.dtype)
        ranks[:, 2] = held_out
        subset.set("rec.meanrank", ranks)
    return subset
