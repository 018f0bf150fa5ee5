"""A mean loss over many rows, with its gradient, in the memory that a few of them need. Knows nothing of RecBole.

For a mean over rows, ``L = sum_i l_i / n``, the gradient is the sum of the gradients of parts of the rows. Each part is
computed forward and backward before the next, so that the scores of one part at a time exist: of 10,000 words after
each of 10,000 tokens there are 400 MB, several times over with what the softmax keeps. Nothing is computed twice.
"""

import torch

__all__ = ["SCORES_IN_MEMORY", "blockwise_mean", "rows_in_memory"]

SCORES_IN_MEMORY = 256 * 2**20  # bytes of scores of real events at a time


def blockwise_mean(loss, params, batch, block, weigh):
    """``loss(params, batch)``, part by part.

    Args:
        loss: function from ``({name: tensor}, rows)`` to the mean loss over the terms of these rows, a scalar.
        params: ``{name: tensor}``; the result can be differentiated for them, once.
        batch: rows, shape [n, ...].
        block: rows at a time.
        weigh: function from rows to the number of terms that ``loss`` averages over in them.

    Returns:
        Scalar: the mean over the terms of all rows.
    """
    if len(batch) <= block:
        return loss(params, batch)
    parts = batch.split(block)
    weights = [float(weigh(part)) for part in parts]
    return _Blockwise.apply(loss, tuple(params), parts, weights, *params.values())


def rows_in_memory(batch, classes, limit, itemsize=4):
    """How many rows of positions have their scores of all classes in ``limit`` bytes; at least one.

    Args:
        batch: shape [n, positions].
        classes: scores of each position.
        limit: bytes.
        itemsize: bytes of a score.
    """
    return max(1, limit // (batch.shape[1] * classes * itemsize))


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss, names, parts, weights, *values):
        leaves = [value.detach().requires_grad_(True) for value in values]
        params, total, whole = dict(zip(names, leaves)), 0.0, sum(weights)
        grads = [torch.zeros_like(leaf) for leaf in leaves]
        with torch.enable_grad():
            for part, weight in zip(parts, weights):
                if weight == 0:
                    continue
                share = loss(params, part) * (weight / whole)
                for held, grad in zip(grads, torch.autograd.grad(share, leaves, allow_unused=True)):
                    if grad is not None:
                        held.add_(grad)
                total = total + share.detach()
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return (None, None, None, None, *(grad * held for held in ctx.saved_tensors))
