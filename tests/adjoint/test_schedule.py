"""Snapshots: schedules keep within their room; the binomial one recomputes as little as that allows."""

import functools
import math

import pytest

from recbole_farzi.adjoint._schedule import Binomial, Every, Segments, advances, evaluations, every, fitted, replays


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


@pytest.mark.parametrize("length, k", [(1, 2), (20, 4), (20, 7), (9, 30), (1000, 32)])
def test_every_k_evaluates_each_step_at_most_twice(length, k):
    segments = every(length, k)
    assert evaluations(segments, length) < 2 * length
    assert replays(segments, length) <= 4 * length
    assert segments.starts == tuple(range(0, length, k))
    assert 3 * segments.spare <= k


def test_every_step_stored_recomputes_nothing():
    assert advances(Every(1), 50) == 50
    assert advances(Binomial(50), 50) == 50


def most(segments, length, vectors):
    """The most vectors held: the states of the starts, the spare ones and the one at hand, and the gradients."""
    spans = enumerate(segments.spans(length), start=1)
    return max(vectors * (begun + segments.spare + 1) + end - start for begun, (start, end) in spans)


@pytest.mark.parametrize("vectors", [2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 10, 40, 200, 1000])
def test_segments_keep_within_the_room(length, vectors):
    for states in (2, 3, 5, 10, 15, 32, 100, 500, 1001):
        found = fitted(length, states * vectors, vectors)
        if not isinstance(found, Segments):
            continue
        assert most(found, length, vectors) <= states * vectors
        assert list(found.starts) == sorted(set(found.starts)) and found.starts[0] == 0 and found.starts[-1] < length
        assert evaluations(found, length) < advances(Binomial(states - 1), length)


def test_no_step_is_recomputed_twice_in_the_memory_of_sqrt_states():
    for length in (50, 100, 200, 500, 1000, 5000):
        segments = fitted(length, 3 * math.ceil(math.sqrt(length)), 3)
        assert isinstance(segments, Segments)
        assert evaluations(segments, length) < 2 * length
        assert replays(segments, length) < 8 * length
        assert advances(Binomial(math.isqrt(length - 1)), length) > 2 * length


def test_more_room_never_costs_more():
    def cost(room):
        found = fitted(200, room, 3)
        if isinstance(found, Segments):
            return evaluations(found, 200) + 0.02 * replays(found, 200)
        return advances(found, 200)

    costs = [cost(room) for room in range(6, 610, 3)]
    assert all(later <= earlier for earlier, later in zip(costs, costs[1:]))
