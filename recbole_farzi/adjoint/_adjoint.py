"""Strategies: how the loop is differentiated, and what is kept for it.

Cost is counted in F, the time of one gradient of the inner loss, and in states: the parameters and the
optimiser's slots (3 vectors of the parameters' size for Adam). T is the number of steps. The pair
of products that each reverse step takes costs P (see `benchmarks/` for what it is on your loss).
"""

import abc
import dataclasses
import math
from typing import Optional, Union

import torch
from torch import Tensor

from ._clip import clip
from ._errors import MemoryBudgetError, OptionError
from ._inner import InnerLoop
from ._products import forward, prepared, reverse
from ._reverse import Reversed, rates
from ._rule import Slots
from ._schedule import Every, Schedule, Segments, every, fitted
from ._trajectory import Chain


@dataclasses.dataclass
class Call:
    """One call of `unroll`, flattened; what a strategy is given.

    Attributes:
        inner: the loop.
        steps: T.
        w: flat parameters at the start, `[n]`; carries the graph to the caller's tensors.
        slots: flat slots at the start, `[n]` each.
        xs: all other tensors that the loss reads.
        lr: a number, or a tensor, 0-d or `[T]`.
        product: `"reverse"` or `"forward"`.
    """

    inner: InnerLoop
    steps: int
    w: Tensor
    slots: Slots
    xs: list[Tensor]
    lr: "float | Tensor"
    product: str


Final = tuple[int, Tensor, Slots]


class Adjoint(abc.ABC):
    """How to differentiate through the inner loop."""

    @abc.abstractmethod
    def run(self, call: Call) -> Final:
        """Run the loop: steps taken, flat parameters and slots at the end, differentiable."""


def _needs_gradient(call: Call) -> bool:
    tensors = [call.w, *call.slots, *call.xs, call.lr]
    needed = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in tensors)
    call.inner.examines = needed
    return needed


def _plain(call: Call, last: int) -> tuple[Tensor, Slots]:
    """The first `last` steps, without derivatives."""
    inner, lrs = call.inner, rates(call.lr, call.steps)
    w, slots = call.w.detach(), tuple(slot.detach() for slot in call.slots)
    xs = [x.detach() for x in call.xs]
    with torch.no_grad(), inner.circumstances.entered():
        watch = inner.watch()
        for t in range(last):
            w, slots, _ = inner.advance(w, slots, xs, lrs[t], t, watch)
        watch.close()
    return w, slots


def _differentiable(
    call: Call,
    schedule: Union[Schedule, Segments],
    first: int,
    last: int,
    w: Tensor,
    slots: Slots,
    offload: bool = False,
) -> Final:
    """Steps `first` to `last` as one autograd node."""
    lr = call.lr.expand(call.steps) if isinstance(call.lr, Tensor) else None
    product = prepared if call.inner.prepared else forward if call.product == "forward" else reverse
    chain = Chain(
        inner=call.inner,
        first=first,
        last=last,
        rates=rates(call.lr, call.steps),
        keeps_gradients=product is not reverse and not offload,
        offloads=offload,
    )
    w, *slots = Reversed.apply(chain, schedule, product, lr, len(slots), w, *slots, *call.xs)
    return last, w, tuple(slots)


@dataclasses.dataclass(frozen=True)
class StoreAll(Adjoint):
    """Keep the state of every step: exact, and the fastest. The default.

    Prefer it while T states fit into memory. Time T (F + P); memory T states. The autograd graph
    of a step lives only while that step is reversed. Not differentiable twice (see `Unrolled`).

    Args:
        offload: keep the states in pinned host memory in place of the device's (on a CPU it changes nothing): the
            device holds one state, and each step moves one each way, without anybody waiting.
    """

    offload: bool = False

    def run(self, call: Call) -> Final:
        if not _needs_gradient(call):
            return call.steps, *_plain(call, call.steps)
        return _differentiable(call, Every(1), 0, call.steps, call.w, call.slots, self.offload)


@dataclasses.dataclass(frozen=True)
class Checkpointed(Adjoint):
    """Keep some states, and recompute the rest: exact, to the last bit the same as `StoreAll`.

    Prefer it where T states do not fit. A step is recomputed once at most, given room for about sqrt(T) states:
    of the segment that is being reversed the *gradients* are kept (one vector a step, where a state of Adam is three)
    and its states follow from them by element-wise updates, without the loss. Three ways to say how much is kept:

    * `every=k`: every k-th state, and the gradients of one segment: T / k states and k + O(log k) vectors; time at
      most T (2 F + P).
    * `memory=bytes`: what fits into the budget, in the layout that is soonest done: all states (nothing is recomputed),
      all gradients (a third of that for Adam; nothing but element-wise updates is recomputed), segments as above, or,
      in less room than those need, states alone by the binomial schedule (Griewank and Walther 2000, "Algorithm 799:
      revolve"), by which two states will do, slowly. The budget is for the trajectory; a step's own working set (its
      autograd graph, the adjoints) comes on top, as with any strategy.
    * neither: as `memory`, with room for sqrt(T) states.

    Args:
        every: k, at least 1.
        memory: bytes for the trajectory.
        offload: keep the states that wait in pinned host memory in place of the device's (on a CPU it changes nothing).
            The budget is not made larger by it.

    Raises:
        OptionError: for k < 1, or both `every` and `memory`.
        MemoryBudgetError: (in `unroll`) if not even two states fit.
    """

    every: Optional[int] = None
    memory: Optional[int] = None
    offload: bool = False

    def __post_init__(self) -> None:
        if self.every is not None and self.memory is not None:
            raise OptionError("give every or memory, not both")
        if self.every is not None and self.every < 1:
            raise OptionError(f"every must be at least 1, not {self.every}")

    def run(self, call: Call) -> Final:
        schedule = self.schedule(call)  # first: a senseless budget is an error with or without gradients
        if not _needs_gradient(call):
            return call.steps, *_plain(call, call.steps)
        return _differentiable(call, schedule, 0, call.steps, call.w, call.slots, self.offload)

    def schedule(self, call: Call) -> Union[Schedule, Segments]:
        """What is kept, and where, in this call."""
        if self.every is not None:
            return Every(1) if self.every == 1 else every(call.steps, self.every)
        vectors = 1 + len(call.slots)
        if self.memory is None:
            room = vectors * max(2, math.isqrt(call.steps - 1) + 1)
        else:
            vector = call.w.numel() * call.w.element_size()
            room = self.memory // vector
            if room < 2 * vectors:
                raise MemoryBudgetError(
                    f"a memory budget of {self.memory} bytes is too small: two states of {vectors * vector} bytes must fit"
                )
        return fitted(call.steps, room, vectors)


@dataclasses.dataclass(frozen=True)
class Truncated(Adjoint):
    """Differentiate a window of K steps only: a biased gradient, at K / T of the memory and reverse time.

    What comes before the window is taken as a constant, as if detached: the initial parameters, the initial
    state and earlier learning rates get no gradient from it (unless the window covers all steps).

    Prefer it where long unrolls are chaotic (the norm of the exact gradient grows with T) or too slow.

    * `last=K`: all T steps are taken, the last K are differentiated (truncated back-propagation).
    * `random=K`: the loop *ends* after a number of steps drawn uniformly from K..T, and its last K steps are
      differentiated: random truncated back-propagation, RaT-BPTT (Feng, Vedantam and Kempe 2024,
      "Embarrassingly simple dataset distillation", arXiv 2311.07025). The parameters returned are those at the end
      that was drawn; `return_state=True` says at which step that was.

    A K above T is T. Time T F + K P (for `random`, fewer steps on average); memory K states.

    Args:
        last: K, at least 1.
        random: K, at least 1; exactly one of the two must be given.
        seed: for `random`: a given seed draws the same end at each call, so pass another for each outer step;
            None draws from PyTorch's global CPU generator.
        states: which states of the window are kept, with K in place of T; None keeps all K.

    Raises:
        OptionError: for K < 1, or unless exactly one of `last` and `random` is given.
    """

    last: Optional[int] = None
    random: Optional[int] = None
    seed: Optional[int] = None
    states: Optional[Checkpointed] = None

    def __post_init__(self) -> None:
        if (self.last is None) == (self.random is None):
            raise OptionError("give exactly one of last and random")
        if self._window < 1:
            raise OptionError(f"the window must be at least 1 step, not {self._window}")

    @property
    def _window(self) -> int:
        return self.last if self.last is not None else self.random  # type: ignore[return-value]

    def window(self, steps: int) -> tuple[int, int]:
        """First and last step of the window, of `steps`; draws for `random`."""
        width = min(self._window, steps)
        end = steps
        if self.random is not None:
            generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
            end = int(torch.randint(width, steps + 1, (), generator=generator))
        return end - width, end

    def run(self, call: Call) -> Final:
        first, last = self.window(call.steps)
        if not _needs_gradient(call):
            return last, *_plain(call, last)
        w, slots = (call.w, call.slots) if first == 0 else _plain(call, first)
        schedule = Every(1) if self.states is None else self.states.schedule(dataclasses.replace(call, steps=last - first))
        return _differentiable(call, schedule, first, last, w, slots)


@dataclasses.dataclass(frozen=True)
class Unrolled(Adjoint):
    """Plain autograd through the whole loop: the reference, and the only one that differentiates twice.

    Prefer it for tests, for small problems and for second derivatives of the outer loss. Memory: the autograd
    graph of T gradients *and* of their derivatives, by far the most; time about that of `StoreAll`, or more.
    """

    def run(self, call: Call) -> Final:
        if not _needs_gradient(call):
            return call.steps, *_plain(call, call.steps)
        inner = call.inner
        lrs = call.lr.expand(call.steps).unbind() if isinstance(call.lr, Tensor) else [call.lr] * call.steps
        w, slots = call.w, call.slots
        with inner.circumstances.entered():
            watch = inner.watch()
            for t in range(call.steps):
                if not w.requires_grad:
                    w = w.detach().requires_grad_()
                value, grads = inner.differentiate(inner.views(w), inner.read(call.xs, t), t, create_graph=True)
                g = inner.join(grads)
                watch.see(inner.start + t, value, g)
                w, slots = inner.rule.step(w, clip(g, inner.clip_norm), slots, lrs[t], inner.start + t + 1)
            watch.close()
        return call.steps, w, slots
