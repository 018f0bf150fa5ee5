"""Every error that this package raises on purpose; all derive from `AdjointError`."""


class AdjointError(RuntimeError):
    """Base of the package's errors."""


class OptionError(AdjointError, ValueError):
    """An argument whose value makes no sense (steps < 1, a negative learning rate, ...)."""


class BatchError(OptionError):
    """`batches` is not one vector of row numbers for each step."""


class MemoryBudgetError(OptionError):
    """The memory budget does not hold a single state."""


class LossShapeError(AdjointError, ValueError):
    """The inner loss returned something else than a scalar tensor."""


class NotDifferentiableError(AdjointError):
    """The inner loss depends on no trained parameter in a way that autograd can see."""


class NoSecondDerivativeError(AdjointError):
    """A second derivative that is not there: of an operation in the inner loss, or of the adjoint itself."""


class NonFiniteError(AdjointError, ArithmeticError):
    """A loss or a gradient in the inner loop is infinite or not a number.

    Attributes:
        step: the step at which it arose, counted as the loss sees it.
        what: `"loss"` or `"gradient"`.
    """

    def __init__(self, step: int, what: str):
        super().__init__(f"non-finite {what} at inner step {step}")
        self.step = step
        self.what = what

    def __reduce__(self):
        return type(self), (self.step, self.what)
