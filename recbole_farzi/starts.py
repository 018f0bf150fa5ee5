"""Where distillation starts: from a trained teacher's predictions, from co-occurrence, or from random numbers.

The informed starts are contenders in their own right: the report shows them undistilled beside the distilled summary.
"""

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

from recbole_farzi.blockwise import SCORES_IN_MEMORY, rows_in_memory
from recbole_farzi.errors import DataError
from recbole_farzi.factorisation import factorise_within
from recbole_farzi.generation import histories_at_once
from recbole_farzi.sequences import item_shares
from recbole_farzi.summary import Summary

MOST_LOST = 0.01  # nats an event, of what a teacher predicts: a rank that loses no more is enough

__all__ = ["MOST_LOST", "covering_windows", "random_start", "spectral_start", "teacher_start", "pick_windows"]


def pick_windows(sequences, count, length, rng):
    """Real windows of exactly ``length`` events, of different users as far as there are enough.

    Args:
        sequences: :class:`recbole_farzi.sequences.Sequences`.
        count: number of windows.
        length: events in each.
        rng: ``numpy.random.Generator``.

    Returns:
        Item ids, shape [count, length]. A history that is too short is repeated until it is long enough.

    Raises:
        DataError: there is no history at all.
    """
    if len(sequences) == 0:
        raise DataError("no user has a training history, so there is nothing to distil")
    sizes = np.array([len(items) for items in sequences.items])
    enough = np.flatnonzero(sizes >= length)
    short = np.argsort(-sizes, kind="stable")
    users = rng.permutation(enough)[:count] if len(enough) >= count else short[: max(count, 1)]
    users = np.resize(users, count)  # fewer users than windows: take them again
    windows = np.empty((count, length), dtype=np.int64)
    for row, user in zip(windows, users):
        items = sequences.items[user]
        start = int(rng.integers(0, max(len(items) - length, 0) + 1))
        row[:] = np.resize(items[start : start + length], length)
    return torch.from_numpy(windows)


def covering_windows(candidates, counts, count):
    """Of many histories those that together show the largest share of the real events: greedy maximum coverage.

    An item that is read in a chosen history, its last event left out, which is never read as history, counts with its
    occurrences in the real data. Greedy choices reach at least 1 - 1/e of the largest share (Nemhauser, Wolsey and Fisher, "An
    analysis of approximations for maximizing submodular set functions", 1978). Where nothing is left to cover it begins anew.

    Args:
        candidates: item ids, shape [n, xi].
        counts: occurrences of each item in the real data, shape [V].
        count: histories to choose, at most n.

    Returns:
        Item ids, shape [count, xi].
    """
    different = torch.unique(candidates, dim=0)
    candidates = different if len(different) >= count else candidates
    read = candidates[:, : max(candidates.shape[1] - 1, 1)].numpy()
    order = np.argsort(read, axis=1, kind="stable")
    ordered = np.take_along_axis(read, order, axis=1)
    new = np.ones(read.shape, dtype=bool)  # the first time in its history
    np.put_along_axis(new, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    weights = np.asarray(counts, dtype=np.float64).copy()
    weights[0] = 0.0
    free, left, chosen = np.ones(len(read), dtype=bool), weights.copy(), []
    for _ in range(count):
        gains = np.where(free, (left[read] * new).sum(axis=1), -1.0)
        if not gains.max() > 0.0:
            left = weights.copy()
            gains = np.where(free, (left[read] * new).sum(axis=1), -1.0)
        best = int(gains.argmax())
        chosen.append(best)
        free[best] = False
        left[read[best]] = 0.0
    return candidates[chosen]


def random_start(sequences, length, latent_dim, vocabulary, temperature, seed):
    """``Z`` and ``M`` normal, so that logits have variance one; no bias. The paper's start.

    Args:
        sequences: mu, number of synthetic sequences.
        length: xi.
        latent_dim: d.
        vocabulary: V, with padding.
        temperature: tau.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(sequences, length, latent_dim, generator=generator)
    decoder = torch.randn(latent_dim, vocabulary, generator=generator) * temperature / latent_dim**0.5
    decoder[:, 0] = 0.0
    return Summary(latent, decoder, torch.zeros(vocabulary), temperature)


def spectral_start(windows, counts, sequences, latent_dim, temperature, seed, sharpness=6.0):
    """Real windows, each event spread over similar items: ``softmax(k cos(f_i, f_j) + log popularity)``.

    ``f`` are the left singular vectors, scaled by the root of the singular values, of the positive pointwise mutual
    information of items in the same history (Levy and Goldberg, "Neural Word Embedding as Implicit Matrix
    Factorization", NeurIPS 2014).

    Args:
        windows: item ids, shape [mu, xi].
        counts: occurrences of each item in the real data, shape [V].
        sequences: the real histories, :class:`recbole_farzi.sequences.Sequences`.
        latent_dim: d.
        temperature: tau.
        seed: of the randomised decomposition.
        sharpness: k.
    """
    vocabulary = len(counts)
    rows = np.repeat(np.arange(len(sequences)), [len(items) for items in sequences.items])
    columns = np.concatenate(sequences.items)
    incidence = scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(sequences), vocabulary))
    incidence.data[:] = 1.0
    together = (incidence.T @ incidence).tocoo()
    users = np.asarray(incidence.sum(axis=0)).ravel()
    information = np.log(together.data * len(sequences) / (users[together.row] * users[together.col]))
    positive = information > 0
    matrix = scipy.sparse.csr_matrix(
        (information[positive], (together.row[positive], together.col[positive])), shape=(vocabulary, vocabulary)
    )
    keep = min(latent_dim, vocabulary - 1)
    u, s, _ = scipy.sparse.linalg.svds(matrix, k=keep, v0=np.random.default_rng(seed).standard_normal(vocabulary))
    features = np.zeros((vocabulary, latent_dim), dtype=np.float32)
    features[:, :keep] = u * np.sqrt(s)
    features = torch.nn.functional.normalize(torch.from_numpy(features), dim=1)
    latent, bias = sharpness * temperature * features[windows], temperature * _log_popularity(counts)
    return Summary(latent, features.T.contiguous(), bias, temperature)


def teacher_start(windows, teacher, counts, latent_dim, temperature, own_item, seed, batch_size=64, singles=0):
    """Real windows, each event replaced by what a trained teacher expects there, factorised to rank d.

    The logits of an event are the teacher's for the next item after the events before it (log popularity for the
    first), plus ``own_item`` times the similarity ``E E_x`` of all items to the event itself, ``E`` being the teacher's
    item table. ``Z``, ``M`` and the bias are what comes closest to them with rank d
    (:func:`recbole_farzi.factorisation.factorise`); of several ranks the first at which the events lose no more than
    :data:`MOST_LOST`, or the last. With ``singles``, to them and to what the teacher expects after each of
    the most frequent items alone: few windows say little of what items they do not show have in common.

    Args:
        windows: item ids, shape [mu, xi].
        teacher: a trained :class:`recbole_farzi.student.Student`, or what answers as it does (``Ensemble``, ``Interpolated``).
        counts: occurrences of each item in the real data, shape [V].
        latent_dim: d, or several of which one is chosen, ascending.
        temperature: tau.
        own_item: weight of the event itself.
        seed: of the randomised decomposition.
        batch_size: windows that the teacher reads at once, fewer where their scores take too much memory.
        singles: most of those items; ones that never occur are left out.
    """
    vocabulary, (mu, xi) = len(counts), windows.shape
    batch_size = min(batch_size, rows_in_memory(windows, vocabulary, SCORES_IN_MEMORY))
    teacher.eval()
    frequent = np.argsort(-np.asarray(counts)[1:], kind="stable")[:singles] + 1
    items = torch.from_numpy(frequent[np.asarray(counts)[frequent] > 0])  # of others the teacher knows nothing
    logs = torch.empty(mu * xi + len(items), vocabulary - 1)  # written in place: for a large vocabulary it is what takes the memory
    with torch.no_grad():
        for batch, rows in zip(windows.split(batch_size), logs[: mu * xi].view(mu, xi, -1).split(batch_size)):
            batch = batch.to(teacher.device)
            expected = torch.log_softmax(teacher.scores(batch[:, :-1])[..., 1:vocabulary], dim=-1)
            first = _log_popularity(counts)[1:].to(teacher.device).expand(len(batch), 1, -1)
            logits = torch.cat([first, expected], dim=1) + own_item * teacher.similarities(batch)
            rows.copy_(torch.log_softmax(logits.cpu(), dim=-1))
        at_once = histories_at_once(vocabulary)
        for first in range(0, len(items), at_once):
            batch = items[first : first + at_once, None].to(teacher.device)
            scores = teacher.row_scores(batch, torch.ones_like(batch[:, 0]))[:, 1:vocabulary]
            logs[mu * xi :][first : first + at_once] = torch.log_softmax(scores, dim=-1).cpu()
    left, right, bias = factorise_within(logs, np.atleast_1d(latent_dim).tolist(), MOST_LOST, mu * xi, seed)
    pad = torch.nn.functional.pad
    return Summary(
        left[: mu * xi].view(mu, xi, -1).contiguous(),
        temperature * pad(right.T, (1, 0)).contiguous(),
        temperature * pad(bias, (1, 0)),
        temperature,
    )


def _log_popularity(counts):
    """Log of the share of each item, add-one-half smoothed; padding is 0."""
    log = torch.log(item_shares(counts))
    log[0] = 0.0
    return log.float()
