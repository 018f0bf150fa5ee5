"""Exact reverse-mode differentiation through inner optimisers, for any bilevel problem in PyTorch.

Train some parameters for T steps on a loss that reads some data, then ask for the gradient of what came
out with respect to the data, the initial parameters, the learning rate or the optimiser's state. No autograd graph
of the loop is kept: only states of the optimiser, and only as many as you like. It knows nothing of
recommendation, and needs PyTorch alone.

An example: a ridge regression whose penalty, one number, is chosen on held-out points. The true line has slope 2.

>>> import torch
>>> from recbole_farzi.adjoint import Adam, Checkpointed, unroll
>>> _ = torch.manual_seed(0)
>>> x, held_out = torch.randn(8, 1), torch.randn(50, 1)
>>> y = 2 * x + 0.5 * torch.randn(8, 1)
>>> def inner(params, data, step):
...     fit = (data["x"] @ params["slope"] - data["y"]).square().mean()
...     return fit + data["penalty"].exp() * params["slope"].square().sum()
>>> def outer(params):
...     return (held_out @ params["slope"] - 2 * held_out).square().mean()
>>> penalty = torch.tensor(0.0, requires_grad=True)
>>> start = {"slope": torch.zeros(1, 1)}
>>> search = torch.optim.Adam([penalty], lr=0.3)
>>> losses = []
>>> for _ in range(20):
...     data = {"x": x, "y": y, "penalty": penalty}
...     final = unroll(inner, start, data, optimizer=Adam(lr=0.1), steps=100, adjoint=Checkpointed())
...     search.zero_grad()
...     outer(final).backward()
...     search.step()
...     losses.append(float(outer(final)))
>>> losses[-1] < 0.1 * losses[0]
True

What is here: one verb, `unroll`; update rules (`Adam`, `AdamW`, `SGD`, `RMSprop`, `Adagrad`); strategies
(`StoreAll`, `Checkpointed`, `Truncated`, `Unrolled`); the optimiser's `State`; errors, all of which are `AdjointError`.
"""

from ._adagrad import Adagrad
from ._adam import Adam
from ._adamw import AdamW
from ._adjoint import Adjoint, Checkpointed, StoreAll, Truncated, Unrolled
from ._errors import (
    AdjointError,
    BatchError,
    LossShapeError,
    MemoryBudgetError,
    NonFiniteError,
    NoSecondDerivativeError,
    NotDifferentiableError,
    OptionError,
)
from ._rmsprop import RMSprop
from ._rule import Rule
from ._sgd import SGD
from ._state import State
from ._unroll import unroll

__all__ = [
    "Adagrad",
    "Adam",
    "AdamW",
    "Adjoint",
    "AdjointError",
    "BatchError",
    "Checkpointed",
    "LossShapeError",
    "MemoryBudgetError",
    "NoSecondDerivativeError",
    "NonFiniteError",
    "NotDifferentiableError",
    "OptionError",
    "RMSprop",
    "Rule",
    "SGD",
    "State",
    "StoreAll",
    "Truncated",
    "Unrolled",
    "unroll",
]
