"""Cross-entropy of the held-out event as a RecBole metric, and the rows behind every RecBole metric.

RecBole's evaluator works on a table with a row for each evaluated user. :class:`RowCollector` keeps that table, with
the user and the target of each row, so that any RecBole metric can be computed for any subset of the rows.
"""

import copy

import torch
from recbole.evaluator import Collector, Evaluator
from recbole.evaluator import register as _registry
from recbole.evaluator.base_metric import AbstractMetric
from recbole.evaluator.collector import DataStruct
from recbole.utils import EvaluatorType

from recbole_farzi.language_metrics import Accuracy, Perplexity

__all__ = ["OWN_METRICS", "CrossEntropy", "RowCollector", "evaluate_rows", "register_metrics"]


class CrossEntropy(AbstractMetric):
    """Mean of ``-log p(target)`` over evaluated rows, in nats; ``p`` is the softmax of the scores of all items but
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
    """RecBole's collector, which also keeps user, target and cross-entropy of each evaluated row.

    Attributes:
        rows: the ``DataStruct`` of the last evaluation, or None before the first.
        probabilities: the model scores by probabilities, not by their logarithms up to a constant (RepeatNet).
    """

    def __init__(self, config):
        super().__init__(config)
        self.rows = None
        self.probabilities = False

    def eval_batch_collect(self, scores_tensor, interaction, positive_u, positive_i):
        super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        positive_u, positive_i = positive_u.to(scores_tensor.device), positive_i.to(scores_tensor.device)
        if self.probabilities:
            scores_tensor = torch.log(scores_tensor.clamp(min=0) + 1e-8)
        log_total = torch.logsumexp(scores_tensor, dim=-1)
        loss = log_total[positive_u] - scores_tensor[positive_u, positive_i]
        self.data_struct.update_tensor("rec.cross_entropy", loss)
        if self.register.need("rec.first"):
            self.data_struct.update_tensor("rec.first", scores_tensor.argmax(dim=-1) == positive_i)
        self.data_struct.update_tensor("rec.user", interaction[self.config["USER_ID_FIELD"]].to(loss.device)[positive_u])
        self.data_struct.update_tensor("rec.target", positive_i)

    def get_data_struct(self):
        """As RecBole's, which fails where a metric needs what is no tensor (numbers and counts of items and users)."""
        held = self.data_struct._data_dict
        held.update({key: value.cpu() for key, value in held.items() if torch.is_tensor(value)})
        self.rows = copy.deepcopy(self.data_struct)
        for key in [key for key in held if key.startswith("rec.") or key == "data.label"]:
            del held[key]
        return self.rows


def evaluate_rows(config, rows, keep):
    """Every configured RecBole metric on a subset of the rows, by RecBole's own evaluator.

    Args:
        config: RecBole's Config.
        rows: a ``DataStruct`` that :class:`RowCollector` kept.
        keep: boolean mask over rows, shape [n], with at least one True.

    Returns:
        dict of metric to value, as RecBole's ``Trainer.evaluate`` gives it.
    """
    subset = DataStruct()
    for key, value in rows._data_dict.items():
        subset.set(key, value[keep] if key.startswith("rec.") else value)
    return dict(Evaluator(config).evaluate(subset))
