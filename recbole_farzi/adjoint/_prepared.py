"""A loss whose gradient and products are prepared once for given shapes, and then run at every step."""

import abc
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ._errors import AdjointError

Loss = Callable[[dict[str, Tensor], Any, int], Tensor]
Gradient = Callable[..., tuple[Tensor, Tensor]]  # (w, *read) -> loss, 0-d, and flat gradient, [n]
Product = Callable[..., Sequence[Tensor]]  # (w, g_, *read) -> flat Hessian-vector product, [n], and mixed ones


class PreparedLoss(abc.ABC):
    """A loss for `unroll` that also says how its derivatives are to be run.

    Keep the object, and pass it to every call of `unroll`: what it prepares, it prepares once for each layout (names,
    shapes, dtypes, devices, values that are no tensors), never once a step or a call. Called, it is the loss itself.

    The loss must then be a function of `params` and `data` alone: it may pass its `step` on, but not look at it,
    and it must not be random (dropout); tensors that it finds elsewhere (buffers, closures) are read where they lay
    when it was prepared. A loss that cannot be prepared is run as it is; a warning says why, once.

    Args:
        loss: as for `unroll`.
    """

    def __init__(self, loss: Loss):
        self._loss = loss
        self._gradients: dict[Hashable, Optional[Gradient]] = {}
        self._products: dict[Hashable, Optional[Product]] = {}
        self._told = False

    def __call__(self, params: dict[str, Tensor], data: Any, step: int) -> Tensor:
        return self._loss(params, data, step)

    @abc.abstractmethod
    def _prepare(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., Any]:
        """A replacement for `function`, to be called with tensors like `inputs`."""

    def _applies(self, device: torch.device) -> bool:
        """Whether there is anything to prepare on this device."""
        return True

    def gradient(self, layout: Hashable, function: Gradient, inputs: Sequence[Tensor]) -> Optional[Gradient]:
        """`function`, prepared for tensors like `inputs`; None if it is to be run as it is."""
        return self._once(self._gradients, layout, function, inputs)

    def product(
        self, layout: Hashable, wrt: Sequence[int], function: Product, inputs: Sequence[Tensor]
    ) -> Optional[Product]:
        """The same for the products, in which `wrt` tensors want a gradient."""
        return self._once(self._products, (layout, tuple(wrt)), function, inputs)

    def _once(self, known: dict, layout: Hashable, function: Callable, inputs: Sequence[Tensor]) -> Any:
        if not self._applies(inputs[0].device):
            return None
        key = (layout, *((x.shape, x.dtype, x.device, x.stride()) for x in inputs))
        try:
            found = known.get(key, known)
        except TypeError:
            self._tell("a value in the data that is no tensor cannot be hashed")
            return None
        if found is known:
            found = known[key] = self._attempt(function, inputs)
        return found

    def _attempt(self, function: Callable, inputs: Sequence[Tensor]) -> Optional[Callable]:
        try:
            with _Draws() as draws:
                function(*inputs)
            if draws.found:
                self._tell("it is random")
                return None
            return self._prepare(function, inputs)
        except AdjointError as error:
            if not isinstance(error, StepReadError):
                raise
            self._tell(str(error))
        except Exception as error:  # of the loss or of a compiler: run as it is, it either works or tells better
            lines = str(error).strip().splitlines() or [""]
            self._tell(f"{type(error).__name__}: {lines[0]}")
        return None

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            warnings.warn(f"the inner loss is run as it is, without {type(self).__name__}: {why}", stacklevel=2)


class _Draws(TorchDispatchMode):
    """Notices operations that draw random numbers."""

    found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.found = True
        return func(*args, **(kwargs or {}))


class StepReadError(AdjointError):
    """A loss looks at its step where what it does is to be the same at every step."""


class AnyStep:
    """Stands for the step number in a loss that is prepared once for all steps; whoever reads it fails."""

    def _refuse(self, *args: Any) -> Any:
        raise StepReadError("it depends on its step")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __bool__ = _refuse  # type: ignore[assignment]
    __int__ = __float__ = __index__ = __hash__ = _refuse  # type: ignore[assignment]
    __str__ = __repr__ = __format__ = __getattr__ = _refuse  # type: ignore[assignment]
