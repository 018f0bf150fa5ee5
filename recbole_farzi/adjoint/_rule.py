"""What an update rule is: a pure step, and the adjoint of that step.

All trained parameters of a loop lie in one flat vector `w` of `n` entries, and so does every slot
of the optimiser's state. A rule is therefore a handful of element-wise operations whatever the
number of parameters.

Adjoints are written with a trailing underscore: `w_` is dF/dw for the outer loss F.
"""

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Union

import torch
from torch import Tensor

from ._errors import OptionError

LearningRate = Union[float, Tensor, Sequence[float]]
Scalar = Union[float, Tensor]  # a learning rate at one step: a number, or a 0-d tensor
Slots = tuple[Tensor, ...]


class Rule(abc.ABC):
    """An update rule. Rules are immutable; the state is outside them.

    Attributes:
        slots: the names of the vectors that the state holds beside the parameters.
        lr: a number, a 0-d tensor, or one value for each step (1-d tensor or sequence).
    """

    slots: ClassVar[tuple[str, ...]]
    lr: Any

    def init(self, w: Tensor) -> Slots:
        """The slots of a fresh state for the flat parameters `w`, `[n]`."""
        return tuple(torch.zeros_like(w) for _ in self.slots)

    @abc.abstractmethod
    def step(self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int) -> tuple[Tensor, Slots]:
        """One update, out of place and differentiable by autograd.

        Args:
            w: parameters before the step, `[n]`.
            g: gradient of the inner loss at `w`, `[n]`.
            slots: the state before the step, `[n]` each.
            lr: learning rate of this step.
            t: number of this step, from 1.

        Returns:
            Parameters and slots after the step.
        """

    @abc.abstractmethod
    def adjoint(
        self, w: Tensor, g: Tensor, slots: Slots, lr: Scalar, t: int, w_: Tensor, slots_: Slots
    ) -> tuple[Tensor, Tensor]:
        """The step in reverse: from adjoints after the step to adjoints before it.

        `w_` and `slots_` hold the adjoints after the step and are overwritten, in place, by those
        before it, *all but the part of `w_` that comes through `g`*: the caller adds the
        Hessian-vector product H(w) g_ to it. The other arguments are those of `step`.

        Returns:
            `g_`, `[n]`, the adjoint of the gradient, and `lr_`, 0-d, that of the learning rate.
        """


def safe_sqrt(x: Tensor) -> Tensor:
    """sqrt, with derivative 0 (not infinity) at 0.

    An entry whose second moment is 0 has never seen a gradient: its m is 0 as well, and the true
    derivative of m / (sqrt(v) + eps) through v is 0 there, where the chain rule alone says 0 * inf.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return x.sqrt()
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, torch.ones_like(x)).sqrt(), torch.zeros_like(x))


def over_sqrt(x: Tensor, root: Tensor) -> Tensor:
    """`x / root` in place, 0 where `root` is 0: the derivative of `safe_sqrt`, less its factor 1/2."""
    return x.div_(root).masked_fill_(root == 0, 0.0)


def check_lr(lr: Any) -> None:
    """Refuse a learning rate that is negative, not finite, or neither 0-d nor 1-d."""
    if isinstance(lr, Tensor):
        if lr.dim() > 1 or not lr.is_floating_point():
            raise OptionError(f"lr must be a 0-d or 1-d floating tensor, not {lr.dtype} {list(lr.shape)}")
        values = lr.detach().reshape(-1).tolist()
    else:
        values = list(lr) if isinstance(lr, Sequence) else [lr]
    if not values or not all(math.isfinite(x) and x >= 0 for x in values):
        raise OptionError(f"lr must be finite and at least 0, not {lr}")


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a number outside `[low, high)`."""
    if not low <= value < high:
        bound = f"at least {low}" if high == math.inf else f"in [{low}, {high})"
        raise OptionError(f"{name} must be {bound}, not {value}")
