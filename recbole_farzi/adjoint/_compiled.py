"""Derivatives of a loss, compiled by `torch.compile`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ._prepared import Loss, PreparedLoss


class Compiled(PreparedLoss):
    """A loss whose gradient and products are traced and compiled, each once.

    Worth it for many calls on a loss with large element-wise parts (`benchmarks/adjoint.py` has figures for RecBole's
    SASRec); compiling took about 45 seconds of CPU time there. It needs what `torch.compile` needs: on a CPU a C++
    compiler. Gradients agree with uncompiled ones to rounding.

    Args:
        loss: as for `unroll`.
        backend: of `torch.compile`.

    PyTorch refuses a double backward of compiled functions; so the *derivatives* are traced (`make_fx`), then compiled.
    """

    def __init__(self, loss: Loss, backend: str = "inductor"):
        super().__init__(loss)
        self._backend = backend

    def _prepare(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., Any]:
        graph = make_fx(function)(*inputs)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        compiled = torch.compile(graph, backend=self._backend, fullgraph=True, dynamic=False)
        with torch.no_grad():
            compiled(*inputs)  # fails here, if it does
        return compiled
