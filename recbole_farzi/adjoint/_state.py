"""The optimiser's state, as it is handed in and out."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class State(NamedTuple):
    """State of an update rule between two steps.

    Attributes:
        step: the number of steps taken so far; Adam's bias correction and the loss count from it.
        slots: for each slot of the rule (`"m"` and `"v"` for Adam, see `Rule.slots`) a dict of
            tensors, with the names and shapes of the trained parameters.
    """

    step: int
    slots: Mapping[str, Mapping[str, Tensor]]
