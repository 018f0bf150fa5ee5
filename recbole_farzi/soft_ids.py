"""Virtual ids in code that was written for ids: what PyTorch's operations on ids mean where an id is a distribution.

Pure tensor mathematics: nothing here knows RecBole. While :class:`SoftIds` is active, ids from ``first`` upwards are
*virtual*: id ``first + k`` stands for the distribution ``P[k]`` over the ``V`` real ids. A model's code runs as it is, and
wherever it hands ids to PyTorch the operation gives its expectation, which for a one-hot ``P[k]`` is the operation itself:

===========================  ================================================================================
lookup ``E[id]``             ``P[k] E``: ``F.embedding`` and indexing, in the tables that were named
``cross_entropy``            ``-sum_v P[k, v] log softmax(s)_v``, likewise ``nll_loss``
``gather`` of scores         ``sum_v P[k, v] s_v``
``scatter_add`` of a weight  ``w P[k]`` is added to the row
``scatter_add`` of -inf      excludes ids: ``log(1 - P[k])`` is added, the log probability that the id is another one
``scatter`` of a value       ``(1 - pi) x + pi w``, with ``pi`` the probability that one of the ids hits the entry and
                             ``w`` the mean of their values, weighted by ``P``
===========================  ================================================================================

What a model computes of ids in other ways it must be able to do with integers that it has never seen: distinct virtual ids
are distinct ids, so that a graph built over the ids of a sequence is a chain.
"""

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["SoftIds", "SoftVocabulary"]


class SoftVocabulary:
    """Distributions over real ids, and the ids that stand for them.

    Args:
        distributions: ``P``, shape [k, V].
        first: the virtual id of ``P[0]``; at least V. Ids from V to ``first`` are the model's own (a mask token).
        inputs: real ids as which the virtual ones are looked up, shape [k], so that ``P`` counts where an id is a target;
            None looks up the expectation.
    """

    def __init__(self, distributions, first, inputs=None):
        self.distributions = distributions
        self.first = first
        self.inputs = inputs
        self._log_others = None

    @property
    def size(self):
        """V."""
        return self.distributions.shape[1]

    def extend(self, table):
        """``concat(E, P E)``, or ``E`` and its rows of the inputs, with zeros between where it has fewer rows than ``first``.

        Args:
            table: shape [V + a, ...], ``V + a <= first``.
        """
        if self.inputs is not None:
            rows = table[self.inputs]
        else:
            rows = self.distributions @ table[: self.size].reshape(self.size, -1)
        parts = [table, rows.view(-1, *table.shape[1:])]
        if len(table) < self.first:
            parts.insert(1, table.new_zeros(self.first - len(table), *table.shape[1:]))
        return torch.cat(parts)

    def cross_entropy(self, log_p, target):
        """``-log p`` of each target id: shape [n, C] with C from V to ``first``, and ids [n]; returns [n]."""
        real = -log_p.gather(-1, target.clamp(0, log_p.shape[-1] - 1).unsqueeze(-1)).squeeze(-1)
        rows = self.distributions[(target - self.first).clamp(min=0)]
        soft = -(rows * log_p[..., : self.size]).sum(dim=-1)
        return torch.where(target >= self.first, soft, real)

    def targets(self, target, classes):
        """Targets as distributions: ids [n] to [n, C]."""
        rows = self.distributions[(target - self.first).clamp(min=0)]
        rows = nn.functional.pad(rows, (0, classes - self.size))
        real = nn.functional.one_hot(target.clamp(0, classes - 1), classes).to(rows.dtype)
        return torch.where((target >= self.first).unsqueeze(-1), rows, real)

    def fold(self, weights, index):
        """Sum of ``weights`` at the ids of ``index``: shapes [..., l] and [..., l]; returns [..., V]."""
        counts = self._counts(weights, index)
        return counts[..., : self.size] + counts[..., self.first :] @ self.distributions

    def log_others(self, index, chosen):
        """Log probability that none of the chosen ids is v; -inf where a real one is.

        Args:
            index: ids, shape [..., l].
            chosen: which of them count, boolean, the same shape.

        Returns:
            Shape [..., V].
        """
        if self._log_others is None:
            # A probability that has been rounded to 1 leaves the smallest one to the others: -inf has no gradient.
            most = 1.0 - torch.finfo(self.distributions.dtype).eps
            self._log_others = torch.log1p(-self.distributions.clamp(max=most))
        counts = self._counts(chosen.to(self.distributions.dtype), index)
        soft = counts[..., self.first :] @ self._log_others
        return soft.masked_fill(counts[..., : self.size] > 0, -torch.inf)

    def _counts(self, weights, index):
        counts = weights.new_zeros(*index.shape[:-1], self.first + len(self.distributions))
        return counts.scatter_add(-1, index, weights)


class SoftIds(TorchFunctionMode):
    """While active (``with``), PyTorch's operations on ids understand virtual ids.

    Args:
        items: :class:`SoftVocabulary` of what is scored: the operations on scores and targets are its. None if no
            item is virtual.
        tables: ``[(tensor, SoftVocabulary)]``: the very tensors that are looked up with ids, and whose ids they are.
    """

    def __init__(self, items, tables):
        super().__init__()
        self.items = items
        self.tables = {id(table): (table, vocabulary) for table, vocabulary in tables}
        self._extended = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        handler = _HANDLERS.get(func)
        if handler is not None:
            result = handler(self, *args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)

    def extended(self, table):
        """The table with its virtual rows, or None if it is not one that is looked up with ids."""
        if id(table) not in self.tables:
            return None
        if id(table) not in self._extended:
            table, vocabulary = self.tables[id(table)]
            self._extended[id(table)] = vocabulary.extend(table)
        return self._extended[id(table)]

    def _embedding(self, input, weight, padding_idx=None, *args, **kwargs):
        extended = self.extended(weight)
        if extended is None:
            return NotImplemented
        return nn.functional.embedding(input, extended, padding_idx, *args, **kwargs)

    def _getitem(self, table, index):
        extended = self.extended(table)
        first = index[0] if isinstance(index, tuple) and index else index
        if extended is None or not torch.is_tensor(first) or first.dtype != torch.long:
            return NotImplemented
        return extended[index]

    def _index_select(self, table, dim, index):
        extended = self.extended(table)
        return NotImplemented if extended is None or dim != 0 else torch.index_select(extended, 0, index)

    def _are_scores(self, tensor, dim=-1):
        return (
            self.items is not None
            and torch.is_tensor(tensor)
            and tensor.is_floating_point()
            and dim in (-1, tensor.dim() - 1)
            and self.items.size <= tensor.shape[-1] <= self.items.first
        )

    def _cross_entropy(self, input, target, weight=None, size_average=None, ignore_index=-100, reduce=None,
                       reduction="mean", label_smoothing=0.0):  # fmt: skip
        if target.is_floating_point() or not self._are_scores(input, 1):
            return NotImplemented
        if weight is not None or label_smoothing:
            if bool((target == ignore_index).any()):
                raise NotImplementedError("a cross-entropy that weighs or smooths classes and ignores some targets")
            dense = self.items.targets(target, input.shape[-1])
            return nn.functional.cross_entropy(input, dense, weight, reduction=reduction, label_smoothing=label_smoothing)
        return self._reduced(torch.log_softmax(input, dim=-1), target, ignore_index, reduction)

    def _nll_loss(self, input, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"):
        if not self._are_scores(input, 1) or weight is not None:
            return NotImplemented
        return self._reduced(input, target, ignore_index, reduction)

    def _reduced(self, log_p, target, ignore_index, reduction):
        keep = target != ignore_index
        losses = torch.where(keep, self.items.cross_entropy(log_p, target.clamp(min=0)), 0.0)
        if reduction == "none":
            return losses
        return losses.sum() if reduction == "sum" else losses.sum() / keep.sum()

    def _gather(self, input, dim, index, **kwargs):
        if not self._are_scores(input, dim):
            return NotImplemented
        soft = input[..., : self.items.size] @ self.items.distributions.T
        between = input.new_zeros(*input.shape[:-1], self.items.first - input.shape[-1])
        return torch.cat([input, between, soft], dim=-1).gather(-1, index)

    def _scatter_add(self, input, dim, index, src):
        if not self._are_scores(input, dim) or input.shape[-1] != self.items.size:
            return NotImplemented
        excluded = torch.isneginf(src)
        result = input + self.items.fold(src.masked_fill(excluded, 0.0), index)
        return result + self.items.log_others(index, excluded) if bool(excluded.any()) else result

    def _scatter_add_in_place(self, input, dim, index, src):
        result = self._scatter_add(input, dim, index, src)
        return result if result is NotImplemented else input.copy_(result)

    def _scatter(self, input, dim, index, src=None, *, value=None, reduce=None):
        if reduce is not None or not self._are_scores(input, dim) or input.shape[-1] != self.items.size:
            return NotImplemented
        src = value if src is None else src
        others = self.items.log_others(index, torch.ones_like(index, dtype=torch.bool)).exp()
        if torch.is_tensor(src):
            hits = self.items.fold(torch.ones_like(src), index)
            src = self.items.fold(src, index) / hits.clamp(min=torch.finfo(hits.dtype).tiny)
        return others * input + (1.0 - others) * src

    def _scatter_in_place(self, input, dim, index, src=None, *, value=None, reduce=None):
        # of a copy: backward needs what was there before
        result = self._scatter(input.clone(), dim, index, src, value=value, reduce=reduce)
        return result if result is NotImplemented else input.copy_(result)


_HANDLERS = {
    nn.functional.embedding: SoftIds._embedding,
    torch.Tensor.__getitem__: SoftIds._getitem,
    torch.index_select: SoftIds._index_select,
    torch.Tensor.index_select: SoftIds._index_select,
    nn.functional.cross_entropy: SoftIds._cross_entropy,
    nn.functional.nll_loss: SoftIds._nll_loss,
    torch.gather: SoftIds._gather,
    torch.Tensor.gather: SoftIds._gather,
    torch.scatter_add: SoftIds._scatter_add,
    torch.Tensor.scatter_add: SoftIds._scatter_add,
    torch.Tensor.scatter_add_: SoftIds._scatter_add_in_place,
    torch.scatter: SoftIds._scatter,
    torch.Tensor.scatter: SoftIds._scatter,
    torch.Tensor.scatter_: SoftIds._scatter_in_place,
}
