"""Adam."""

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor

from ._errors import OptionError
from ._rule import LearningRate, Rule, Scalar, Slots, check_lr, check_range, over_sqrt, safe_sqrt


@dataclasses.dataclass(frozen=True, eq=False)
class Adam(Rule):
    r"""Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1), as `torch.optim.Adam` has it.

    With c1 = 1 - b1^t and c2 = 1 - b2^t, forward:

        g  = dL/dw + weight_decay * w
        m' = b1 m + (1 - b1) g
        v' = b2 v + (1 - b2) g^2
        s  = sqrt(v' / c2 + eps_root),  r = s + eps
        w' = w - lr (m' / c1) / r

    Adjoint (chain rule over the five lines, last to first):

        lr_ = -sum(w_ m' / (c1 r))
        m_ += -lr / (c1 r) w_
        v_ += lr m' / (c1 r^2) / (2 s c2) w_          (0 where s = 0)
        g_  = (1 - b1) m_ + 2 (1 - b2) g v_
        w_ += weight_decay g_ + H g_                  (the second term is the caller's)
        m_ *= b1,  v_ *= b2

    Args:
        lr: learning rate: a number, a 0-d tensor, or one value per step.
        betas: decay of the first and of the second moment, each in [0, 1).
        eps: added to the root. It bounds the derivative of the update by lr / eps, and so decides how
            long an unroll can be before its gradient is chaotic; 1e-8 is PyTorch's, 1e-5 is calmer.
        eps_root: added under the root; smooths the update where the second moment is tiny.
        weight_decay: L2 penalty, added to the gradient (`AdamW` has the decoupled kind).
        amsgrad: not offered; `True` is refused.

    Raises:
        OptionError: for a value out of range.
    """

    lr: LearningRate = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    eps_root: float = 0.0
    weight_decay: float = 0.0
    amsgrad: bool = False

    slots: ClassVar[tuple[str, ...]] = ("m", "v")

    def __post_init__(self) -> None:
        check_lr(self.lr)
        if len(self.betas) != 2:
            raise OptionError(f"betas must be two numbers, not {self.betas}")
        for name, beta in zip(("betas[0]", "betas[1]"), self.betas):
            check_range(name, beta, 0.0, 1.0)
        check_range("eps", self.eps, 0.0)
        check_range("eps_root", self.eps_root, 0.0)
        check_range("weight_decay", self.weight_decay, 0.0)
        if self.amsgrad:
            raise OptionError("amsgrad is not offered: its running maximum is not implemented")

    def _moments(self, w: Tensor, g: Tensor, slots: Slots) -> tuple[Tensor, Tensor, Tensor]:
        b1, b2 = self.betas
        if self.weight_decay:
            g = g.add(w, alpha=self.weight_decay)
        m = slots[0].lerp(g, 1 - b1)
        v = slots[1].mul(b2).addcmul(g, g, value=1 - b2)
        return g, m, v

    def _root(self, v: Tensor, t: int) -> Tensor:
        c2 = 1 - self.betas[1] ** t
        # Without eps_root in PyTorch's own order of operations, to agree with it to the last bits.
        return safe_sqrt(v).div(math.sqrt(c2)) if not self.eps_root else safe_sqrt(v.div(c2).add(self.eps_root))

    def step(self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int) -> tuple[Tensor, Slots]:
        _, m, v = self._moments(w, g, slots)
        r = self._root(v, t).add(self.eps)
        return w - (lr / (1 - self.betas[0] ** t)) * (m / r), (m, v)

    def adjoint(
        self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int, w_: Tensor, slots_: Slots
    ) -> tuple[Tensor, Tensor]:
        b1, b2 = self.betas
        c1, c2 = 1 - b1**t, 1 - b2**t
        m_, v_ = slots_
        g, m, v = self._moments(w, g, slots)
        s = self._root(v, t)
        r = s + self.eps
        q = w_ / r
        lr_ = torch.dot(q, m).div(-c1)
        q.mul_(lr / c1)  # q = lr w_ / (c1 r)
        m_.sub_(q)
        v_.add_(over_sqrt(q.mul_(m).div_(r), s), alpha=0.5 / c2)
        g_ = torch.addcmul(m_ * (1 - b1), g, v_, value=2 * (1 - b2))
        if self.weight_decay:
            w_.add_(g_, alpha=self.weight_decay)
        m_.mul_(b1)
        v_.mul_(b2)
        return g_, lr_
