"""Where the snapshots of a trajectory are kept, for a reversal that does not hold all of it.

A reversal walks a chain of `length` steps backwards. It holds snapshots of some states on a stack, the
start of the chain among them; to reverse the step from `end - 1` to `end` it advances from the last
snapshot, leaving further ones on its way. A schedule says where.

Within a piece of the chain the gradients alone may be kept, one vector a step where a state is two to four: from a
state and the gradients after it the next states follow by the rule's element-wise updates, without the loss.
`Segments` is a layout of such pieces.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Optional


class Schedule(abc.ABC):
    """Decides, for a piece of the chain, where the next snapshot goes."""

    @abc.abstractmethod
    def next(self, at: int, end: int, held: int) -> Optional[int]:
        """The next state to keep, in `(at, end)`, or None for none before `end`.

        Args:
            at: the last state kept.
            end: the steps up to here have still to be reversed; `end - at` is at least 2.
            held: how many snapshots are held, the one at `at` included.
        """


@dataclasses.dataclass(frozen=True)
class Every(Schedule):
    """A snapshot at every multiple of `k`; all states of the segment that is being reversed."""

    k: int

    def next(self, at: int, end: int, held: int) -> Optional[int]:
        if end - at > self.k and at % self.k == 0:
            return at + self.k
        return at + 1


@dataclasses.dataclass(frozen=True)
class Binomial(Schedule):
    """At most `snapshots` states, and the fewest steps recomputed that this allows.

    The binomial schedule of Griewank and Walther (2000), "Algorithm 799: revolve". With s snapshots, a
    chain of up to C(s + r, s) steps is reversed in which no step is advanced over more than r times,
    the forward loop included.
    """

    snapshots: int

    def next(self, at: int, end: int, held: int) -> Optional[int]:
        s = self.snapshots - held + 1  # the one at `at` counts for this piece
        length = end - at
        if s <= 1:
            return None
        r = 1
        while math.comb(s + r, s) < length:
            r += 1
        # The largest left part that needs r - 1 sweeps, and leaves the right one at least what r - 1 do.
        return at + max(1, min(math.comb(s + r - 1, s), length - math.comb(s + r - 2, s - 1)))


def advances(schedule: Schedule, length: int) -> int:
    """How many steps a reversal of `length` steps advances over, the forward loop included."""
    total = 1  # the forward loop takes the last step, too
    stack = [0]
    for end in range(length, 0, -1):
        if stack[-1] == end:
            stack.pop()
        at = stack[-1]
        while at < end - 1:
            target = schedule.next(at, end, len(stack))
            total += (target or end - 1) - at
            at = target or end - 1
            if target is not None:
                stack.append(at)
    return total


@dataclasses.dataclass(frozen=True)
class Segments:
    """The states at `starts`, and the gradients of the segment that is being reversed.

    While a segment is reversed its states are replayed from its start, element by element, and `spare` further states
    are kept on the way (binomially), so that no step is replayed often.
    """

    starts: tuple[int, ...]
    spare: int

    def spans(self, length: int) -> Iterator[tuple[int, int]]:
        """Start and end of each segment of a chain of `length` steps."""
        return zip(self.starts, (*self.starts[1:], length))

    @property
    def replays(self) -> Binomial:
        """Where the states of a segment are kept."""
        return Binomial(1 + self.spare)


REPLAY = 0.02  # the time of an element-wise update over that of a gradient, to weigh schedules by


def every(length: int, k: int) -> Segments:
    """Segments of `k` steps, of which no step is replayed more than about four times."""
    spare = 0
    while math.comb(1 + spare + 4, 4) < min(k, length):
        spare += 1
    return Segments(tuple(range(0, length, k)), spare)


@functools.lru_cache(maxsize=256)
def fitted(length: int, room: int, vectors: int) -> "Schedule | Segments":
    """What reverses `length` steps soonest within a memory of `room` vectors, where a state is `vectors` of them.

    Either states alone (`Every(1)` if all fit, else `Binomial`), or `Segments`: with i segments begun, i states are
    held, the spare ones, and the one that is being advanced; what is left of the room is gradients. So earlier
    segments may be longer, each step is evaluated twice at most, and those of the last segment once.
    """
    if room >= (length + 1) * vectors:
        return Every(1)
    states = Binomial(max(1, room // vectors - 1))  # one state of the room is the one that is being advanced
    best: "Schedule | Segments" = states
    cost = float(advances(states, length))
    for spare in range(12):
        lengths: list[int] = []
        while sum(lengths) < length:
            most = room - vectors * (len(lengths) + 1 + spare + 1)
            if most < 1:
                break
            lengths.append(most)
        else:
            # The last segment is as long as it may be, since it is not evaluated again.
            ends = [0]
            for most in lengths[:-1]:
                ends.append(min(ends[-1] + most, length - min(lengths[-1], length)))
            found = Segments(tuple(sorted(set(ends))), spare)
            seconds = evaluations(found, length) + REPLAY * replays(found, length)
            if seconds < cost:
                best, cost = found, seconds
    return best


def evaluations(segments: Segments, length: int) -> int:
    """How many gradients a reversal takes beside those of its products, the forward loop included."""
    lengths = [end - start for start, end in segments.spans(length)]
    # The last gradient of a segment that is gone through again is the product's.
    return length + sum(n - 1 for n in lengths[:-1])


def replays(segments: Segments, length: int) -> int:
    """How many element-wise updates are taken again from known gradients."""
    return sum(advances(segments.replays, end - start) - (end - start) for start, end in segments.spans(length))
