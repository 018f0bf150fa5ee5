"""Users' histories as windows of events: what causal models train on, all positions at once."""

from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Sequences", "Windows", "batch_order", "histories_from_prefixes", "item_shares"]


@dataclass(frozen=True)
class Windows:
    """Windows of histories, with the users whose they are.

    Attributes:
        items: ids, shape [n, length], padded with 0 on the right.
        users: shape [n].
    """

    items: torch.Tensor
    users: torch.Tensor

    def __len__(self):
        return len(self.items)

    def to(self, device):
        return Windows(self.items.to(device), self.users.to(device))

    def at(self, rows):
        return Windows(self.items[rows], self.users[rows])

    def joined(self, other):
        return Windows(torch.cat([self.items, other.items]), torch.cat([self.users, other.users]))

    def split(self, size):
        return [Windows(items, users) for items, users in zip(self.items.split(size), self.users.split(size))]


def item_shares(counts):
    """Share of each item in the training data, add-one-half smoothed: 64-bit floats of shape [V], 0 for the padding.

    Args:
        counts: occurrences of each item, shape [V].
    """
    weights = torch.as_tensor(np.asarray(counts), dtype=torch.float64) + 0.5
    weights[0] = 0.0
    return weights / weights.sum()


def histories_from_prefixes(users, prefixes, lengths, targets):
    """Put RecBole's prefix rows ``history -> next item`` back together into histories, each event once.

    A row continues the one before it if it is the same user's and its history is the earlier row's history and target
    (cut to the maximum length).

    Args:
        users: user of each row, shape [n].
        prefixes: history of each row, shape [n, max], padded with 0 on the right.
        lengths: shape [n].
        targets: next item of each row, shape [n].

    Returns:
        List of (user, items) with items a 1-d integer array, in the order of the rows.
    """
    if len(users) == 0:
        return []
    maximum = prefixes.shape[1]
    last = prefixes[np.arange(len(users)), lengths - 1]
    continues = np.zeros(len(users), dtype=bool)
    continues[1:] = (
        (users[1:] == users[:-1])
        & (last[1:] == targets[:-1])
        & (lengths[1:] == np.minimum(lengths[:-1] + 1, maximum))
    )
    starts = np.flatnonzero(~continues)
    ends = np.append(starts[1:], len(users))
    return [
        (int(users[a]), np.concatenate([prefixes[a, : lengths[a]], targets[a:b]])) for a, b in zip(starts, ends)
    ]


class Sequences:
    """Histories of any length, cut into windows of ``length + 1`` events (``length`` inputs, each with its target).

    Args:
        histories: list of (user, items).
        length: longest input that the model reads (RecBole's ``MAX_ITEM_LIST_LENGTH``).

    Every event but a history's first is a target exactly once an epoch. Windows start at offsets that change from
    epoch to epoch, so that each event is seen at many positions: position embeddings are absolute, and evaluation reads
    the last ``length`` events of every user.

    Attributes:
        given: events at the beginning of each history that do not count as data: none here.
    """

    given = 0

    def __init__(self, histories, length):
        self.users = np.array([user for user, _ in histories], dtype=np.int64)
        self.items = [np.asarray(items, dtype=np.int64) for _, items in histories]
        self.length = int(length)
        self._targets = np.cumsum([max(len(items) - 1, 0) for items in self.items])

    def __len__(self):
        return len(self.items)

    @property
    def events(self):
        """Number of events in all histories."""
        return sum(len(items) for items in self.items)

    def counts(self, vocabulary):
        """Number of times that each item occurs, shape [vocabulary]."""
        return np.bincount(np.concatenate(self.items), minlength=vocabulary) if self.items else np.zeros(vocabulary)

    def windows(self, rng):
        """One epoch's :class:`Windows` of ``length + 1`` events in random order.

        Args:
            rng: ``numpy.random.Generator`` that draws the offsets and the order.
        """
        step, rows = self.length, []
        for user, items in zip(self.users, self.items):
            if len(items) <= step + 1:
                rows.append((user, items))
                continue
            first = int(rng.integers(1, step + 1))  # targets of the first, shorter window
            rows.append((user, items[: first + 1]))
            rows.extend((user, items[start : start + step + 1]) for start in range(first, len(items) - 1, step))
        rows = [(user, row) for user, row in rows if len(row) > 1]
        order = rng.permutation(len(rows))
        out, users = np.zeros((len(rows), step + 1), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
        for i, j in enumerate(order):
            users[i], row = rows[j]
            out[i, : len(row)] = row
        return Windows(torch.from_numpy(out), torch.from_numpy(users))

    def rows(self, rng):
        """One epoch's :class:`Windows` that each end at their only target, for models that must read every prefix.

        Args:
            rng: ``numpy.random.Generator`` that draws the order.
        """
        histories = np.repeat(np.arange(len(self)), [max(len(items) - 1, 0) for items in self.items])
        ends = np.concatenate([np.arange(2, len(items) + 1) for items in self.items])
        order = rng.permutation(len(ends))
        out = np.zeros((len(ends), self.length + 1), dtype=np.int64)
        for row, (history, end) in zip(out, zip(histories[order], ends[order])):
            window = self.items[history][max(0, end - self.length - 1) : end]
            row[: len(window)] = window
        return Windows(torch.from_numpy(out), torch.from_numpy(self.users[histories[order]]))

    def batches(self, batch_size, rng):
        """One epoch's windows in batches."""
        return list(self.windows(rng).split(batch_size))

    @property
    def repeats(self):
        """Whether any history holds an item twice."""
        return any(len(np.unique(items)) < len(items) for items in self.items)

    def running(self):
        """Where long windows are cut from: the histories themselves."""
        return self

    def sample(self, count, rng):
        """Windows that end at random events: histories in proportion to their targets, ends uniformly.

        Args:
            count: number of windows.
            rng: ``numpy.random.Generator``.

        Returns:
            :class:`Windows` of ``length + 1`` events.
        """
        histories = np.searchsorted(self._targets, rng.integers(0, self._targets[-1], size=count), side="right")
        out = np.zeros((count, self.length + 1), dtype=np.int64)
        for row, history in zip(out, histories):
            items = self.items[history]
            end = int(rng.integers(2, len(items) + 1))
            window = items[max(0, end - self.length - 1) : end]
            row[: len(window)] = window
        return Windows(torch.from_numpy(out), torch.from_numpy(self.users[histories]))


def batch_order(sequences, batch_size, steps, seed):
    """Which synthetic sequences each inner step reads: permutation after permutation, cut into batches.

    Args:
        sequences: mu.
        batch_size: at most mu.
        steps: T.
        seed: of the permutations.

    Returns:
        List of T vectors of row numbers, each of at most ``batch_size``.
    """
    generator = torch.Generator().manual_seed(seed)
    order = []
    while len(order) < steps:
        order.extend(torch.randperm(sequences, generator=generator).split(batch_size))
    return order[:steps]
