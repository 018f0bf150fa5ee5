"""Stochastic gradient descent, with momentum."""

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from ._errors import OptionError
from ._rule import LearningRate, Rule, Scalar, Slots, check_lr, check_range


@dataclasses.dataclass(frozen=True, eq=False)
class SGD(Rule):
    """Gradient descent with (Nesterov) momentum, as `torch.optim.SGD` has it (Sutskever et al. 2013).

        g  = dL/dw + weight_decay * w
        b' = momentum b + a g           a = 1 - dampening, but 1 at the first step
        d  = g + momentum b'            with Nesterov momentum;   d = b' without
        w' = w - lr d

    Adjoint:

        lr_ = -sum(w_ d),  d_ = -lr w_
        b_ += momentum d_  (Nesterov)   or   b_ += d_
        g_  = a b_  (+ d_ for Nesterov)
        w_ += weight_decay g_ + H g_    (the second term is the caller's)
        b_ *= momentum

    Args:
        lr: learning rate: a number, a 0-d tensor, or one value per step.
        momentum: in [0, 1). The slot `b` is held even for 0.
        dampening: in [0, 1]; Nesterov momentum wants 0.
        nesterov: whether to look ahead; needs momentum.
        weight_decay: L2 penalty, added to the gradient.

    Raises:
        OptionError: for a value out of range.
    """

    lr: LearningRate = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    slots: ClassVar[tuple[str, ...]] = ("b",)

    def __post_init__(self) -> None:
        check_lr(self.lr)
        check_range("momentum", self.momentum, 0.0, 1.0)
        check_range("weight_decay", self.weight_decay, 0.0)
        if not 0 <= self.dampening <= 1:
            raise OptionError(f"dampening must be in [0, 1], not {self.dampening}")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise OptionError("Nesterov momentum needs momentum above 0 and dampening 0")

    def _direction(self, w: Tensor, g: Tensor, slots: Slots, t: int) -> tuple[Tensor, Tensor]:
        if self.weight_decay:
            g = g.add(w, alpha=self.weight_decay)
        b = (slots[0] * self.momentum).add(g, alpha=self._a(t)) if self.momentum else g
        return b, g.add(b, alpha=self.momentum) if self.nesterov else b

    def _a(self, t: int) -> float:
        # PyTorch uses dampening with momentum only, and not on the first gradient.
        return 1.0 if t == 1 or not self.momentum else 1.0 - self.dampening

    def step(self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int) -> tuple[Tensor, Slots]:
        b, d = self._direction(w, g, slots, t)
        return w - lr * d, (b if self.momentum else slots[0],)

    def adjoint(
        self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int, w_: Tensor, slots_: Slots
    ) -> tuple[Tensor, Tensor]:
        (b_,) = slots_
        _, d = self._direction(w, g, slots, t)
        lr_ = -torch.dot(w_, d)
        d_ = w_ * (-lr)
        if not self.momentum:
            g_ = d_  # the slot is passed on unchanged, and so is its adjoint
        elif self.nesterov:
            b_.add_(d_, alpha=self.momentum)
            g_ = d_.add_(b_, alpha=self._a(t))
            b_.mul_(self.momentum)
        else:
            b_.add_(d_)
            g_ = b_ * self._a(t)
            b_.mul_(self.momentum)
        if self.weight_decay:
            w_.add_(g_, alpha=self.weight_decay)
        return g_, lr_
