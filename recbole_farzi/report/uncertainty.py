"""Intervals and tests of every contender on every stratum, from the rows behind the results."""

from typing import NamedTuple, Optional

import numpy as np

from recbole_farzi.errors import DataError
from recbole_farzi.report.resampling import (
    FLIPS,
    bootstrap_means,
    holm,
    interval,
    sample_of_rows,
    sign_flip_p_values,
    unanimous,
    unanimous_draws,
)

__all__ = ["SMALL_STRATUM", "Estimate", "estimate"]

SMALL_STRATUM = 50
"""Strata with fewer rows than this are marked as small and not tested: one row moves a hit ratio there by 2 points or more."""

_SEED = 20210713
_SHARES = {"hit", "recall", "ndcg", "mrr", "map", "precision", "accuracy"}  # of each row from 0, nothing right, to 1


class Estimate(NamedTuple):
    """One contender and metric on one stratum.

    Attributes:
        low, high: 95% interval of the mean over users and seeds.
        ratio_low, ratio_high: of the mean in per cent of the reference's, None for an end that is not finite.
        difference_low, difference_high: of the mean less the reference's.
        p: of equality with the reference, corrected for the number of tests beside it; None where there was no test.
        p_focus: the same of equality with the contender in focus.
        p_alone, p_focus_alone: the same before any correction.
        gap_low, gap_high: of the share of the gap from the undistilled start to the reference that is closed, in per
            cent; None for an end that is not finite, and where there is no start.
    """

    low: Optional[float]
    high: Optional[float]
    ratio_low: Optional[float]
    ratio_high: Optional[float]
    difference_low: Optional[float]
    difference_high: Optional[float]
    p: Optional[float] = None
    p_focus: Optional[float] = None
    p_alone: Optional[float] = None
    p_focus_alone: Optional[float] = None
    gap_low: Optional[float] = None
    gap_high: Optional[float] = None


def estimate(arrays, contenders, row_metrics, kinds, reference, focus, start=None):
    """All estimates.

    What answers one question is one family of tests, corrected together by Holm's method. "On which strata of this kind
    does this contender differ from the reference?" is one, for each contender, kind (users, items, ...) and metric; "which
    contenders differ from the reference on all rows?" is one for each metric; and the same two with the
    contender in focus. Larger families could find nothing at all with the usual three runs: their part is of Student's t
    with two degrees of freedom, of which 0.05 / 150 lies beyond 54 standard errors.

    Args:
        arrays: what ``rows.npz`` holds; see :mod:`recbole_farzi.results`.
        contenders: keys.
        row_metrics: names of the metrics that the arrays have.
        kinds: kind of strata to the number of its strata.
        reference: key of the contender that others are compared with, or None.
        focus: key of the contender that is compared with each other one, or None.
        start: key of the undistilled start, or None.

    Returns:
        dict from ``(kind, stratum, contender, metric)`` to :class:`Estimate`; everything is stratum 0 of kind ``all``.

    Raises:
        DataError: the arrays do not fit the results.
    """
    places = [("all", 0)] + [(kind, number) for kind, count in kinds.items() for number in range(count)]
    numbers = {key: number for number, key in enumerate(contenders)}
    shares = np.array([name.partition("@")[0] in _SHARES for name in row_metrics], dtype=bool)
    out = {}
    tests = {}  # (what with, metric, kind, contender where a family is of one) to {(kind, stratum, contender): p}
    against = [(name, other) for name, other in (("p", reference), ("p_focus", focus)) if other is not None]
    pairs = [
        (name, number, numbers[other]) for name, other in against for number in range(len(contenders)) if number != numbers[other]
    ]
    # Were the smallest p-value that so many flips can give not well below 0.05 / tests, nothing could be found.
    flips = max(FLIPS, 40 * max(len(contenders), *kinds.values(), 1))
    for index, (kind, stratum) in enumerate(places):
        samples, rows = _samples(arrays, contenders, row_metrics, kind, stratum)
        spread = _Spread(samples, shares, _SEED + index, numbers.get(reference), numbers.get(start) if kind == "all" else None)
        for contender in range(len(contenders)):
            for metric in range(len(row_metrics)):
                ends = {name: _finite(value[contender, metric]) for name, value in spread.ends.items()}
                out[kind, stratum, contenders[contender], row_metrics[metric]] = Estimate(**ends)
        if rows < SMALL_STRATUM or not pairs:
            continue
        found = sign_flip_p_values(samples, [pair for _, *pair in pairs], _SEED + index, flips)
        for (name, first, _), values in zip(pairs, found):
            alone = None if kind == "all" else first
            for metric, value in zip(row_metrics, values):
                tests.setdefault((name, metric, kind, alone), {})[kind, stratum, contenders[first]] = float(value)
    for (name, metric, _, _), family in tests.items():
        for (place, value), corrected in zip(family.items(), holm(list(family.values()))):
            p_values = {name: float(corrected), f"{name}_alone": value}
            out[(*place, metric)] = out[(*place, metric)]._replace(**p_values)
    return out


class _Spread:
    """Ends of the intervals on one stratum, by the name of the :class:`Estimate`'s attribute, each of shape [C, M]."""

    def __init__(self, samples, shares, seed, reference, start):
        means = np.stack([sample.means.mean(axis=0) for sample in samples])
        draws = bootstrap_means(samples, seed)
        positive = np.all([(sample.sums >= 0).all(axis=(0, 2)) for sample in samples], axis=0)
        draws = np.where(positive, np.maximum(draws, 0.0), draws)  # no mean of such a metric is below zero
        none = np.stack([unanimous(sample, 0) & shares for sample in samples])
        every = np.stack([unanimous(sample, 1) & shares for sample in samples])
        for contender, metric in zip(*np.nonzero(none | every)):
            unseen = unanimous_draws(len(samples[0].counts), [seed, int(contender), int(metric)])
            draws[:, contender, metric] = unseen if none[contender, metric] else 1 - unseen
        self.ends = dict(zip(("low", "high"), _around(means, *interval(draws))))
        if reference is None:
            absent = np.full_like(means, np.nan)
            self.ends |= dict.fromkeys(("ratio_low", "ratio_high", "difference_low", "difference_high"), absent)
            return
        base = draws[:, [reference]]
        nothing = none[reference] | (base <= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = interval(np.where(nothing, np.inf, 100 * draws / base))
            observed = np.where(means[reference] > 0, 100 * means / means[reference], np.nan)
        self.ends |= dict(zip(("ratio_low", "ratio_high"), _around(observed, *ratios)))
        differences = _around(means - means[reference], *interval(draws - base))
        self.ends |= dict(zip(("difference_low", "difference_high"), differences))
        if start is None:
            return
        direction = np.sign(means[start] - means[reference])
        gap = (draws[:, [start]] - base) * direction
        with np.errstate(divide="ignore", invalid="ignore"):
            closed = 100 * (draws[:, [start]] - draws) * direction / gap
        self.ends["gap_low"] = -interval(np.where(gap > 0, -closed, np.inf))[1]
        self.ends["gap_high"] = interval(np.where(gap > 0, closed, np.inf))[1]


def _around(value, low, high):
    """An interval that holds its value; ends that are not finite stay as they are."""
    return np.where(value < low, value, low), np.where(value > high, value, high)


def _samples(arrays, contenders, row_metrics, kind, stratum):
    try:
        own = f"{kind}/users" in arrays
        space = kind if own else "all"
        users = arrays[f"{space}/users"]
        keep = np.ones(len(users), dtype=bool) if kind == "all" else arrays[f"{kind}/stratum"] == stratum
        values = [arrays[f"{space}/{contender}"][:, :, keep] for contender in contenders]
        if not keep.any() or any(value.shape[1] != len(row_metrics) for value in values):
            raise ValueError("another number of rows or metrics")
        return [sample_of_rows(value, users[keep]) for value in values], int(keep.sum())
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"the rows do not belong to these results ({error}); run the job again") from error


def _finite(value):
    return float(value) if np.isfinite(value) else None
