"""Statistics against numbers worked out by hand, and refusals."""

import copy
import math

import pytest

from recbole_farzi.errors import DataError
from recbole_farzi.report.aggregate import Statistic, aggregate, gap_closed, per_cent, separation, statistic

from .invented import invented


def small_results(**changes):
    """Two seeds of full data and of the summary, one of the start, with one stratum of each kind."""

    def contender(key, hits, entropies, cold):
        runs = [
            {"seed": k, "seconds": 10.0 * (k + 1), "metrics": {"hit@10": hit, "crossentropy": entropy},
             "strata": {"users": [{"hit@10": one, "crossentropy": 1.0}, None]}}
            for k, (hit, entropy, one) in enumerate(zip(hits, entropies, cold))
        ]  # fmt: skip
        return {"key": key, "label": key, "events": 25 if key == "summary" else 1000, "bytes": 4000, "runs": runs}

    return {
        "format": 2,
        "metrics": ["hit@10", "crossentropy"],
        "smaller_is_better": ["crossentropy"],
        "data": {"training_events": 1000},
        "strata": {"users": [{"label": "cold", "rows": 49}, {"label": "none", "rows": 0}]},
        "contenders": [
            contender("full", (0.10, 0.30), (6.0, 6.2), (0.2, 0.2)),
            contender("summary", (0.12, 0.18), (6.2, 6.4), (0.1, 0.3)),
            contender("start", (0.1,), (6.5,), (0.0,)),
        ],
        **changes,
    }


def test_mean_and_sample_standard_deviation():
    found = statistic([2.0, 4.0, 9.0])
    assert found.mean == pytest.approx(5.0)
    assert found.sd == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert found.n == 3


def test_one_number_has_no_spread_and_none_has_no_mean():
    assert statistic([3]) == Statistic(3.0, None, 1)
    assert statistic([]) == Statistic(None, None, 0)


def test_missing_and_infinite_numbers_are_left_out():
    assert statistic([1.0, None, math.nan, math.inf, 3.0]) == Statistic(2.0, pytest.approx(math.sqrt(2)), 2)


def test_per_cent_is_undefined_without_a_positive_whole():
    assert per_cent(1.0, 4.0) == 25.0
    assert per_cent(1.0, 0.0) is None
    assert per_cent(None, 4.0) is None


@pytest.mark.parametrize(
    "value, start, full, smaller, expected",
    [
        (6.2, 6.5, 6.1, True, 75.0),
        (6.6, 6.5, 6.1, True, -25.0),
        (6.0, 6.5, 6.1, True, 125.0),
        (0.3, 0.2, 0.4, False, 50.0),
        (6.2, 6.0, 6.1, True, None),
        (6.2, 6.1, 6.1, True, None),
        (0.3, 0.4, 0.2, False, None),
        (6.2, None, 6.1, True, None),
    ],
)
def test_share_of_the_gap(value, start, full, smaller, expected):
    assert gap_closed(value, start, full, smaller) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ((1.0, 0.1), (0.5, 0.1), 1),
        ((0.5, 0.1), (1.0, 0.1), -1),
        ((1.0, 0.3), (0.5, 0.3), 0),
        ((1.0, 0.1), (0.5, None), 1),
        ((1.0, None), (0.5, None), None),
        ((None, None), (0.5, 0.1), None),
    ],
)
def test_separation_needs_more_than_both_spreads(first, second, expected):
    assert separation(Statistic(*first, 3), Statistic(*second, 3)) == expected


def test_summary_against_full_data():
    report = aggregate(small_results())
    summary = report.find("summary")
    assert report.value(summary, "hit@10").mean == pytest.approx(0.15)
    assert report.relative(summary, "hit@10") == pytest.approx(75.0)
    assert report.relative(summary, "crossentropy") == pytest.approx(0.2)
    assert report.gap_closed(summary, "crossentropy") == pytest.approx(50.0)
    assert report.share_of_events(summary) == pytest.approx(2.5)
    assert summary.seconds.mean == pytest.approx(15.0)


def test_strata():
    report = aggregate(small_results())
    summary = report.find("summary")
    assert report.value(summary, "hit@10", "users", 0).mean == pytest.approx(0.2)
    assert report.value(summary, "hit@10", "users", 0).sd == pytest.approx(math.sqrt(0.02))
    assert report.relative(summary, "hit@10", "users", 0) == pytest.approx(100.0)
    assert report.value(summary, "hit@10", "users", 1) == Statistic(None, None, 0)
    assert report.relative(summary, "hit@10", "users", 1) is None


def test_strata_are_small_below_fifty_rows():
    strata = aggregate(small_results(strata={"users": [{"label": "a", "rows": 49}, {"label": "b", "rows": 50}]})).strata
    assert [stratum.small for stratum in strata["users"]] == [True, False]


def test_without_full_data_nothing_is_relative():
    report = aggregate(invented(keys=("summary", "random")))
    assert report.relative(report.find("summary"), "hit@10") is None
    assert report.relative(report.find("summary"), "crossentropy") is None
    assert report.gap_closed(report.find("summary"), "crossentropy") is None


@pytest.mark.parametrize("results", [{**invented(), "format": 1}, {}, [], None])
def test_other_formats_are_refused_in_one_line(results):
    with pytest.raises(DataError, match="reads format 2") as caught:
        aggregate(results)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda results: results.pop("contenders"),
        lambda results: results.pop("metrics"),
        lambda results: results["contenders"][0].pop("runs"),
        lambda results: results["contenders"][0]["runs"][0].pop("metrics"),
        lambda results: results["contenders"][0]["runs"][0]["strata"]["users"].pop(),
        lambda results: results["contenders"].append(None),
    ],
)
def test_damaged_results_are_refused(damage):
    results = copy.deepcopy(invented())
    damage(results)
    with pytest.raises(DataError, match="damaged or incomplete"):
        aggregate(results)
