"""Adagrad."""

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from ._rule import LearningRate, Rule, Scalar, Slots, check_lr, check_range, over_sqrt, safe_sqrt


@dataclasses.dataclass(frozen=True, eq=False)
class Adagrad(Rule):
    """Adagrad (Duchi, Hazan and Singer 2011), as `torch.optim.Adagrad` has it.

        g  = dL/dw + weight_decay * w
        v' = v + g^2
        s  = sqrt(v'),  r = s + eps,  l = lr / (1 + (t - 1) lr_decay)
        w' = w - l g / r

    Adjoint:

        lr_ = -sum(w_ g / r) / (1 + (t - 1) lr_decay)
        v_ += l g / r^2 / (2 s) w_                         (0 where s = 0)
        g_  = -l w_ / r + 2 g v_
        w_ += weight_decay g_ + H g_                       (the second term is the caller's)

    Args:
        lr: learning rate: a number, a 0-d tensor, or one value per step.
        lr_decay: decay of the learning rate with the step.
        eps: added to the root.
        initial_accumulator_value: `v` of a fresh state; above 0 it tames the first steps.
        weight_decay: L2 penalty, added to the gradient.

    Raises:
        OptionError: for a value out of range.
    """

    lr: LearningRate = 1e-2
    lr_decay: float = 0.0
    eps: float = 1e-10
    initial_accumulator_value: float = 0.0
    weight_decay: float = 0.0

    slots: ClassVar[tuple[str, ...]] = ("v",)

    def __post_init__(self) -> None:
        check_lr(self.lr)
        for name in ("lr_decay", "eps", "initial_accumulator_value", "weight_decay"):
            check_range(name, getattr(self, name), 0.0)

    def init(self, w: Tensor) -> Slots:
        return (torch.full_like(w, self.initial_accumulator_value),)

    def _accumulated(self, w: Tensor, g: Tensor, slots: Slots) -> tuple[Tensor, Tensor, Tensor]:
        if self.weight_decay:
            g = g.add(w, alpha=self.weight_decay)
        v = torch.addcmul(slots[0], g, g)
        return g, v, safe_sqrt(v)

    def step(self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int) -> tuple[Tensor, Slots]:
        g, v, s = self._accumulated(w, g, slots)
        return w - (lr / (1 + (t - 1) * self.lr_decay)) * (g / (s + self.eps)), (v,)

    def adjoint(
        self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int, w_: Tensor, slots_: Slots
    ) -> tuple[Tensor, Tensor]:
        (v_,) = slots_
        decay = 1 + (t - 1) * self.lr_decay
        g, _, s = self._accumulated(w, g, slots)
        r = s + self.eps
        q = w_ / r
        lr_ = torch.dot(q, g).div(-decay)
        q.mul_(lr / decay)
        g_ = -q
        v_.add_(over_sqrt(q.mul_(g).div_(r), s), alpha=0.5)
        g_.addcmul_(g, v_, value=2.0)
        if self.weight_decay:
            w_.add_(g_, alpha=self.weight_decay)
        return g_, lr_
