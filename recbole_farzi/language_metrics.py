"""Perplexity and next-word accuracy as RecBole metrics: means over evaluated rows, a row being a predicted position."""

import math

import torch
from recbole.evaluator.base_metric import AbstractMetric
from recbole.utils import EvaluatorType

__all__ = ["Accuracy", "Perplexity", "sums_by_user"]


class Perplexity(AbstractMetric):
    """``exp`` of the mean of ``-log p(target)`` over evaluated rows, in nats; ``p`` is the softmax of the scores of all
    items but padding. Less is better. Jelinek et al., "Perplexity: a measure of the difficulty of speech recognition
    tasks", 1977."""

    metric_type = EvaluatorType.RANKING
    metric_need = ["rec.cross_entropy"]
    smaller = True

    def calculate_metric(self, dataobject):
        mean = dataobject.get("rec.cross_entropy").double().mean().item()
        value = math.exp(mean) if mean < 700 else math.inf
        return {"perplexity": round(value, self.decimal_place)}


class Accuracy(AbstractMetric):
    """Share of evaluated rows whose target has the highest score of all items: ``Hit@1``, whatever ``topk`` is."""

    metric_type = EvaluatorType.RANKING
    metric_need = ["rec.first"]

    def calculate_metric(self, dataobject):
        first = dataobject.get("rec.first").double().mean().item()
        return {"accuracy": round(first, self.decimal_place)}


def sums_by_user(rows):
    """What perplexity and accuracy are made of, sentence by sentence, for intervals over sentences.

    Args:
        rows: the ``DataStruct`` of an evaluation with both metrics.

    Returns:
        dict of lists with an entry a sentence, in the order of their users: ``cross_entropy`` (sum of ``-log p``),
        ``first`` (how many words had the highest score) and ``events`` (how many there are).
    """
    _, number = rows.get("rec.user").unique(return_inverse=True)
    columns = {"cross_entropy": rows.get("rec.cross_entropy"), "events": torch.ones(len(number))}
    if "rec.first" in rows:
        columns["first"] = rows.get("rec.first")
    sums = {
        name: torch.zeros(int(number.max()) + 1, dtype=torch.float64).index_add_(0, number, values.double())
        for name, values in columns.items()
    }
    return {name: values.tolist() if name == "cross_entropy" else values.long().tolist() for name, values in sums.items()}
