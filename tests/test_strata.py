"""Groups from cold to warm: every row once, equal numbers together, nothing together with zero."""

import numpy as np
import pytest

from recbole_farzi.strata import by_quantiles, split_rows


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("high", [0, 1, 3, 50, 10_000])
@pytest.mark.parametrize("rows", [1, 2, 10, 301])
def test_every_row_is_in_one_stratum_and_they_go_up(rows, high, count):
    values = np.random.default_rng([rows, high, count]).integers(0, high + 1, size=rows)
    strata = by_quantiles(values, count, "events")
    assert (np.sum([s.rows for s in strata], axis=0) == 1).all()
    assert all(s.rows.dtype == bool and s.rows.any() for s in strata)
    for below, above in zip(strata, strata[1:]):
        assert values[below.rows].max() < values[above.rows].min()  # so equal numbers are together
    assert len(strata) <= count + (values == 0).any()


def test_zero_is_a_stratum_of_its_own():
    strata = by_quantiles([0, 1, 0, 2, 3, 0], 3, "occurrences")
    assert [(s.label, s.rows.tolist()) for s in strata] == [
        ("0 occurrences", [True, False, True, False, False, True]),
        ("1 occurrences", [False, True, False, False, False, False]),
        ("2 occurrences", [False, False, False, True, False, False]),
        ("3 occurrences", [False, False, False, False, True, False]),
    ]


def test_strata_are_equally_large_where_numbers_differ():
    strata = by_quantiles(np.random.default_rng(0).permutation(90) + 1, 3, "events")
    assert [s.label for s in strata] == ["1-30 events", "31-60 events", "61-90 events"]
    assert [int(s.rows.sum()) for s in strata] == [30, 30, 30]


def test_labels_are_numbers_that_occur():
    strata = by_quantiles([10, 20, 30, 40], 2, "events")
    assert [s.label for s in strata] == ["10-20 events", "30-40 events"]


@pytest.mark.parametrize("values", [[5] * 10, [5] * 9 + [6]])
def test_fewer_groups_than_asked_where_many_share_a_number(values):
    strata = by_quantiles(values, 4, "events")
    assert [s.label for s in strata] == [f"{v} events" for v in sorted(set(values))]


def test_all_zero_and_none_at_all():
    assert [s.label for s in by_quantiles([0, 0], 3, "events")] == ["0 events"]
    assert by_quantiles([], 3, "events") == []


def test_rows_are_cut_by_the_users_training_and_the_targets_popularity():
    strata = split_rows(
        users=np.array([3, 1, 2, 9]), targets=np.array([1, 2, 1, 3]), training_events={1: 4, 2: 4, 3: 8},
        occurrences=np.array([0, 7, 0, 2]), count=3,
    )  # fmt: skip
    assert {s.label: s.rows.tolist() for s in strata["users"]} == {
        "0 training events": [False, False, False, True],
        "4 training events": [False, True, True, False],
        "8 training events": [True, False, False, False],
    }
    assert {s.label: s.rows.tolist() for s in strata["items"]} == {
        "0 occurrences": [False, True, False, False],
        "2 occurrences": [False, False, False, True],
        "7 occurrences": [True, False, True, False],
    }
