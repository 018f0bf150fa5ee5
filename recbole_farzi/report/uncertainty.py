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
)

__all__ = ["SMALL_STRATUM", "Estimate", "estimate"]

SMALL_STRATUM = 50
"""Strata with fewer rows than this are marked as small and not tested: one row moves a hit ratio there by 2 points or more."""

_SEED = 20210713


class Estimate(NamedTuple):
    """One contender and metric on one stratum.

    Attributes:
        low, high: 95% interval of the mean over users and seeds.
        ratio_low, ratio_high: of the mean in per cent of the reference's, None for an end that is not finite.
        difference_low, difference_high: of the mean less the reference's.
        p: of equality with the reference, corrected for the number of tests beside it; None where there was no test.
        p_focus: the same of equality with the contender in focus.
    """

    low: float
    high: float
    ratio_low: Optional[float]
    ratio_high: Optional[float]
    difference_low: float
    difference_high: float
    p: Optional[float]
    p_focus: Optional[float]


def estimate(arrays, contenders, row_metrics, kinds, reference, focus):
    """All estimates.

    What a reader looks through for a metric is one family of tests, corrected together by Holm's method: every contender
    on every stratum of every kind, against the reference; every contender on all rows, against the reference; and the
    same two against the contender in focus. The metrics are not counted: they say nearly the same of the same rankings.

    Args:
        arrays: what ``rows.npz`` holds; see :mod:`recbole_farzi.results`.
        contenders: keys.
        row_metrics: names of the metrics that the arrays have.
        kinds: kind of strata to the number of its strata.
        reference: key of the contender that others are compared with, or None.
        focus: key of the contender that is compared with each other one, or None.

    Returns:
        dict from ``(kind, stratum, contender, metric)`` to :class:`Estimate`; everything is stratum 0 of kind ``all``.

    Raises:
        DataError: the arrays do not fit the results.
    """
    places = [("all", 0)] + [(kind, number) for kind, count in kinds.items() for number in range(count)]
    numbers = {key: number for number, key in enumerate(contenders)}
    out = {}
    tests = {}  # (what with, metric, whether of strata) to {(kind, stratum, contender): p}
    against = [(name, other) for name, other in (("p", reference), ("p_focus", focus)) if other is not None]
    pairs = [
        (name, number, numbers[other]) for name, other in against for number in range(len(contenders)) if number != numbers[other]
    ]
    # Were the smallest p-value that so many flips can give not well below 0.05 / tests, nothing could be found.
    flips = max(FLIPS, 40 * (len(contenders) - 1) * (len(places) - 1))
    for index, (kind, stratum) in enumerate(places):
        samples, rows = _samples(arrays, contenders, row_metrics, kind, stratum)
        draws = bootstrap_means(samples, _SEED + index)
        positive = np.all([(sample.sums >= 0).all(axis=(0, 2)) for sample in samples], axis=0)
        draws = np.where(positive, np.maximum(draws, 0.0), draws)  # no mean of such a metric is below zero
        low, high = interval(draws)
        base = draws[:, [numbers[reference]]] if reference is not None else np.full_like(draws[:, :1], np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_low, ratio_high = interval(np.where(base > 0, 100 * draws / base, np.inf))
        difference_low, difference_high = interval(draws - base)
        for contender in range(len(contenders)):
            for metric in range(len(row_metrics)):
                at = contender, metric
                out[kind, stratum, contenders[contender], row_metrics[metric]] = Estimate(
                    float(low[at]), float(high[at]), _finite(ratio_low[at]), _finite(ratio_high[at]),
                    float(difference_low[at]), float(difference_high[at]), None, None,
                )  # fmt: skip
        if rows < SMALL_STRATUM or not pairs:
            continue
        found = sign_flip_p_values(samples, [pair for _, *pair in pairs], _SEED + index, flips)
        for (name, first, _), values in zip(pairs, found):
            for metric, value in zip(row_metrics, values):
                tests.setdefault((name, metric, kind != "all"), {})[kind, stratum, contenders[first]] = value
    for (name, metric, _), family in tests.items():
        for place, value in zip(family, holm(list(family.values()))):
            out[(*place, metric)] = out[(*place, metric)]._replace(**{name: float(value)})
    return out


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
