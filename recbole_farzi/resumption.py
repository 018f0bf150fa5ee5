"""Going on where a process was killed, to the last bit as if it never had been: random streams, when to save, and where
an interrupted run stood."""

import contextlib
import random
import time

import numpy as np
import torch

from recbole_farzi.errors import Interrupted

__all__ = ["Pace", "interruptible", "random_streams", "restore_random_streams"]


class Pace:
    """When to save: often, but never so that saving takes more than a small share of the time.

    What a kill costs is then at most ``1 / share`` times what one save takes, and the step that was under way.

    Args:
        share: largest share of the time that goes into saving, above 0 and at most 1.
        clock: function that returns seconds.
    """

    def __init__(self, share=0.05, clock=time.perf_counter):
        self.share = share
        self.clock = clock
        self._cost = 0.0
        self._last = clock()

    @property
    def due(self):
        """Whether it is time to save."""
        return (self.clock() - self._last) * self.share >= self._cost * (1 - self.share)

    @contextlib.contextmanager
    def saving(self):
        """The save happens inside."""
        begun = self.clock()
        yield
        self._last = self.clock()
        self._cost = self._last - begun


@contextlib.contextmanager
def interruptible(where):
    """Inside, Ctrl-C becomes an :class:`recbole_farzi.errors.Interrupted` that says where it came.

    Args:
        where: function that returns the place in words, "while ...".
    """
    try:
        yield
    except Interrupted:  # of a place within, which knows better
        raise
    except KeyboardInterrupt as error:
        raise Interrupted(where()) from error


def random_streams(device):
    """States of Python's, NumPy's and PyTorch's global generators, as plain values and tensors."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_streams(state, device):
    """Set the generators to what :func:`random_streams` returned."""
    random.setstate(state["python"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
