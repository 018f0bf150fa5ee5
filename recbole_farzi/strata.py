"""Groups of evaluated rows, from cold to warm: by the user's training events, by the target's occurrences in training."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Stratum", "by_quantiles", "split_rows"]


@dataclass(frozen=True)
class Stratum:
    """A group of evaluated rows.

    Attributes:
        label: what it holds, for people.
        rows: boolean mask over evaluated rows, shape [n].
    """

    label: str
    rows: np.ndarray


def by_quantiles(values, count, unit):
    """Cut rows into about equally large groups by a number; equal numbers stay together, zero is its own group.

    Args:
        values: a number for each row, shape [n], whole and not negative.
        count: groups wanted; fewer come out where many rows share a number.
        unit: what is counted, for the labels.

    Returns:
        List of :class:`Stratum`, from small numbers to large; together they hold every row once.
    """
    values = np.asarray(values)
    strata = []
    zero = values == 0
    if zero.any():
        strata.append(Stratum(f"0 {unit}", zero))
    rest = np.sort(values[~zero])
    if len(rest) == 0:
        return strata
    tops = sorted({int(rest[min(len(rest) - 1, -(-len(rest) * (i + 1) // count) - 1)]) for i in range(count)})
    below = 0
    for top in tops:
        rows = (values > below) & (values <= top)
        low = int(values[rows].min())
        strata.append(Stratum(f"{low} {unit}" if low == top else f"{low}-{top} {unit}", rows))
        below = top
    return strata


def split_rows(users, targets, training_events, occurrences, count):
    """Strata of users and of items for one set of evaluated rows.

    Args:
        users: user of each row, shape [n].
        targets: held-out item of each row, shape [n].
        training_events: dict of user to number of training events; 0 where absent.
        occurrences: occurrences of each item in training, shape [V].
        count: groups of each kind.

    Returns:
        ``{"users": [Stratum, ...], "items": [Stratum, ...]}``.
    """
    activity = np.array([training_events.get(int(user), 0) for user in users])
    popularity = np.asarray(occurrences)[np.asarray(targets)]
    return {
        "users": by_quantiles(activity, count, "training events"),
        "items": by_quantiles(popularity, count, "occurrences"),
    }
