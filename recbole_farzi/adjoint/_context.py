"""The circumstances under which the inner loss is evaluated: the same forward and in reverse."""

import contextlib
import functools
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Optional

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_MASK = (1 << 64) - 1


class Circumstances:
    """Kernels, autocast and random numbers for every evaluation of one inner loop.

    cuDNN's recurrent kernels and fused attention have no second derivative, so both are off, for the
    forward loop too: a fused kernel would draw other dropout masks than the one that replays them.

    Args:
        device: where the parameters are.
        seed: see `unroll`; None leaves the random numbers alone.
    """

    def __init__(self, device: torch.device, seed: Optional[int]):
        self._device = device
        self._seed = seed
        # Backward may be called outside the caller's autocast block: remember what forward saw.
        self._autocast = torch.is_autocast_enabled(device.type)
        self._autocast_dtype = torch.get_autocast_dtype(device.type)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Everything that holds for a whole loop; leaves the caller's generators as they were."""
        with contextlib.ExitStack() as stack:
            _tell(self._device.type)
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self._autocast:
                # Autocast is for the loss; derivatives run in the types that its operations chose.
                stack.enter_context(torch.autocast(self._device.type, enabled=False))
            if self._seed is not None:
                devices = [self._device] if self._device.type == "cuda" else []
                stack.enter_context(torch.random.fork_rng(devices=devices))
            yield

    @property
    def kind(self) -> tuple[bool, torch.dtype]:
        """What the derivatives of a loss that is not random depend on here."""
        return self._autocast, self._autocast_dtype

    def evaluation(self, step: Optional[int]) -> AbstractContextManager[object]:
        """What holds for one evaluation of the loss at `step`, None for any. Only inside `entered`."""
        if step is not None:
            self._reseed(step)
        if not self._autocast:
            return contextlib.nullcontext()
        # Cached casts would carry the graph of one step into the next.
        return torch.autocast(self._device.type, self._autocast_dtype, cache_enabled=False)

    def _reseed(self, step: int) -> None:
        if self._seed is None:
            return
        seed = mix(self._seed, step)
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            index = torch.cuda.current_device() if self._device.index is None else self._device.index
            torch.cuda.default_generators[index].manual_seed(seed)


@functools.cache
def _tell(device: str) -> None:
    """Once for each type of device: the user's layers may be slower here than elsewhere."""
    kernels = "cuDNN and fused attention" if device == "cuda" else "fused attention"
    logging.getLogger(__name__).info("inner loops run without %s, which have no second derivative", kernels)


def mix(seed: int, step: int) -> int:
    """A 63-bit seed from (seed, step): the finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    z = (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 1
