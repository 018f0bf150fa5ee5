"""Snapshots: the binomial schedule keeps within its room, and recomputes as little as that allows."""

import functools

import pytest

from recbole_farzi.adjoint._schedule import Binomial, Every, advances


@functools.cache
def least(length, snapshots):
    """Fewest steps advanced over to reverse a chain, by exhaustive search (the start counts as a snapshot)."""
    if length == 1:
        return 0
    if snapshots == 1:
        return length * (length - 1) // 2
    return min(m + least(m, snapshots) + least(length - m, snapshots - 1) for m in range(1, length))


def held(schedule, length):
    """The most snapshots held at once by a reversal."""
    most, stack = 0, [0]
    for end in range(length, 0, -1):
        if stack[-1] == end:
            stack.pop()
        while stack[-1] < end - 1:
            target = schedule.next(stack[-1], end, len(stack))
            if target is None:
                break
            assert stack[-1] < target < end
            stack.append(target)
        most = max(most, len(stack))
    return most


@pytest.mark.parametrize("snapshots", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 20, 41])
def test_binomial_recomputes_the_least_possible_within_its_room(length, snapshots):
    # The last step of the forward loop is the 1: it is taken, though nothing is reversed from behind it.
    assert advances(Binomial(snapshots), length) == least(length, snapshots) + 1
    assert held(Binomial(snapshots), length) <= snapshots


@pytest.mark.parametrize("length, k", [(1, 1), (20, 4), (20, 7), (9, 30)])
def test_every_k_takes_each_step_at_most_twice(length, k):
    assert advances(Every(k), length) <= 2 * length
    assert held(Every(k), length) <= -(-length // k) + k


def test_every_step_stored_recomputes_nothing():
    assert advances(Every(1), 50) == 50
    assert advances(Binomial(50), 50) == 50
