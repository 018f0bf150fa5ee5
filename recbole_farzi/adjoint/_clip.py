"""Clipping of the inner gradient by its norm, and the adjoint of that."""

from typing import Optional

import torch
from torch import Tensor

from ._rule import safe_sqrt

_GUARD = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def clip(g: Tensor, bound: Optional[float]) -> Tensor:
    """`g min(1, bound / (|g| + 1e-6))`, as `torch.nn.utils.clip_grad_norm_`; `g`, `[n]`."""
    if bound is None:
        return g
    norm = safe_sqrt(torch.dot(g, g))
    return g * (bound / (norm + _GUARD)).clamp(max=1.0)


def clip_adjoint(g: Tensor, u_: Tensor, bound: Optional[float]) -> Tensor:
    """The adjoint of `g` from that of u = `clip(g, bound)`.

    With n = |g| and c = bound / (n + 1e-6):  g_ = u_ where c >= 1,
    and g_ = c u_ - c / (n + 1e-6) (u_ . g) g / n elsewhere.
    """
    if bound is None:
        return u_
    norm = torch.dot(g, g).sqrt()
    c = bound / (norm + _GUARD)
    # n is 0 only where g is, and then the second term is 0: any positive stand-in for n will do.
    along = torch.dot(u_, g) * c / ((norm + _GUARD) * norm.clamp(min=torch.finfo(g.dtype).tiny))
    return torch.where(c >= 1, u_, c * u_ - along * g)
