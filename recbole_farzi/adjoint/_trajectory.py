"""How a trajectory is held, and walked backwards: by states, or by states and gradients."""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Optional, Union

import torch
from torch import Tensor

from ._clip import clip
from ._inner import InnerLoop, Watch
from ._rule import Scalar, Slots
from ._schedule import Schedule, Segments


@dataclasses.dataclass
class Snapshot:
    """The state before step `at` of a chain, and the gradient there if it is at hand."""

    at: int
    w: Tensor
    slots: Slots
    g: Optional[Tensor] = None


@dataclasses.dataclass
class Chain:
    """Steps `first` to `last` of an inner loop; positions on it are counted from 0.

    Attributes:
        rates: the learning rate of each step of the whole loop.
        keeps_gradients: whether the products are told the gradient (so it is kept beside the states).
        offloads: whether states that wait are moved to pinned host memory.
    """

    inner: InnerLoop
    first: int
    last: int
    rates: list[Scalar]
    keeps_gradients: bool
    offloads: bool

    @property
    def length(self) -> int:
        return self.last - self.first

    def evaluate(self, here: Snapshot, xs: Sequence[Tensor], watch: Optional[Watch] = None) -> tuple[Snapshot, Tensor]:
        """The state after `here`, and the gradient at it."""
        t = self.first + here.at
        w, slots, g = self.inner.advance(here.w, here.slots, xs, self.rates[t], t, watch)
        return Snapshot(here.at + 1, w, slots), g

    def replay(self, here: Snapshot, g: Tensor) -> Snapshot:
        """The same, from the gradient: to the last bit, since the same operations are taken."""
        inner, t = self.inner, self.first + here.at
        g = clip(g, inner.clip_norm)
        w, slots = inner.rule.step(here.w, g, here.slots, self.rates[t], inner.start + t + 1)
        return Snapshot(here.at + 1, w, slots)

    def parked(self, here: Snapshot) -> Snapshot:
        """A snapshot to wait on the stack, on the host if so wished."""
        if not self.offloads or here.w.device.type != "cuda":
            return here
        # One stream: the copy comes after what it copies, and before any copy back. Nobody waits.
        held = [torch.empty_like(x, device="cpu", pin_memory=True) for x in _tensors(here)]
        w, *slots = (there.copy_(x, non_blocking=True) for there, x in zip(held, _tensors(here)))
        return Snapshot(here.at, w, tuple(slots), here.g)

    def fetched(self, here: Snapshot) -> Snapshot:
        """A parked snapshot, where the parameters are."""
        device = self.inner.device
        if here.w.device == device:
            return here
        w, *slots = (x.to(device, non_blocking=True) for x in _tensors(here))
        return Snapshot(here.at, w, tuple(slots), here.g)


def _tensors(here: Snapshot) -> tuple[Tensor, ...]:
    return here.w, *here.slots


class Trajectory(abc.ABC):
    """What is kept of one pass over a chain. Recorded once, walked backwards once."""

    @abc.abstractmethod
    def record(self, start: Snapshot, xs: Sequence[Tensor], watch: Optional[Watch]) -> Snapshot:
        """Take all steps; the state after the last."""

    @abc.abstractmethod
    def backwards(self, xs: Sequence[Tensor]) -> Iterator[Snapshot]:
        """The state before each step, the last step first. The caller lets go of each before it asks for the next."""


def _walk(
    schedule: Schedule,
    stack: list[Snapshot],
    here: Snapshot,
    end: int,
    step: Callable[[Snapshot], Snapshot],
    keep: Callable[[Snapshot], Snapshot] = lambda here: here,
) -> Snapshot:
    """The state at `end - 1`, from `here`, the last one on the stack; leaves more of them there on the way.

    The schedule counts from the first one on the stack.
    """
    origin = stack[0].at
    while here.at < end - 1:
        target = schedule.next(here.at - origin, end - origin, len(stack))
        stop = end - 1 if target is None else target + origin
        while here.at < stop:
            here = step(here)
        if target is not None:
            stack.append(keep(here))
    return here


class States(Trajectory):
    """States at the places of a schedule."""

    def __init__(self, chain: Chain, schedule: Schedule):
        self._chain, self._schedule = chain, schedule
        self._stack: list[Snapshot] = []
        self._here: Optional[Snapshot] = None

    def record(self, start: Snapshot, xs: Sequence[Tensor], watch: Optional[Watch]) -> Snapshot:
        self._stack = [self._chain.parked(start)]
        here = self._advance(self._chain.length, xs, watch)
        final, g = self._chain.evaluate(here, xs, watch)
        if self._chain.keeps_gradients:
            here.g = g
        self._here = here
        return final

    def backwards(self, xs: Sequence[Tensor]) -> Iterator[Snapshot]:
        stack, here = self._stack, self._here
        self._here = None
        for end in range(self._chain.length, 0, -1):
            if stack[-1].at >= end:
                stack.pop()
            if here is None:
                here = self._advance(end, xs, None)
            known, here = [here], None
            yield known.pop()

    def _advance(self, end: int, xs: Sequence[Tensor], watch: Optional[Watch]) -> Snapshot:
        stack = self._stack

        def step(here: Snapshot) -> Snapshot:
            after, g = self._chain.evaluate(here, xs, watch)
            if self._chain.keeps_gradients and stack[-1].at == here.at:
                stack[-1].g = g
            return after

        return _walk(self._schedule, stack, self._chain.fetched(stack[-1]), end, step, self._chain.parked)


class Gradients(Trajectory):
    """States at the starts of segments; of one segment, the gradients."""

    def __init__(self, chain: Chain, segments: Segments):
        self._chain, self._segments = chain, segments
        self._starts: list[Snapshot] = []
        self._stack: list[Snapshot] = []  # of the segment at hand, its start first
        self._here: Optional[Snapshot] = None
        self._gradients: list[Tensor] = []

    def record(self, start: Snapshot, xs: Sequence[Tensor], watch: Optional[Watch]) -> Snapshot:
        chain = self._chain
        *early, (_, end) = self._segments.spans(chain.length)
        self._starts, here = [chain.parked(start)], start
        for _, stop in early:
            while here.at < stop:
                here, _ = chain.evaluate(here, xs, watch)
            self._starts.append(chain.parked(here))
        self._record_segment(end, xs, watch)
        assert self._here is not None
        final, g = chain.evaluate(self._here, xs, watch)
        self._gradients.append(g)
        return final

    def backwards(self, xs: Sequence[Tensor]) -> Iterator[Snapshot]:
        for i, (start, stop) in reversed(list(enumerate(self._segments.spans(self._chain.length)))):
            if len(self._starts) > i + 1:
                self._starts.pop()
                self._record_segment(stop, xs, None)
            here, self._here = self._here, None
            for end in range(stop, start, -1):
                if self._stack[-1].at >= end:
                    self._stack.pop()
                if here is None:
                    here = _walk(self._segments.replays, self._stack, self._stack[-1], end, self._replay)
                # The last gradient of a segment that was gone through again has not been taken.
                g = self._gradients.pop() if len(self._gradients) == end - start else None
                known, here = [Snapshot(here.at, here.w, here.slots, g)], None
                del g
                yield known.pop()

    def _record_segment(self, end: int, xs: Sequence[Tensor], watch: Optional[Watch]) -> None:
        """From the last start to the state before `end`, collecting gradients."""
        start = self._chain.fetched(self._starts[-1])
        self._stack, self._gradients = [start], []

        def step(here: Snapshot) -> Snapshot:
            after, g = self._chain.evaluate(here, xs, watch)
            self._gradients.append(g)
            return after

        self._here = _walk(self._segments.replays, self._stack, start, end, step)

    def _replay(self, here: Snapshot) -> Snapshot:
        return self._chain.replay(here, self._gradients[here.at - self._stack[0].at])


def trajectory(chain: Chain, schedule: Union[Schedule, Segments]) -> Trajectory:
    """The trajectory that a schedule asks for."""
    return Gradients(chain, schedule) if isinstance(schedule, Segments) else States(chain, schedule)
