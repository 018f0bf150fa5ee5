"""AdamW."""

import dataclasses

import torch
from torch import Tensor

from ._adam import Adam
from ._rule import Scalar, Slots


@dataclasses.dataclass(frozen=True, eq=False)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101), as PyTorch has it.

        w' = (1 - lr weight_decay) w - (Adam's update, from a gradient without decay)

    Adjoint: Adam's, and then

        lr_ += -weight_decay sum(w w_)        (w_ after the step)
        w_  *= 1 - lr weight_decay            (before H g_ is added)

    Arguments and errors are those of `Adam`; only `weight_decay` means something else (1e-2 here).
    """

    weight_decay: float = 1e-2

    def _moments(self, w: Tensor, g: Tensor, slots: Slots) -> tuple[Tensor, Tensor, Tensor]:
        b1, b2 = self.betas
        return g, slots[0].lerp(g, 1 - b1), slots[1].mul(b2).addcmul(g, g, value=1 - b2)

    def step(self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int) -> tuple[Tensor, Slots]:
        return super().step(w * (1 - lr * self.weight_decay), g, slots, lr, t)

    def adjoint(
        self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int, w_: Tensor, slots_: Slots
    ) -> tuple[Tensor, Tensor]:
        after = w_.clone()
        g_, lr_ = super().adjoint(w, g, slots, lr, t, w_, slots_)
        if not self.weight_decay:
            return g_, lr_
        # Adam's own adjoint has added its coupled term to w_; this rule has none.
        torch.mul(after, 1 - lr * self.weight_decay, out=w_)
        return g_, lr_ - self.weight_decay * torch.dot(w, after)
