"""Histories that a trained model writes: what summaries show as histories, and what their students are judged on."""

import numpy as np
import torch

from recbole_farzi.blockwise import SCORES_IN_MEMORY, rows_in_memory
from recbole_farzi.errors import DivergenceError
from recbole_farzi.sequences import Windows

__all__ = ["bytes_at_once", "generate_like", "generate_windows", "histories_at_once"]

_AT_ONCE = 512  # histories
_BYTES_OF_A_PREDICTION = 100  # of an item for a history: 32-bit scores of each teacher and their mean, and a few 64-bit probabilities


def generate_windows(teacher, counts, count, length, repeats, seed, users=None):
    """Histories that a trained model writes: the first event by popularity, each next one drawn from what it predicts.

    Args:
        teacher: a trained :class:`recbole_farzi.student.Student`, or what answers as it does (``Ensemble``, ``Interpolated``).
        counts: occurrences of each item in the real data, shape [V].
        count: number of histories.
        length: events in each.
        repeats: an item may come twice in a history. Without, a new one is taken as long as there are any.
        seed: of the draws.
        users: whose histories they are, for models that read users, shape [count]; None: the average user's.

    Returns:
        Item ids, shape [count, length], on the CPU.

    Raises:
        DivergenceError: the model predicts no item.
    """
    generator = torch.Generator().manual_seed(seed)
    popularity = torch.as_tensor(np.asarray(counts), dtype=torch.float64).clone()
    popularity[0] = 0.0
    at_once = histories_at_once(len(counts))
    teacher.eval()
    out = []
    for first in range(0, count, at_once):
        size = min(at_once, count - first)
        windows = torch.multinomial(popularity, size, replacement=True, generator=generator).unsqueeze(1)
        whose = None if users is None else users[first : first + size].to(teacher.device)
        for _ in range(1, length):
            windows = torch.cat([windows, _next_events(teacher, windows, whose, repeats, generator)], dim=1)
        out.append(windows)
    return torch.cat(out)


def histories_at_once(vocabulary):
    """Of how many histories the next event is predicted at a time, so that it takes 256 MiB at the most."""
    return min(_AT_ONCE, rows_in_memory(torch.empty(0, 1), vocabulary, SCORES_IN_MEMORY, _BYTES_OF_A_PREDICTION))


def bytes_at_once(vocabulary):
    """What that takes."""
    return histories_at_once(vocabulary) * vocabulary * _BYTES_OF_A_PREDICTION


@torch.no_grad()
def _next_events(teacher, windows, users, repeats, generator):
    """A draw from what the teacher predicts after each history, shape [n, 1]."""
    read = windows[:, -teacher.length :].to(teacher.device)
    lengths = torch.full((len(windows),), read.shape[1], device=teacher.device)
    expected = torch.softmax(teacher.row_scores(read, lengths, users)[:, : teacher.vocabulary].double().cpu(), dim=1)
    expected[:, 0] = 0.0
    if not repeats:
        new = expected.scatter(1, windows, 0.0)
        expected = torch.where(new.sum(dim=1, keepdim=True) > 0.0, new, expected)
    if not (expected.sum(dim=1) > 0.0).all():
        raise DivergenceError("the teacher's predictions are not finite, or of padding alone; a smaller learning_rate may help")
    return torch.multinomial(expected, 1, generator=generator)


def generate_like(teacher, sequences, counts, count, seed, tell=None):
    """Windows that a trained model writes, as long as what evaluation asks of random users: a history and the event after it.

    Args:
        teacher: see :func:`generate_windows`.
        sequences: the real histories, :class:`recbole_farzi.sequences.Sequences`.
        counts: occurrences of each item in the real data, shape [V].
        count: number of windows.
        seed: of all draws.
        tell: called with the number of windows that there are so far; None: nobody is told.

    Returns:
        :class:`recbole_farzi.sequences.Windows` on the CPU, in random order.
    """
    rng = np.random.default_rng([seed, 7])
    histories = rng.integers(len(sequences), size=count)
    sizes = np.array([min(len(items), sequences.length) + 1 for items in sequences.items])
    lengths, users = torch.from_numpy(sizes[histories]), torch.from_numpy(sequences.users[histories])
    order = torch.argsort(lengths, descending=True, stable=True)  # together with those of like length
    items, repeats = torch.zeros(count, sequences.length + 1, dtype=torch.long), sequences.repeats
    for chunk in order.split(histories_at_once(len(counts))):
        longest = int(lengths[chunk[0]])
        written = generate_windows(teacher, counts, len(chunk), longest, repeats, int(rng.integers(2**31)), users[chunk])
        items[chunk, :longest] = torch.where(torch.arange(longest) < lengths[chunk, None], written, 0)
        if tell is not None:
            tell(int(items[:, 0].ne(0).sum()))
    return Windows(items, users)
