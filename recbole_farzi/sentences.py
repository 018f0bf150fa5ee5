"""Histories that are read whole, from their first event on: sentences, evaluated at every position."""

import numpy as np
import torch

from recbole_farzi.sequences import Sequences

__all__ = ["Sentences", "following"]


class Sentences(Sequences):
    """Whole histories in place of windows. Every first event is given, not predicted, and does not count as an event.

    Evaluation reads each sentence from its beginning, so training does: a batch holds whole sentences of about the same
    length, padded only to the longest of them.

    Args:
        histories: list of (user, items).
        length: longest input that the model reads; a history has at most one event more.
    """

    given = 1

    @property
    def events(self):
        """Number of predicted events (tokens) in all histories."""
        return sum(len(items) - 1 for items in self.items)

    def counts(self, vocabulary):
        """How often each item is predicted, shape [vocabulary]."""
        targets = [items[1:] for items in self.items]
        return np.bincount(np.concatenate(targets), minlength=vocabulary) if targets else np.zeros(vocabulary)

    def batches(self, batch_size, rng):
        """One epoch's batches in random order, each of sentences of like length; sentences of equal length are mixed."""
        order = rng.permutation(len(self.items))
        order = order[np.argsort([len(self.items[i]) for i in order], kind="stable")]
        chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        return [self._padded(chunks[i]) for i in rng.permutation(len(chunks))]

    def sample(self, count, rng):
        """Random sentences, whole.

        Args:
            count: number of sentences.
            rng: ``numpy.random.Generator``.

        Returns:
            Shape [count, n], n that of the longest, padded with 0 on the right.
        """
        return self._padded(rng.integers(len(self.items), size=count))

    def running(self):
        """The text as one history: sentence after sentence, the end of one being the given event of the next."""
        text = [self.items[0][:1]]
        for items in self.items:
            text.append(items[1:] if items[0] == text[-1][-1] else items)
        return Sequences([(int(self.users[0]), np.concatenate(text))], self.length)

    def _padded(self, chosen):
        rows = [self.items[i] for i in chosen]
        out = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        for row, items in zip(out, rows):
            row[: len(items)] = items
        return torch.from_numpy(out)


def following(histories, targets):
    """What follows each event of a history: the events after it, and the target last.

    Args:
        histories: ids, shape [B, n], padded with 0 on the right, at least one event each.
        targets: ids, shape [B].

    Returns:
        Shape [B, n], 0 where ``histories`` is padding.
    """
    lengths = histories.ne(0).sum(dim=1, keepdim=True)
    after = torch.nn.functional.pad(histories[:, 1:], (0, 1))
    return after.scatter(1, lengths - 1, targets.unsqueeze(1))
