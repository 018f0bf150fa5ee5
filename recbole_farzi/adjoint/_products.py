"""The two products of a reverse step: Hessian-vector, and mixed.

For an inner loss L(w, x) and a direction g_ (the adjoint of the gradient) both functions compute

    hvp   = H(w) g_                  = d/dw  (grad_w L . g_)
    mixed = (d/dx grad_w L)^T g_     = d/dx  (grad_w L . g_)

in one pass that yields the gradient, too. g_ depends on the gradient, so it is asked for by a call.

Signature of both: `(inner, w, xs, wrt, t, known, direction, want_w) -> (hvp, mixed)`, with

    w: flat parameters, `[n]`; xs: detached; wrt: the indices of `xs` that want a gradient; t: the step
    known: the flat gradient at `w` if it is at hand
    direction: gets the flat gradient, returns g_, `[n]`
    want_w: whether hvp is wanted
    hvp: one tensor (or None for 0) for each trained parameter, or None if not wanted
    mixed: one tensor (or None for 0) for each of `wrt`, shaped as the loss read it (a batch, maybe)
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

import torch
from torch import Tensor

from ._errors import AdjointError, NoSecondDerivativeError
from ._inner import InnerLoop

Products = tuple[Optional[list[Optional[Tensor]]], list[Optional[Tensor]]]
Direction = Callable[[Tensor], Tensor]

_SIGNS = ("derivative for", "twice", "double backward", "not implemented", "not been implemented", "not support")


@contextlib.contextmanager
def _second_derivative(hint: str) -> Iterator[None]:
    try:
        yield
    except AdjointError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        if not any(sign in str(error) for sign in _SIGNS):
            raise
        raise NoSecondDerivativeError(f"an operation of the inner loss {hint}: {error}") from error


def reverse(
    inner: InnerLoop,
    w: Tensor,
    xs: Sequence[Tensor],
    wrt: Sequence[int],
    t: int,
    known: Optional[Tensor],
    direction: Direction,
    want_w: bool,
) -> Products:
    """Double backward: one gradient with its graph, and one vector-Jacobian product of it."""
    return _double_backward(inner, w, inner.read(xs, t), wrt, t, direction, want_w)


def _double_backward(
    inner: InnerLoop,
    w: Tensor,
    read: list[Tensor],
    wrt: Sequence[int],
    t: Optional[int],
    direction: Direction,
    want_w: bool,
) -> Products:
    ws = [view.detach().requires_grad_() for view in inner.views(w)]
    for i in wrt:
        # A leaf of this step's own: xs itself must not collect a graph.
        read[i] = read[i].detach().requires_grad_()
    with _second_derivative("has no double backward"):
        _, grads = inner.differentiate(ws, read, t, create_graph=True)
        g_ = direction(inner.join([g.detach() for g in grads]))
        pairs = [(g, d) for g, d in zip(grads, inner.views(g_)) if g.requires_grad]
        targets = (ws if want_w else []) + [read[i] for i in wrt]
        if not pairs or not targets:
            return ([None] * len(ws) if want_w else None), [None] * len(wrt)
        outputs, directions = zip(*pairs)
        products = list(torch.autograd.grad(outputs, targets, directions, allow_unused=True))
    return (products[: len(ws)] if want_w else None), products[len(ws) if want_w else 0 :]


def prepared(
    inner: InnerLoop,
    w: Tensor,
    xs: Sequence[Tensor],
    wrt: Sequence[int],
    t: int,
    known: Optional[Tensor],
    direction: Direction,
    want_w: bool,
) -> Products:
    """Double backward as the loss has prepared it; as it is, if it could not be."""
    assert inner.prepared is not None
    read = inner.read(xs, t)

    def both(w: Tensor, d: Tensor, *read: Tensor) -> Sequence[Tensor]:
        hvp, mixed = _double_backward(inner, w, list(read), wrt, None, lambda g: d, True)
        assert hvp is not None
        views = inner.views(w)
        whole = inner.join([torch.zeros_like(v) if h is None else h for h, v in zip(hvp, views)])
        return [whole, *(torch.zeros_like(read[i]) if x is None else x for i, x in zip(wrt, mixed))]

    run = inner.prepared.product(inner.layout, wrt, both, [w, torch.zeros_like(w), *read])
    if run is None:
        return reverse(inner, w, xs, wrt, t, known, direction, want_w)
    if known is None:
        _, known = inner.gradient(w, xs, t)
    hvp, *mixed = run(w, direction(known), *read)
    return inner.views(hvp), mixed


def forward(
    inner: InnerLoop,
    w: Tensor,
    xs: Sequence[Tensor],
    wrt: Sequence[int],
    t: int,
    known: Optional[Tensor],
    direction: Direction,
    want_w: bool,
) -> Products:
    """Forward over reverse: `torch.func.jvp`, along g_, of the gradient for (w, x)."""
    if known is None:
        _, known = inner.gradient(w, xs, t)
    g_ = direction(known)
    read = inner.read(xs, t)

    def loss(ws: list[Tensor], wanted: list[Tensor]) -> Tensor:
        full = list(read)
        for i, x in zip(wrt, wanted):
            full[i] = x
        return inner.evaluate(ws, full, t)

    wanted = [read[i] for i in wrt]
    gradient = torch.func.grad(loss, argnums=(0, 1))
    with _second_derivative('has no forward derivative (product="reverse" may do)'):
        _, (hvp, mixed) = torch.func.jvp(lambda ws: gradient(ws, wanted), (inner.views(w),), (inner.views(g_),))
    return (list(hvp) if want_w else None), list(mixed)
