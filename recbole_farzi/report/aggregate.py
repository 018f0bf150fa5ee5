"""Statistics of the contenders over users and seeds, and how each compares with the reference, full data as a rule."""

import math
import statistics
from dataclasses import dataclass
from typing import NamedTuple, Optional

from recbole_farzi.errors import DataError
from recbole_farzi.report.uncertainty import SMALL_STRATUM, estimate

__all__ = [
    "FORMAT",
    "SMALL_STRATUM",
    "Aggregate",
    "Contender",
    "Statistic",
    "Stratum",
    "aggregate",
    "gap_closed",
    "per_cent",
    "separation",
    "statistic",
]

FORMAT = 2
"""The format of results that is understood here."""


class Statistic(NamedTuple):
    """Mean and sample standard deviation (divisor n - 1) of ``n`` numbers; each is None where undefined.

    ``low`` and ``high`` are the 95% interval of the mean over users and seeds, where the rows are known.
    """

    mean: Optional[float]
    sd: Optional[float]
    n: int
    low: Optional[float] = None
    high: Optional[float] = None


class Stratum(NamedTuple):
    """A group of evaluated rows: pairs of a user and a held-out item.

    ``users``: how many users' they are; None where nobody counted. ``unseen``: of what never occurs in training.
    ``cell``: in a grid, the numbers of the strata of users and of items.
    """

    label: str
    rows: Optional[int]
    unseen: bool = False
    cell: Optional[tuple] = None
    users: Optional[int] = None

    @property
    def small(self):
        """Whether there are too few rows for a statement."""
        return self.rows is not None and self.rows < SMALL_STRATUM


class Contender(NamedTuple):
    """One way of training, over its seeds.

    ``metrics`` maps a metric to its :class:`Statistic`; ``strata`` maps ``users`` and ``items`` to a list of such
    maps, one for each stratum. ``events`` and ``bytes`` measure what it was trained on, or are None.
    """

    key: str
    label: str
    note: str
    events: Optional[int]
    bytes: Optional[int]
    runs: int
    seconds: Statistic
    metrics: dict
    strata: dict


@dataclass(frozen=True)
class Aggregate:
    """What the tables, figures and sentences are made from."""

    results: dict
    metrics: tuple
    extra_metrics: tuple
    smaller_is_better: frozenset
    contenders: tuple
    strata: dict
    grid: tuple
    estimates: dict

    @property
    def reference(self):
        """The contender that the others are compared with: full data, or the one that the results name; or None."""
        return self.find(self.results.get("reference") or "full")

    @property
    def focus(self):
        """The contender that the report is about: the summary, or the one that the results name; or None."""
        return self.find(self.results.get("focus") or "summary")

    @property
    def test_users(self):
        """How many users are evaluated, or None: each is in one stratum of users."""
        counts = [stratum.users for stratum in self.strata.get("users", ())]
        return sum(counts) if counts and None not in counts else None

    def estimate(self, contender, metric, kind=None, stratum=None):
        """The :class:`recbole_farzi.report.uncertainty.Estimate`, or None where the rows are not known."""
        at = ("all", 0) if kind is None else (kind, stratum)
        return None if contender is None else self.estimates.get((*at, contender.key, metric))

    def against_reference(self, contender, metric, kind=None, stratum=None):
        """``better``, ``worse`` or ``level`` with the reference by the paired test at 0.05; None where there was none."""
        return self._verdict(contender, self.reference, metric, kind, stratum, "p")

    def focus_against(self, contender, metric, kind=None, stratum=None):
        """The same of the contender in focus against another."""
        return self._verdict(self.focus, contender, metric, kind, stratum, "p_focus")

    def _verdict(self, first, second, metric, kind, stratum, test):
        found = self.estimate(first if test == "p" else second, metric, kind, stratum)
        p = None if found is None else getattr(found, test)
        if p is None:
            return None
        own, other = (self.value(one, metric, kind, stratum).mean for one in (first, second))
        if p >= 0.05 or own == other:
            return "level"
        return "better" if (own > other) != (metric in self.smaller_is_better) else "worse"

    def find(self, key):
        """The contender of that key, or None."""
        return next((contender for contender in self.contenders if contender.key == key), None)

    def part(self, name):
        """A part of the results that may be absent: then an empty dict."""
        return self.results.get(name) or {}

    def value(self, contender, metric, kind=None, stratum=None):
        """The :class:`Statistic` of a contender on all rows, or on one stratum of a kind; it may be of no numbers."""
        found = None
        if contender is not None:
            found = (contender.metrics if kind is None else contender.strata[kind][stratum]).get(metric)
        found = found or Statistic(None, None, 0)
        about = self.estimate(contender, metric, kind, stratum)
        return found if about is None or found.mean is None else found._replace(low=about.low, high=about.high)

    def relative(self, contender, metric, kind=None, stratum=None):
        """A contender against the reference, on all rows or on one stratum.

        Returns:
            Per cent of the reference (:func:`per_cent`) for a metric of which more is better. For one of which less is
            better, the difference of the means, contender - reference, in the metric's unit (nats for cross-entropy):
            a ratio of cross-entropies says little, since uninformed guessing does not stand at any fixed multiple.
            None where either is missing.
        """
        own = self.value(contender, metric, kind, stratum).mean
        full = self.value(self.reference, metric, kind, stratum).mean
        if metric in self.smaller_is_better:
            return None if own is None or full is None else own - full
        return per_cent(own, full)

    def relative_interval(self, contender, metric, kind=None, stratum=None):
        """95% interval of :meth:`relative`: ``(low, high)``, an end None where it is unbounded; None where unknown."""
        found = self.estimate(contender, metric, kind, stratum)
        if found is None or self.reference is None or contender.key == self.reference.key:
            return None
        if metric in self.smaller_is_better:
            return found.difference_low, found.difference_high
        return found.ratio_low, found.ratio_high

    def gap_closed(self, contender, metric):
        """:func:`gap_closed` on all rows, between the contenders ``start`` and ``full``."""
        start, full = (self.value(one, metric).mean for one in (self.find("start"), self.reference))
        return gap_closed(self.value(contender, metric).mean, start, full, metric in self.smaller_is_better)

    def gap_closed_interval(self, contender, metric):
        """95% interval of :meth:`gap_closed`: ``(low, high)``, an end None where it is unbounded; None where unknown."""
        found = self.estimate(contender, metric)
        return None if found is None or self.find("start") is None else (found.gap_low, found.gap_high)

    def share_of_events(self, contender):
        """Per cent of the real training events, or None."""
        return per_cent(contender.events, self.part("data").get("training_events"))


def statistic(values):
    """Mean and sample standard deviation of the finite numbers among ``values``.

    ``mean = sum x / n``, ``sd = sqrt(sum (x - mean)^2 / (n - 1))``; no sd for one number, neither for none.
    """
    numbers = [float(value) for value in values if _finite(value)]
    if not numbers:
        return Statistic(None, None, 0)
    sd = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Statistic(statistics.fmean(numbers), sd, len(numbers))


def per_cent(value, whole):
    """``100 value / whole``; None where either is missing or ``whole`` is not positive."""
    if value is None or whole is None or whole <= 0:
        return None
    return 100.0 * value / whole


def gap_closed(value, start, full, smaller_is_better):
    """Share of the gap between the undistilled start and full data that a contender closes, in per cent.

    ``100 (start - value) / (start - full)`` where less is better, ``100 (value - start) / (full - start)`` where more
    is: 0 for the start, 100 for full data, negative for what is worse than the start.

    Returns:
        The share, or None where one of the three is missing or the start is as good as full data or better, which
        leaves no gap.
    """
    if value is None or start is None or full is None:
        return None
    sign = 1.0 if smaller_is_better else -1.0
    gap = sign * (start - full)
    return None if gap <= 0 else 100.0 * sign * (start - value) / gap


def separation(first, second):
    """Compare two means with their spread over seeds.

    Returns:
        1 or -1 where the mean of ``first`` is above or below that of ``second`` by more than the two standard
        deviations together (one that is unknown counts as 0), 0 where it is not; None where a mean is missing or no
        standard deviation is known. A description, not a test: it says nothing of the choice of test users.
    """
    if first.mean is None or second.mean is None or (first.sd is None and second.sd is None):
        return None
    difference = first.mean - second.mean
    if abs(difference) <= (first.sd or 0.0) + (second.sd or 0.0):
        return 0
    return 1 if difference > 0 else -1


def aggregate(results, rows=None):
    """Check the results and compute the statistics.

    Args:
        results: dict with ``format`` (2), ``metrics`` (names) and ``contenders`` (each ``key``, ``label`` and ``runs``,
            a list of ``{"seed", "seconds", "metrics", "strata"}``). Optional are ``smaller_is_better``, ``strata``,
            ``dataset``, ``model``, ``seed``, ``date``, ``command``, ``environment``, ``data``, ``summary``,
            ``options``, ``valid_metric``, ``pool``, ``distillation``, ``extra_metrics``, ``reference`` and ``focus``: what
            is absent is left out of the report.
        rows: the arrays behind the results (:mod:`recbole_farzi.results`), or None: then there are no intervals or
            tests.

    Raises:
        DataError: another format, or a part that is needed is missing or malformed.
    """
    if not isinstance(results, dict) or results.get("format") != FORMAT:
        found = results.get("format") if isinstance(results, dict) else type(results).__name__
        raise DataError(
            f"these results have format {found!r} and this version reads format {FORMAT}; run the job again, or use "
            "the version of recbole-farzi that wrote them"
        )
    try:
        metrics = tuple(results["metrics"])
        strata = {
            kind: tuple(_stratum(stratum) for stratum in group) for kind, group in (results.get("strata") or {}).items()
        }
        contenders = tuple(_contender(contender, metrics, strata) for contender in results["contenders"])
        grid = strata.pop("grid", ())
        if any(stratum.cell is None for stratum in grid):
            raise KeyError("cell")
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"these results are damaged or incomplete ({type(error).__name__}: {error})") from error
    keys = [contender.key for contender in contenders]
    known = [key if key in keys else None for key in (results.get("reference") or "full", results.get("focus") or "summary")]
    start = "start" if "start" in keys else None
    kinds = {kind: len(group) for kind, group in {**strata, "grid": grid}.items()}
    return Aggregate(
        results=results,
        grid=grid,
        estimates={} if rows is None else estimate(rows, keys, results.get("row_metrics") or [], kinds, *known, start),
        metrics=metrics,
        extra_metrics=tuple(results.get("extra_metrics") or ()),
        smaller_is_better=frozenset(results.get("smaller_is_better") or ()),
        contenders=contenders,
        strata=strata,
    )


def _stratum(stratum):
    cell = stratum.get("cell")
    rows = stratum.get("rows")
    cell = None if cell is None else tuple(cell)
    return Stratum(str(stratum["label"]), rows, bool(stratum.get("unseen")), cell, stratum.get("users"))


def _contender(contender, metrics, strata):
    runs = contender["runs"]
    return Contender(
        key=str(contender["key"]),
        label=str(contender["label"]),
        note=str(contender.get("note") or ""),
        events=contender.get("events"),
        bytes=contender.get("bytes"),
        runs=len(runs),
        seconds=statistic(run.get("seconds") for run in runs),
        metrics={metric: statistic(run["metrics"].get(metric) for run in runs) for metric in metrics},
        strata={
            kind: [
                {metric: statistic(_stratum_value(run, kind, number, metric) for run in runs) for metric in metrics}
                for number in range(len(group))
            ]
            for kind, group in strata.items()
        },
    )


def _stratum_value(run, kind, number, metric):
    """A run's value on a stratum; None where the run has no strata, or the stratum no rows."""
    group = (run.get("strata") or {}).get(kind)
    return None if not group or group[number] is None else group[number].get(metric)


def _finite(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
