"""Exact reverse-mode differentiation through inner optimisers, for any bilevel problem in PyTorch.

Train some parameters for T steps on a loss that reads some data, then ask for the gradient of what came
out with respect to the data, the initial parameters, the learning rate or the optimiser's state. No autograd graph
of the loop is kept: only states of the optimiser, and only as many as you like. It knows nothing of
recommendation, and needs PyTorch alone.

An example: ridge regression with a penalty for each of four features, chosen on other points. Only the first
feature matters, so its penalty should end lowest.

>>> import torch
>>> from recbole_farzi.adjoint import Adam, Checkpointed, unroll
>>> _ = torch.manual_seed(0)
>>> truth = torch.tensor([[2.0], [0.0], [0.0], [0.0]])
>>> x, held_out = torch.randn(8, 4), torch.randn(50, 4)
>>> y = x @ truth + 0.5 * torch.randn(8, 1)
>>> def inner_loss(params, data, step):
...     fit = (data["x"] @ params["w"] - data["y"]).square().mean()
...     return fit + (data["penalty"].exp() * params["w"].square()).sum()
>>> penalty = torch.zeros(4, 1, requires_grad=True)
>>> data = {"x": x, "y": y, "penalty": penalty}
>>> search = torch.optim.Adam([penalty], lr=0.5)
>>> losses = []
>>> for _ in range(15):
...     start = {"w": torch.zeros(4, 1)}
...     final = unroll(inner_loss, start, data, optimizer=Adam(lr=0.1), steps=50, adjoint=Checkpointed())
...     loss = (held_out @ final["w"] - held_out @ truth).square().mean()
...     search.zero_grad()
...     loss.backward()
...     search.step()
...     losses.append(loss.item())
>>> losses[-1] < 0.2 * losses[0]
True
>>> int(penalty.argmin())
0

What is here: one verb, `unroll`; update rules (`Adam`, `AdamW`, `SGD`, `RMSprop`, `Adagrad`); strategies
(`StoreAll`, `Checkpointed`, `Truncated`, `Unrolled`); `Compiled` and `Captured`, for losses that are differentiated
many times; the optimiser's `State`; errors, all of which are `AdjointError`.
"""

from ._adagrad import Adagrad
from ._adam import Adam
from ._adamw import AdamW
from ._adjoint import Adjoint, Checkpointed, StoreAll, Truncated, Unrolled
from ._captured import Captured
from ._compiled import Compiled
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
    "Captured",
    "Checkpointed",
    "Compiled",
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
