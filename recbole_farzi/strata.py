"""Groups of evaluated rows, from cold to warm: by the user's training events, by how popular the target is in training.

A row is an evaluated pair of user and held-out item. Every kind of strata is a partition: each row is in exactly one
stratum of each kind.
"""

import re
from dataclasses import dataclass
from typing import Optional

import numpy as np

from recbole_farzi.errors import OptionError

__all__ = ["Stratum", "by_edges", "by_quantiles", "head_and_tail", "read_edges", "split_rows"]

_HEAD = 0.2  # of the items


@dataclass(frozen=True)
class Stratum:
    """A group of evaluated rows.

    Attributes:
        label: what it holds, for people.
        rows: boolean mask over evaluated rows, shape [n].
        unseen: whether it holds what never occurs in training.
        cell: for the cells of a grid, the numbers of the strata of users and of items; else None.
    """

    label: str
    rows: np.ndarray
    unseen: bool = False
    cell: Optional[tuple] = None


def read_edges(value):
    """The edges of strata that a user gives: ``[1, 5, 10, 20]``, with or without ``inf`` at the end, or the same as
    text,
    ``"[1,5,10,20,inf)"``.

    Returns:
        Tuple of whole numbers; ``(1, 5, 10)`` stands for 1-4, 5-9, 10 and more.

    Raises:
        OptionError: they are no whole numbers from 1 on, or do not increase, so that strata would overlap or be empty.
    """
    shown = value
    if isinstance(value, str):
        inside = re.fullmatch(r"[\[(]([\d,\s]*\d)\s*(,\s*inf\s*)?[\])]", value.strip())
        value = [int(edge) for edge in inside.group(1).split(",") if edge.strip()] if inside else None
    if isinstance(value, (list, tuple)) and value and value[-1] in ("inf", float("inf")):
        value = value[:-1]
    if (
        not isinstance(value, (list, tuple))
        or not value
        or any(isinstance(edge, bool) or not isinstance(edge, int) or edge < 1 for edge in value)
    ):
        raise OptionError(f"edges of strata {shown!r} must be whole numbers of at least 1, such as [1,5,10,20]")
    for below, above in zip(value, value[1:]):
        if above <= below:
            what = "empty" if above == below else "overlapping"
            raise OptionError(f"edges of strata {shown!r} make {what} strata: {above} follows {below}; they must increase")
    return tuple(value)


def by_edges(values, edges, unit):
    """Cut rows by a number at edges: below the first, between two, from the last on; zero is its own group.

    Args:
        values: a number for each row, shape [n], whole and not negative.
        edges: as :func:`read_edges` gives them.
        unit: what is counted, for the labels.

    Returns:
        List of :class:`Stratum`, from small numbers to large; together they hold every row once.

    Raises:
        OptionError: no row lies between two of the edges, or from the last on.
    """
    values = np.asarray(values)
    strata = _zero(values, unit)
    known = values[values > 0]
    for low, high in zip((1, *edges), (*edges, None)):
        if low == high:
            continue  # the first edge is 1: nothing lies below it
        rows = (values >= low) & (values > 0)
        label = f"{low} and more {unit}"
        if high is not None:
            rows &= values < high
            label = f"{low} {unit}" if low == high - 1 else f"{low}-{high - 1} {unit}"
        if rows.any():
            strata.append(Stratum(label, rows))
        elif high != edges[0]:
            span = f"these have {known.min()} to {known.max()}" if len(known) else "none has any"
            raise OptionError(f"the stratum '{label}' is empty: no test row lies in it ({span}); choose other edges")
    return strata


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
    strata = _zero(values, unit)
    rest = np.sort(values[values > 0])
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


def head_and_tail(targets, occurrences):
    """The short head and the long tail of the catalogue: the most popular fifth of the items, and the rest.

    The 80/20 rule, as in the literature on long-tail recommendation (Park and Tuzhilin, "The Long Tail of Recommender
    Systems and How to Leverage It", RecSys 2008; Abdollahpouri et al., "Controlling Popularity Bias in Learning-to-Rank
    Recommendation", RecSys 2017). Items of equal popularity stay together, in the tail.

    Args:
        targets: held-out item of each row, shape [n].
        occurrences: occurrences of each item in training, shape [V]; item 0 is padding.

    Returns:
        List of :class:`Stratum`: the never seen, the tail, the head, those that have rows.
    """
    occurrences = np.asarray(occurrences)
    seen = np.sort(occurrences[1:][occurrences[1:] > 0])[::-1]
    popularity = occurrences[np.asarray(targets)]
    strata = _zero(popularity, "occurrences")
    if len(seen) == 0:
        return strata
    first_outside = min(int(len(seen) * _HEAD), len(seen) - 1)
    border = int(seen[first_outside])  # of the most popular item that is not in the first fifth
    for name, rows, items in (
        ("long tail", (popularity > 0) & (popularity <= border), seen[seen <= border]),
        ("head", popularity > border, seen[seen > border]),
    ):
        if rows.any():
            shares = f"{100 * len(items) / len(seen):.0f}% of items, {100 * items.sum() / seen.sum():.0f}% of events"
            strata.append(Stratum(f"{name} ({shares})", rows))
    return strata


def split_rows(users, targets, training_events, occurrences, user_strata, item_strata):
    """All kinds of strata of one set of evaluated rows.

    Args:
        users: user of each row, shape [n].
        targets: held-out item of each row, shape [n].
        training_events: dict of user to number of training events; 0 where absent.
        occurrences: occurrences of each item in training, shape [V].
        user_strata, item_strata: a number of quantiles, or edges.

    Returns:
        ``{"users": [Stratum, ...], "items": [...], "tail": [...], "grid": [...]}``; the grid crosses users and items,
        its cells without rows are left out.

    Raises:
        OptionError: a stratum between edges is empty.
    """
    activity = np.array([training_events.get(int(user), 0) for user in users], dtype=np.int64)
    popularity = np.asarray(occurrences)[np.asarray(targets)]
    of_users = _cut(activity, user_strata, "training events")
    of_items = _cut(popularity, item_strata, "occurrences")
    grid = [
        Stratum(f"{user.label}, {item.label}", user.rows & item.rows, user.unseen or item.unseen, (row, column))
        for row, user in enumerate(of_users)
        for column, item in enumerate(of_items)
        if (user.rows & item.rows).any()
    ]
    return {"users": of_users, "items": of_items, "tail": head_and_tail(targets, occurrences), "grid": grid}


def _cut(values, how, unit):
    return by_quantiles(values, how, unit) if isinstance(how, int) else by_edges(values, how, unit)


def _zero(values, unit):
    zero = values == 0
    return [Stratum(f"0 {unit}", zero, unseen=True)] if zero.any() else []
