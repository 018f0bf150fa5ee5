"""Derivatives of a loss as captured CUDA graphs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._prepared import PreparedLoss

_WARM_UPS = 3  # as PyTorch's own `make_graphed_callables`: libraries set themselves up on first use


class Captured(PreparedLoss):
    """A loss whose gradient and products are each captured once as a CUDA graph, and then replayed.

    For small models on a GPU, where launching the kernels takes longer than they do. The kernels are those of the
    uncaptured loss, and so are the results. The loss must launch the same kernels on the same shapes at every step, and
    must not wait for the device (`.item()`, `nonzero`). Each layout holds the memory of one gradient and one pair of
    products. On other devices this is the loss itself.
    """

    def _applies(self, device: torch.device) -> bool:
        return device.type == "cuda"

    def _prepare(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., Any]:
        held = [x.detach().clone(memory_format=torch.preserve_format) for x in inputs]
        device = held[0].device
        with torch.cuda.device(device), torch.no_grad():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    function(*held)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                outputs = function(*held)

        def replay(*given: Tensor) -> Sequence[Tensor]:
            with torch.cuda.device(device), torch.no_grad():
                torch._foreach_copy_(held, list(given))
                graph.replay()
                # The next replay writes to the same places.
                return [output.clone() for output in outputs]

        return replay
