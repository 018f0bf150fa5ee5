"""Distributions over items of low rank in their logits: the closest ones to given ones, by their cross-entropy.

Cutting the logits' singular values spends the rank on items that hardly ever occur, where logits are far from zero and
nobody looks. Here what is lost is measured where the mass is: exponential-family principal components for the multinomial
(Collins, Dasgupta and Schapire, "A Generalization of Principal Component Analysis to the Exponential Family", NeurIPS 2001).
"""

import torch

from recbole_farzi.blockwise import SCORES_IN_MEMORY

__all__ = ["divergence", "factorise", "factorise_within"]

_ROWS = 1024  # whose gradient is held at a time, fewer where that takes too much memory
_BETAS = (0.9, 0.99)
_EPS = 1e-12


def factorise(logs, rank, seed, steps=60, learning_rate=0.06):
    """``softmax(left @ right.T + bias)`` close to given distributions.

    Starts from the largest singular values of the logits and minimises :func:`divergence` with Adam, all rows at once, the
    learning rate constant for half of the steps and then falling linearly. Where that ends no closer (the rank suffices),
    the singular values' cut is returned.

    Args:
        logs: logarithms of the distributions, finite, shape [n, V].
        rank: d, at least 1.
        seed: of the randomised decomposition.
        steps: of Adam; 0 keeps the singular values' cut.
        learning_rate: Adam's.

    Returns:
        ``(left, right, bias)``, shapes [n, d], [V, d] and [V].
    """
    centred = logs - logs.mean(dim=1, keepdim=True)  # a softmax does not see a constant
    bias = centred.mean(dim=0)
    left, right = _truncated_svd(centred.sub_(bias), rank, seed)
    del centred
    cut = (left, right, bias)
    values = [value.clone() for value in cut]
    first = [torch.zeros_like(value) for value in values]
    second = [torch.zeros_like(value) for value in values]
    for step in range(1, steps + 1):
        rate = learning_rate * min(1.0, 2.0 * (1.0 - (step - 1) / steps))
        for value, m, v, gradient in zip(values, first, second, _gradient(logs, *values)):
            m.lerp_(gradient, 1.0 - _BETAS[0])
            v.lerp_(gradient.square(), 1.0 - _BETAS[1])
            size = (v / (1.0 - _BETAS[1] ** step)).sqrt_().add_(_EPS)
            value.addcdiv_(m, size, value=-rate / (1.0 - _BETAS[0] ** step))
    return min(cut, tuple(values), key=lambda three: divergence(logs, *three).item())


def factorise_within(logs, ranks, most_lost, judged, seed):
    """:func:`factorise` with the first of several ranks that loses little enough, or with the last.

    Args:
        logs: logarithms of the distributions, finite, shape [n, V].
        ranks: ascending; a single one is taken as it is.
        most_lost: mean divergence that is little enough, in nats a row.
        judged: so many distributions, the first ones, count for it.
        seed: of the randomised decomposition.

    Returns:
        ``(left, right, bias)``, as :func:`factorise`; the rank is that of ``left``.
    """
    for rank in ranks:
        left, right, bias = factorise(logs, rank, seed)
        if rank == ranks[-1] or divergence(logs[:judged], left[:judged], right, bias) <= most_lost:
            return left, right, bias
        del left, right, bias  # before the next are made


def divergence(logs, left, right, bias):
    """Mean Kullback-Leibler divergence of ``softmax(left @ right.T + bias)`` from distributions, in nats a row.

    Args:
        logs: logarithms of the distributions, shape [n, V].
        left, right, bias: shapes [n, d], [V, d] and [V].
    """
    total = 0.0
    for rows in _blocks(logs):
        close = torch.addmm(bias, left[rows], right.T).log_softmax(dim=1)
        total = total + (logs[rows].exp() * (logs[rows] - close)).sum()
    return total / len(logs)


def _gradient(logs, left, right, bias):
    """Of the mean divergence, for each of the three: with ``R = (softmax(left right' + bias) - p) / n``, it is
    ``R right``, ``R' left`` and the column sums of ``R``."""
    of_left, of_right, of_bias = torch.empty_like(left), torch.zeros_like(right), torch.zeros_like(bias)
    for rows in _blocks(logs):
        rest = torch.addmm(bias, left[rows], right.T).softmax(dim=1).sub_(logs[rows].exp()).div_(len(logs))
        torch.mm(rest, right, out=of_left[rows])
        of_right.addmm_(rest.T, left[rows])
        of_bias.add_(rest.sum(dim=0))
    return of_left, of_right, of_bias


def _blocks(logs):
    size = min(_ROWS, max(1, SCORES_IN_MEMORY // (logs.shape[1] * logs.element_size())))
    return [slice(start, start + size) for start in range(0, len(logs), size)]


def _truncated_svd(matrix, rank, seed):
    """``matrix ~ left @ right.T`` by its largest singular values (Halko et al. 2011), their roots on either side;
    columns of zeros where ``rank`` is more than the matrix has."""
    most = min(matrix.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        u, s, v = torch.svd_lowrank(matrix, q=min(rank + 10, most), niter=6)
    keep = min(rank, most)
    root = s[:keep].sqrt()
    pad = (0, rank - keep)
    return torch.nn.functional.pad(u[:, :keep] * root, pad), torch.nn.functional.pad(v[:, :keep] * root, pad)
