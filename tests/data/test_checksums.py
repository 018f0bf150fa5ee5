"""Checksums tell apart what results depend on, and nothing else."""

import pytest

from recbole_farzi.data import rows_checksum

from .loaded import by_user


def change(events, user, position, item):
    """The events with the item of a user's event at a position (in time) replaced."""
    mine = sorted((i for i, event in enumerate(events) if event[0] == user), key=lambda i: events[i][2])
    changed = list(events)
    old = changed[mine[position]]
    assert old[1] != item
    changed[mine[position]] = (old[0], item, old[2])
    return changed


@pytest.fixture
def named_first(tiny_events):
    """The events after a user who names every item once, so that item ids do not depend on anybody else's events."""
    return [("first", f"i{i}", i) for i in range(30)] + tiny_events


def test_the_checksum_is_that_of_the_training_events(load, named_first):
    assert load(named_first).checksum == load(list(named_first)).checksum
    moved = [(user, item, time + 1000) for user, item, time in named_first]
    assert load(moved).checksum == load(named_first).checksum  # another time, the same order


@pytest.mark.parametrize("position", [0, 1, -3])
def test_the_checksum_changes_with_any_training_event(load, named_first, position):
    old = by_user(named_first)["u7"][position]
    other = change(named_first, "u7", position, "i3" if old != "i3" else "i4")
    assert load(other).checksum != load(named_first).checksum


@pytest.mark.parametrize("position", [-1, -2])
def test_the_checksum_does_not_change_with_the_held_out_events(load, named_first, position):
    old = by_user(named_first)["u7"][position]
    other = change(named_first, "u7", position, "i3" if old != "i3" else "i4")
    assert load(other).checksum == load(named_first).checksum


def test_the_checksum_knows_names(load, named_first):
    renamed = [(user, "other" if item == "i5" else item, time) for user, item, time in named_first]
    assert load(renamed).checksum != load(named_first).checksum
    renamed = [("other" if user == "u5" else user, item, time) for user, item, time in named_first]
    assert load(renamed).checksum != load(named_first).checksum


def test_results_of_other_held_out_events_are_told_apart(load, named_first):
    """The training checksum cannot: stored results on validation and test depend on these rows too."""
    old = by_user(named_first)["u7"][-1]
    one, same, other = load(named_first), load(named_first), load(change(named_first, "u7", -1, "i3" if old != "i3" else "i4"))
    assert rows_checksum(one.test) == rows_checksum(same.test) != rows_checksum(other.test)
    assert rows_checksum(one.valid) == rows_checksum(other.valid) != rows_checksum(one.test)
    assert rows_checksum(None) is None
