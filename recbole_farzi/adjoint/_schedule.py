"""Where the snapshots of a trajectory are kept, for a reversal that does not hold all of it.

A reversal walks a chain of `length` steps backwards. It holds snapshots of some states on a stack, the
start of the chain among them; to reverse the step from `end - 1` to `end` it advances from the last
snapshot, leaving further ones on its way. A schedule says where.
"""

import abc
import dataclasses
import math
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
