"""Reverse-mode differentiation of the loop as one autograd node, along a trajectory that is walked backwards."""

from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

import torch
from torch import Tensor

from ._clip import clip, clip_adjoint
from ._errors import NoSecondDerivativeError
from ._products import Products
from ._rule import Scalar, Slots
from ._schedule import Schedule, Segments
from ._trajectory import Chain, Snapshot, trajectory

Product = Callable[..., Products]


def rates(lr: Any, steps: int) -> list[Scalar]:
    """The learning rate of each step, detached: numbers where reading them waits for no device."""
    if not isinstance(lr, Tensor):
        return [float(lr)] * steps
    flat = lr.detach().expand(steps)
    return flat.tolist() if flat.device.type == "cpu" else list(flat.unbind())


class Reversed(torch.autograd.Function):
    """(w, slots, xs, lr) at the start of a chain -> (w, slots) at its end.

    No autograd graph is kept. The trajectory lives outside autograd's saved tensors, since those are all
    alive until the whole backward pass is over, and a schedule counts on their memory sooner.
    A second backward pass through the same node walks forward again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        chain: Chain,
        schedule: Union[Schedule, Segments],
        product: Product,
        lr: Optional[Tensor],
        n_slots: int,
        w: Tensor,
        *rest: Tensor,
    ) -> Any:
        ctx.chain, ctx.schedule, ctx.product = chain, schedule, product
        ctx.n_slots = n_slots
        ctx.lr_like = lr
        ctx.save_for_backward(w, *rest)
        slots, xs = Reversed._split(n_slots, rest)
        ctx.trajectory = trajectory(chain, schedule)
        with chain.inner.circumstances.entered():
            watch = chain.inner.watch()
            final = ctx.trajectory.record(Snapshot(0, w.detach(), slots), xs, watch)
            watch.close()
        # A slot that a rule passes on unchanged must not be returned as the very tensor that came in.
        return (final.w, *(slot.clone() if slot is old else slot for slot, old in zip(final.slots, slots)))

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
        taken, ctx.trajectory = ctx.trajectory, None

        needs_lr, *needed = ctx.needs_input_grad[3:4] + ctx.needs_input_grad[5:]
        needs_start = any(needed[: 1 + ctx.n_slots])
        wrt = [i for i, need in enumerate(needed[1 + ctx.n_slots :]) if need]
        xs_ = {i: torch.zeros_like(xs[i], memory_format=torch.contiguous_format) for i in wrt}
        rates_: list[Tensor] = []
        # These are overwritten; what autograd hands in may be shared with other nodes.
        w_ = w_.clone(memory_format=torch.contiguous_format)
        slots_ = tuple(slot_.clone(memory_format=torch.contiguous_format) for slot_ in slots_)
        w_views = inner.views(w_)

        with inner.circumstances.entered():
            if taken is None:
                taken = trajectory(chain, ctx.schedule)
                taken.record(Snapshot(0, w0.detach(), slots0), xs, None)
            for state in taken.backwards(xs):
                t = chain.first + state.at
                want_w = state.at > 0 or needs_start

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

                hvp, mixed = ctx.product(inner, state.w, xs, wrt, t, state.g, direction, want_w)
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
                del state, direction

        lr_all = None
        if needs_lr:
            like = ctx.lr_like
            lr_all = like.new_zeros(like.shape)
            lr_all[chain.first : chain.last] = torch.stack(rates_[::-1]).to(like)
        adjoints = [w_, *slots_, *(xs_.get(i) for i in range(len(xs)))]
        return (None, None, None, lr_all, None, *(a if n else None for a, n in zip(adjoints, needed)))
