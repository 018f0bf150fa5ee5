"""Reverse-mode differentiation of the loop as one autograd node, from snapshots of its states."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from ._clip import clip, clip_adjoint
from ._errors import NoSecondDerivativeError
from ._inner import InnerLoop, Watch
from ._products import Products
from ._rule import Scalar, Slots
from ._schedule import Schedule

Product = Callable[..., Products]


def rates(lr: Any, steps: int) -> list[Scalar]:
    """The learning rate of each step, detached: numbers where reading them waits for no device."""
    if not isinstance(lr, Tensor):
        return [float(lr)] * steps
    flat = lr.detach().expand(steps)
    return flat.tolist() if flat.device.type == "cpu" else list(flat.unbind())


@dataclasses.dataclass
class _Snapshot:
    at: int
    w: Tensor
    slots: Slots
    g: Optional[Tensor] = None  # the gradient at w, where it was taken on the way and is wanted


@dataclasses.dataclass
class Chain:
    """Steps `first` to `last` of an inner loop, with how to reverse them.

    Attributes:
        rates: the learning rate of each step of the whole loop.
        keeps_gradients: whether snapshots hold the gradient beside the state (for the forward product).
    """

    inner: InnerLoop
    first: int
    last: int
    rates: list[Scalar]
    schedule: Schedule
    product: Product
    keeps_gradients: bool

    def advance(
        self, stack: list[_Snapshot], end: int, xs: Sequence[Tensor], watch: Optional[Watch] = None
    ) -> _Snapshot:
        """The state at `end - 1`, from the last snapshot; leaves more of them on `stack` on the way.

        Positions are counted from the start of the chain.
        """
        here = stack[-1]
        while here.at < end - 1:
            target = self.schedule.next(here.at, end, len(stack))
            stop = end - 1 if target is None else target
            kept = here
            for at in range(here.at, stop):
                t = self.first + at
                w, slots, g = self.inner.advance(here.w, here.slots, xs, self.rates[t], t, watch)
                if self.keeps_gradients and here is kept:
                    kept.g = g
                here = _Snapshot(at + 1, w, slots)
            if target is not None:
                stack.append(here)
        return here


class Reversed(torch.autograd.Function):
    """(w, slots, xs, lr) at the start of a chain -> (w, slots) at its end.

    No autograd graph is kept. Snapshots live outside autograd's saved tensors, since those are all
    alive until the whole backward pass is over, and a schedule counts on their memory sooner.
    A second backward pass through the same node walks forward again.
    """

    @staticmethod
    def forward(ctx: Any, chain: Chain, lr: Optional[Tensor], n_slots: int, w: Tensor, *rest: Tensor) -> Any:
        ctx.chain = chain
        ctx.n_slots = n_slots
        ctx.lr_like = lr
        ctx.save_for_backward(w, *rest)
        slots, xs = Reversed._split(n_slots, rest)
        w = w.detach()
        inner = chain.inner
        with inner.circumstances.entered():
            watch = inner.watch()
            stack = [_Snapshot(0, w, slots)]
            here = chain.advance(stack, chain.last - chain.first, xs, watch)
            t = chain.last - 1
            w, slots, g = inner.advance(here.w, here.slots, xs, chain.rates[t], t, watch)
            if chain.keeps_gradients:
                here.g = g
            watch.close()
        ctx.stack, ctx.here = stack, here
        # A slot that a rule passes on unchanged must not be returned as the very tensor that came in.
        return (w, *(slot.clone() if slot is old else slot for slot, old in zip(slots, rest)))

    @staticmethod
    def _split(n_slots: int, rest: Sequence[Tensor]) -> tuple[Slots, list[Tensor]]:
        rest = [x.detach() for x in rest]
        return tuple(rest[:n_slots]), rest[n_slots:]

    @staticmethod
    def backward(ctx: Any, w_: Tensor, *slots_: Tensor) -> Any:
        if torch.is_grad_enabled():
            # torch's own once_differentiable raises only on some ways through the graph, and is silently 0 on others.
            raise NoSecondDerivativeError("this adjoint cannot be differentiated twice (create_graph): use Unrolled()")
        chain: Chain = ctx.chain
        inner = chain.inner
        w0, *rest = ctx.saved_tensors
        slots0, xs = Reversed._split(ctx.n_slots, rest)
        stack, here = ctx.stack, ctx.here
        ctx.stack = ctx.here = None
        if stack is None:
            stack = [_Snapshot(0, w0.detach(), slots0)]

        needs_lr, needs_start = ctx.needs_input_grad[1], any(ctx.needs_input_grad[3 : 4 + ctx.n_slots])
        wrt = [i for i, needed in enumerate(ctx.needs_input_grad[4 + ctx.n_slots :]) if needed]
        xs_ = {i: torch.zeros_like(xs[i], memory_format=torch.contiguous_format) for i in wrt}
        rates_: list[Tensor] = []
        # These are overwritten; what autograd hands in may be shared with other nodes.
        w_ = w_.clone(memory_format=torch.contiguous_format)
        slots_ = tuple(slot_.clone(memory_format=torch.contiguous_format) for slot_ in slots_)
        w_views = inner.views(w_)

        with inner.circumstances.entered():
            for at in range(chain.last - chain.first - 1, -1, -1):
                if stack[-1].at > at:
                    stack.pop()
                if here is None or here.at != at:
                    here = chain.advance(stack, at + 1, xs)
                t = chain.first + at
                state = here
                want_w = at > 0 or needs_start

                def direction(g: Tensor) -> Tensor:
                    u_, lr_ = inner.rule.adjoint(
                        state.w,
                        clip(g, inner.clip_norm),
                        state.slots,
                        chain.rates[t],
                        inner.start + t + 1,
                        w_,
                        slots_,
                    )
                    if needs_lr:
                        rates_.append(lr_)
                    return clip_adjoint(g, u_, inner.clip_norm)

                hvp, mixed = chain.product(inner, state.w, xs, wrt, t, state.g, direction, want_w)
                if hvp is not None:
                    pairs = [(view, h) for view, h in zip(w_views, hvp) if h is not None]
                    if pairs:
                        torch._foreach_add_([view for view, _ in pairs], [h for _, h in pairs])
                for i, x_ in zip(wrt, mixed):
                    if x_ is None:
                        continue
                    if inner.is_batched(i):
                        xs_[i].index_add_(0, inner.rows(t), x_)
                    else:
                        xs_[i].add_(x_)
                here = None

        lr_all = None
        if needs_lr:
            like = ctx.lr_like
            lr_all = like.new_zeros(like.shape)
            lr_all[chain.first : chain.last] = torch.stack(rates_[::-1]).to(like)
        needed = ctx.needs_input_grad[3:]
        adjoints = [w_, *slots_, *(xs_.get(i) for i in range(len(xs)))]
        return (None, lr_all, None, *(a if n else None for a, n in zip(adjoints, needed)))
