"""The one function that ties loss, update rule and adjoint together."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Optional, Union

import torch
from torch import Tensor

from ._adjoint import Adjoint, Call, StoreAll
from ._errors import BatchError, OptionError
from ._inner import InnerLoop, Loss
from ._rule import LearningRate, Rule, Slots
from ._state import State

Params = dict[str, Tensor]


def unroll(
    loss: Loss,
    params: Mapping[str, Tensor],
    data: Any,
    *,
    optimizer: Rule,
    steps: int,
    adjoint: Optional[Adjoint] = None,
    batches: Optional[Sequence[Tensor]] = None,
    state: Optional[State] = None,
    seed: Optional[int] = None,
    product: str = "auto",
    clip_norm: Optional[float] = None,
    return_state: bool = False,
    on_step: Optional[Callable[[int, Tensor], None]] = None,
    frozen: Collection[str] = (),
) -> Union[Params, tuple[Params, State]]:
    """Train `params` on `loss` for `steps` steps; the result can be differentiated.

    Gradients flow, exactly, to every tensor that requires one among: the leaves of `data`, `params` (frozen ones
    too), the learning rate of `optimizer`, and the slots of `state`. What the loss reads in another way (a closure)
    is a constant: no gradient reaches it. While the loop runs, forward and in reverse, cuDNN and fused attention are
    switched off, since they have no second derivative.

    Several initialisations at once: stack them in front (`[k, ...]`) and let the loss be the *sum* of
    `torch.func.vmap` of the single one; every rule is element-wise, so each is trained as if alone (not with
    `clip_norm`, whose norm is that of all).

    Args:
        loss: `loss(params, data, step)`, a 0-d tensor. Must be twice differentiable by autograd, and a
            function of its arguments (and of random numbers, if `seed` is given) alone. `step` counts
            from the state's step, 0 for a fresh one.
        params: named tensors of any shape, as `torch.func.functional_call` has them. All floating ones are trained,
            whether they require a gradient or not, except for those in `frozen`. The trained ones
            share a dtype and a device. They are not changed.
        data: any pytree of tensors (dict, tuple, list, ...) and other values.
        optimizer: the update rule, with its learning rate.
        steps: T, at least 1.
        adjoint: the strategy; `StoreAll()` if None.
        batches: for each step, the rows that it reads: T integer vectors. The loss then gets each tensor leaf of
            `data`, of shape `[rows, ...]`, cut to `[batch, ...]`; reversing a step costs its batch, not all rows.
            0-d leaves are passed whole.
        state: the optimiser's state to start from, as returned with `return_state`; None is a fresh one.
        seed: seeds PyTorch's generators (CPU's, and the parameters' CUDA device's) from (seed, step) before each
            evaluation of the loss, so that dropout draws the same masks forward, when recomputed and in reverse;
            your own generators are left as they were. With None the loss must be deterministic: the
            gradient of one with dropout would be wrong.
        product: how a reverse step's products are taken: `"reverse"` (double backward), `"forward"` (`torch.func.jvp`
            of the gradient; needs forward derivatives of every operation; each state held is one vector larger),
            or `"auto"`, which is reverse, the faster one of the two in eager PyTorch on a CPU.
        clip_norm: if given, each step's gradient is scaled down to at most this global 2-norm, before weight decay,
            like `torch.nn.utils.clip_grad_norm_`; differentiated exactly.
        return_state: whether to return the optimiser's state, too.
        on_step: called forward as `on_step(step, value)` with the detached 0-d loss of each step; not again when
            a step is recomputed. `float(value)` waits for the device.
        frozen: names of `params` that are passed to the loss as they are.

    Returns:
        The trained parameters, a dict in the order of `params` (frozen ones as they came in); with `return_state`, a
        pair of that and a `State`, which can be differentiated as well.

    Raises:
        OptionError: for a value that makes no sense.
        BatchError: if `batches` is not T integer vectors.
        MemoryBudgetError: if the memory budget of `Checkpointed` is too small.
        LossShapeError: if the loss is not a 0-d tensor.
        NotDifferentiableError: if the loss depends on no trained parameter.
        NonFiniteError: if a loss or gradient of the inner loop is not finite; it names the (first) step.
        NoSecondDerivativeError: (most from the backward pass) if an operation of the loss has no second derivative, or if
            the backward pass itself is to be differentiated (`create_graph`), which only `Unrolled` can.
    """
    adjoint = StoreAll() if adjoint is None else adjoint
    trained = _check(params, optimizer, steps, adjoint, product, clip_norm, frozen)
    batches = _check_batches(batches, steps, params[trained[0]].device)
    lr = _learning_rate(optimizer, steps)
    inner = InnerLoop(
        loss,
        optimizer,
        params,
        trained,
        data,
        batches=batches,
        start=0 if state is None else int(state.step),
        seed=seed,
        clip_norm=clip_norm,
        on_step=on_step,
    )
    w = inner.join([params[name] for name in trained])
    slots = optimizer.init(w.detach()) if state is None else _flatten(state, optimizer, inner, params, trained)
    call = Call(inner, steps, w, slots, inner.xs, lr, "reverse" if product == "auto" else product)
    taken, w, slots = adjoint.run(call)

    final = inner.named(w)
    result = {name: final.get(name, value) for name, value in params.items()}
    if not return_state:
        return result
    named = {name: inner.named(slot) for name, slot in zip(optimizer.slots, slots)}
    return result, State(inner.start + taken, named)


def _check(
    params: Mapping[str, Tensor],
    optimizer: Rule,
    steps: int,
    adjoint: Adjoint,
    product: str,
    clip_norm: Optional[float],
    frozen: Collection[str],
) -> list[str]:
    """Refuse senseless arguments; the names of the trained parameters."""
    if not isinstance(optimizer, Rule):
        raise OptionError(f"optimizer must be an update rule of this package, not {type(optimizer).__name__}")
    if not isinstance(adjoint, Adjoint):
        raise OptionError(f"adjoint must be a strategy such as StoreAll(), not {adjoint!r}")
    if steps < 1:
        raise OptionError(f"steps must be at least 1, not {steps}")
    if product not in ("auto", "reverse", "forward"):
        raise OptionError(f'product must be "auto", "reverse" or "forward", not {product!r}')
    if clip_norm is not None and not clip_norm > 0:
        raise OptionError(f"clip_norm must be above 0, not {clip_norm}")
    if isinstance(frozen, str):
        raise OptionError(f"frozen must be a collection of names, not the string {frozen!r}")
    unknown = set(frozen) - set(params)
    if unknown:
        raise OptionError(f"frozen names no parameter: {', '.join(sorted(unknown))}")
    trained = [name for name, p in params.items() if p.is_floating_point() and name not in frozen]
    if not trained:
        raise OptionError("there is no floating-point parameter to train")
    kinds = sorted({f"{params[name].dtype} on {params[name].device}" for name in trained})
    if len(kinds) > 1:
        raise OptionError(f"the trained parameters must share a dtype and a device, not {', '.join(kinds)}")
    return trained


def _check_batches(
    batches: Optional[Sequence[Tensor]], steps: int, device: torch.device
) -> Optional[list[Tensor]]:
    if batches is None:
        return None
    batches = list(batches)
    if len(batches) != steps:
        raise BatchError(f"batches must hold one vector for each of the {steps} steps, not {len(batches)}")
    for t, rows in enumerate(batches):
        if not isinstance(rows, Tensor) or rows.dim() != 1 or rows.dtype not in (torch.int64, torch.int32):
            raise BatchError(f"batches[{t}] must be a vector of row numbers (int64)")
    return [rows.to(device) for rows in batches]


def _learning_rate(optimizer: Rule, steps: int) -> Union[float, Tensor]:
    lr: LearningRate = optimizer.lr
    if not isinstance(lr, Tensor):
        if not isinstance(lr, Sequence):
            return float(lr)
        lr = torch.tensor(lr, dtype=torch.float64)
    if lr.dim() == 1 and lr.numel() != steps:
        raise OptionError(f"lr must hold one value for each of the {steps} steps, not {lr.numel()}")
    return lr


def _flatten(
    state: State, optimizer: Rule, inner: InnerLoop, params: Mapping[str, Tensor], trained: Sequence[str]
) -> Slots:
    if state.step < 0:
        raise OptionError(f"the state's step must be at least 0, not {state.step}")
    if set(state.slots) != set(optimizer.slots):
        wanted = ", ".join(optimizer.slots)
        raise OptionError(f"the state of a {type(optimizer).__name__} has slots {wanted}, not {', '.join(state.slots)}")
    for slot, tensors in state.slots.items():
        for name in trained:
            if name not in tensors or tensors[name].shape != params[name].shape:
                raise OptionError(f"slot {slot} of the state has no tensor in the shape of parameter {name}")
    like = params[trained[0]]
    return tuple(
        inner.join([state.slots[slot][name] for name in trained]).to(like.device, like.dtype)
        for slot in optimizer.slots
    )
