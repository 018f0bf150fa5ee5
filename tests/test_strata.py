"""Groups from cold to warm: every row once, equal numbers together, nothing together with zero."""

import numpy as np
import pytest

from recbole_farzi.errors import OptionError
from recbole_farzi.strata import by_edges, by_quantiles, head_and_tail, read_edges, split_rows


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
        occurrences=np.array([0, 7, 0, 2]), user_strata=3, item_strata=3,
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


# --- edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["[1,5,10,inf)", "[1, 5, 10]", "(1,5,10,inf]", [1, 5, 10], (1, 5, 10, float("inf")), [1, 5, 10, "inf"]])
def test_edges_in_every_spelling(given):
    assert read_edges(given) == (1, 5, 10)


@pytest.mark.parametrize("given", ["", "1,5", "[a]", "[]", [], [0, 5], [1.5], [True], ["1"], [float("inf")], None, {}])
def test_edges_that_are_none(given):
    with pytest.raises(OptionError, match="must be whole numbers of at least 1"):
        read_edges(given)


@pytest.mark.parametrize("given, word", [([1, 5, 5], "empty"), ([5, 1], "overlapping")])
def test_strata_that_overlap_or_hold_nothing(given, word):
    with pytest.raises(OptionError, match=f"make {word} strata"):
        read_edges(given)


@pytest.mark.parametrize("edges", [(1,), (2,), (1, 2, 3), (4, 9), (1, 10, 40)])
def test_edges_cut_into_a_partition(edges):
    values = np.random.default_rng(3).integers(0, 60, size=500)
    strata = by_edges(values, edges, "events")
    assert (np.sum([s.rows for s in strata], axis=0) == 1).all()
    bounds = [0, *([1] if edges[0] > 1 else []), *edges]
    assert [int(values[s.rows].min()) for s in strata] == bounds and strata[0].unseen and not strata[1].unseen


def test_labels_of_edges():
    strata = by_edges([0, 1, 3, 5, 7, 8, 20], (3, 5, 6, 8), "events")
    assert [s.label for s in strata] == ["0 events", "1-2 events", "3-4 events", "5 events", "6-7 events", "8 and more events"]


def test_an_empty_stratum_between_edges_is_refused():
    with pytest.raises(OptionError, match="the stratum '50-99 events' is empty: no test row lies in it .these have 1 to 20."):
        by_edges([1, 20], (1, 50, 100), "events")
    assert [s.label for s in by_edges([7, 20], (5, 10), "events")] == ["5-9 events", "10 and more events"]  # none below 5


# --- head, tail, grid -------------------------------------------------------------------------------------------------


def test_the_head_is_the_most_popular_fifth():
    occurrences = np.array([0, 100, 90, 10, 9, 8, 7, 6, 5, 4, 3, 0])  # ten items that occur, and one that does not
    strata = head_and_tail(np.arange(1, 12), occurrences)
    assert [s.label for s in strata] == [
        "0 occurrences", "long tail (80% of items, 21% of events)", "head (20% of items, 79% of events)",
    ]  # fmt: skip
    assert [np.flatnonzero(s.rows).tolist() for s in strata] == [[10], [2, 3, 4, 5, 6, 7, 8, 9], [0, 1]]


def test_items_as_popular_as_the_tails_are_the_tail():
    strata = head_and_tail([1, 2, 3], np.array([0, 5, 5, 5]))
    assert [s.rows.tolist() for s in strata] == [[True, True, True]]


def test_the_grid_crosses_users_and_items():
    rng = np.random.default_rng(4)
    users, targets = rng.permutation(300), rng.integers(1, 50, 300)
    strata = split_rows(users, targets, {u: u % 40 for u in range(300)}, rng.integers(0, 30, 50), (5, 20), 3)
    for kind in strata.values():
        assert (np.sum([s.rows for s in kind], axis=0) == 1).all()
    for cell in strata["grid"]:
        row, column = cell.cell
        assert (cell.rows == (strata["users"][row].rows & strata["items"][column].rows)).all()
