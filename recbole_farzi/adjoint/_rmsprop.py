"""RMSprop."""

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from ._rule import LearningRate, Rule, Scalar, Slots, check_lr, check_range, over_sqrt, safe_sqrt


@dataclasses.dataclass(frozen=True, eq=False)
class RMSprop(Rule):
    """RMSprop (Hinton, lecture 6e, 2012), centred after Graves 2013 (arXiv 1308.0850), as PyTorch has it.

        g  = dL/dw + weight_decay * w
        v' = alpha v + (1 - alpha) g^2
        a' = alpha a + (1 - alpha) g                       (centred only)
        s  = sqrt(v')   or   sqrt(max(v' - a'^2, 0))  centred;   r = s + eps
        b' = momentum b + g / r
        w' = w - lr b'

    The maximum guards against rounding below 0, which is NaN in `torch.optim`.

    Adjoint:

        lr_ = -sum(w_ b')
        b_ += -lr w_
        q   = -b_ g / r^2 / (2 s)                          (the adjoint of s^2; 0 where s = 0)
        v_ += q,  a_ += -2 a' q
        g_  = b_ / r + 2 (1 - alpha) g v_ + (1 - alpha) a_
        w_ += weight_decay g_ + H g_                       (the second term is the caller's)
        v_ *= alpha,  a_ *= alpha,  b_ *= momentum

    Args:
        lr: learning rate: a number, a 0-d tensor, or one value per step.
        alpha: decay of the second moment (and of the mean), in [0, 1).
        eps: added to the root.
        momentum: in [0, 1). The slots `a` and `b` are held even where they stay 0.
        centered: divide by the standard deviation in place of the root of the second moment.
        weight_decay: L2 penalty, added to the gradient.

    Raises:
        OptionError: for a value out of range.
    """

    lr: LearningRate = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    weight_decay: float = 0.0

    slots: ClassVar[tuple[str, ...]] = ("v", "a", "b")

    def __post_init__(self) -> None:
        check_lr(self.lr)
        check_range("alpha", self.alpha, 0.0, 1.0)
        check_range("eps", self.eps, 0.0)
        check_range("momentum", self.momentum, 0.0, 1.0)
        check_range("weight_decay", self.weight_decay, 0.0)

    def _averages(self, w: Tensor, g: Tensor, slots: Slots) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        v, a, _ = slots
        if self.weight_decay:
            g = g.add(w, alpha=self.weight_decay)
        v = v.mul(self.alpha).addcmul(g, g, value=1 - self.alpha)
        if not self.centered:
            return g, v, a, safe_sqrt(v)
        a = a.lerp(g, 1 - self.alpha)
        return g, v, a, safe_sqrt(v.addcmul(a, a, value=-1).clamp(min=0))

    def step(self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int) -> tuple[Tensor, Slots]:
        g, v, a, s = self._averages(w, g, slots)
        d = g / (s + self.eps)
        b = slots[2]
        if self.momentum:
            b = d = b * self.momentum + d
        return w - lr * d, (v, a, b)

    def adjoint(
        self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int, w_: Tensor, slots_: Slots
    ) -> tuple[Tensor, Tensor]:
        v_, a_, b_ = slots_
        g, _, a, s = self._averages(w, g, slots)
        r = s + self.eps
        d = g / r
        if self.momentum:
            lr_ = -torch.dot(w_, torch.add(d, slots[2], alpha=self.momentum))
            d_ = b_.sub_(lr * w_)
        else:
            lr_ = -torch.dot(w_, d)
            d_ = w_ * (-lr)
        g_ = d_ / r
        q = over_sqrt(d.mul_(g_), s)  # -2 q of the docstring
        v_.sub_(q, alpha=0.5)
        g_.addcmul_(g, v_, value=2 * (1 - self.alpha))
        v_.mul_(self.alpha)
        if self.centered:
            a_.addcmul_(a, q)
            g_.add_(a_, alpha=1 - self.alpha)
            a_.mul_(self.alpha)
        if self.momentum:
            b_.mul_(self.momentum)
        if self.weight_decay:
            w_.add_(g_, alpha=self.weight_decay)
        return g_, lr_
