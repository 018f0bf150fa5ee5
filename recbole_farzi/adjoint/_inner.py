"""The inner loop, on flat vectors: what one step evaluates, forward."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import _pytree as pytree

from ._clip import clip
from ._context import Circumstances
from ._errors import LossShapeError, NonFiniteError, NoSecondDerivativeError, NotDifferentiableError
from ._prepared import AnyStep, Loss, PreparedLoss
from ._rule import Rule, Scalar, Slots


class InnerLoop:
    """A loss, a rule and the layout of parameters and data: all that is constant over the steps.

    `w` is the flat vector of trained parameters; `xs` are the tensors that the loss reads besides:
    the tensor leaves of the data, then the frozen parameters. Steps are counted from 0 within the
    loop; the loss and the rule see them shifted by `start`.

    Attributes:
        start: steps that were taken before this loop.
        device: where the parameters are.
        circumstances: to be entered around any evaluation.
        prepared: the loss, if it says how its derivatives are run.
        examines: whether the next graph is to be looked through for what cannot be differentiated twice.
    """

    def __init__(
        self,
        loss: Loss,
        rule: Rule,
        params: Mapping[str, Tensor],
        trained: Sequence[str],
        data: Any,
        *,
        batches: Optional[Sequence[Tensor]],
        start: int,
        seed: Optional[int],
        clip_norm: Optional[float],
        on_step: Optional[Callable[[int, Tensor], None]],
    ):
        self._loss = loss
        self.prepared = loss if isinstance(loss, PreparedLoss) else None
        self.rule = rule
        self.start = start
        self.clip_norm = clip_norm
        self._on_step = on_step
        self._batches = batches

        self._names = tuple(params)
        self._trained = tuple(trained)
        self._shapes = [params[name].shape for name in trained]
        self._sizes = [params[name].numel() for name in trained]
        self._frozen = tuple(name for name in params if name not in set(trained))

        leaves, self._tree = pytree.tree_flatten(data)
        self._leaves = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._tensor_at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.xs = [leaves[i] for i in self._tensor_at] + [params[name] for name in self._frozen]
        self.device = params[self._trained[0]].device
        self.circumstances = Circumstances(self.device, seed)
        self.examines = False

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """One flat vector, `[n]`, from a tensor for each trained parameter."""
        return torch.cat([tensor.reshape(-1) for tensor in tensors])

    def views(self, flat: Tensor) -> list[Tensor]:
        """A view of the flat vector for each trained parameter, in its shape."""
        return [part.view(shape) for part, shape in zip(flat.split(self._sizes), self._shapes)]

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """The flat vector as a dict of the trained parameters' names."""
        return dict(zip(self._trained, self.views(flat)))

    def is_batched(self, i: int) -> bool:
        """Whether `xs[i]` is read by rows of the step's batch: data is, unless it has no rows."""
        return self._batches is not None and i < len(self._tensor_at) and self.xs[i].dim() > 0

    def rows(self, t: int) -> Tensor:
        """The rows of step `t`'s batch, on the device of what they index."""
        assert self._batches is not None
        return self._batches[t]

    def read(self, xs: Sequence[Tensor], t: int) -> list[Tensor]:
        """What the loss sees of `xs` at step `t`."""
        if self._batches is None:
            return list(xs)
        rows = self._batches[t]
        return [x.index_select(0, rows) if self.is_batched(i) else x for i, x in enumerate(xs)]

    def evaluate(self, ws: Sequence[Tensor], xs: Sequence[Tensor], t: Optional[int]) -> Tensor:
        """The loss at step `t`, checked; `ws` are the trained parameters, `xs` from `read`.

        With None for `t`, the loss at whatever step: it fails if it looks at that.
        """
        given = dict(zip(self._trained, ws))
        given.update(zip(self._frozen, xs[len(self._tensor_at) :]))
        leaves = list(self._leaves)
        for i, x in zip(self._tensor_at, xs):
            leaves[i] = x
        named = {name: given[name] for name in self._names}
        tree = pytree.tree_unflatten(leaves, self._tree)
        step: Any = AnyStep() if t is None else self.start + t
        with self.circumstances.evaluation(None if t is None else step):
            value = self._loss(named, tree, step)
        if not isinstance(value, Tensor) or value.dim() != 0:
            what = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise LossShapeError(f"the inner loss must return a 0-d tensor, not {what}")
        return value

    def differentiate(
        self, ws: Sequence[Tensor], xs: Sequence[Tensor], t: Optional[int], create_graph: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss at step `t` and its gradient for each of `ws`, which must require one."""
        with torch.enable_grad():
            value = self.evaluate(ws, xs, t)
        if not value.requires_grad:
            raise NotDifferentiableError(
                "the inner loss has no gradient: it depends on no trained parameter, or cuts the graph (detach, no_grad, item)"
            )
        if self.examines:
            self.examines = False
            refuse_once_differentiable(value)
        grads = torch.autograd.grad(value, ws, create_graph=create_graph, allow_unused=True)
        if all(g is None for g in grads):
            raise NotDifferentiableError("the inner loss depends on none of the trained parameters")
        return value, [torch.zeros_like(w) if g is None else g for w, g in zip(ws, grads)]

    def gradient(self, w: Tensor, xs: Sequence[Tensor], t: int) -> tuple[Tensor, Tensor]:
        """The loss at step `t`, and its gradient as a flat vector; no graph is kept. `xs` detached."""
        read = self.read(xs, t)
        if self.prepared is not None:
            run = self.prepared.gradient(self.layout, self._gradient, [w, *read])
            if run is not None:
                value, g = run(w, *read)
                return value, g
        return self._gradient(w, *read, t=t)

    def _gradient(self, w: Tensor, *read: Tensor, t: Optional[int] = None) -> tuple[Tensor, Tensor]:
        ws = [view.detach().requires_grad_() for view in self.views(w)]
        value, grads = self.differentiate(ws, read, t)
        return value.detach(), self.join(grads)

    @property
    def layout(self) -> Any:
        """All that the derivatives of the loss depend on but for its tensors."""
        names = self._names, self._trained, tuple(self._shapes)
        return names, tuple(self._leaves), tuple(self._tensor_at), self._tree, self.circumstances.kind

    def advance(
        self, w: Tensor, slots: Slots, xs: Sequence[Tensor], lr: Scalar, t: int, watch: Optional["Watch"] = None
    ) -> tuple[Tensor, Slots, Tensor]:
        """Step `t` without a graph: parameters and slots after it, and the gradient taken (unclipped)."""
        value, g = self.gradient(w, xs, t)
        if watch is not None:
            watch.see(self.start + t, value, g)
        w, slots = self.rule.step(w, clip(g, self.clip_norm), slots, lr, self.start + t + 1)
        return w, slots, g

    def watch(self) -> "Watch":
        """An observer of one forward loop."""
        return Watch(self._on_step)


_ONCE = once_differentiable(lambda ctx: None).__code__


def refuse_once_differentiable(value: Tensor) -> None:
    """Raise if a custom function with a once-differentiable backward is in the graph of `value`.

    Differentiated twice, such a function gives an error only if what flows into its backward requires a
    gradient; otherwise its second derivative is silently taken for 0.
    """
    seen, waiting = set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        function = getattr(node, "_forward_cls", None)
        backward = getattr(function, "backward", None)
        if getattr(backward, "__code__", None) is _ONCE:
            raise NoSecondDerivativeError(
                f"an operation of the inner loss has no double backward: {function.__name__} is once_differentiable"
            )
        waiting.extend(parent for parent, _ in node.next_functions)


class Watch:
    """Calls the user's callback, and finds the first step with a non-finite loss or gradient.

    On an accelerator the values are looked at when the loop is over, since each look waits for the device.
    """

    def __init__(self, on_step: Optional[Callable[[int, Tensor], None]]):
        self._on_step = on_step
        self._pending: list[tuple[int, Tensor, Tensor]] = []

    def see(self, step: int, value: Tensor, g: Tensor) -> None:
        """Take note of a step's loss, 0-d, and flat gradient."""
        value = value.detach()
        # The sum is finite only if all entries are, and the cheapest thing that tells.
        self._pending.append((step, value, g.detach().sum()))
        if value.device.type == "cpu":
            self.close()
        if self._on_step is not None:
            self._on_step(step, value)

    def close(self) -> None:
        """Raise `NonFiniteError` for the first bad step seen since the last call."""
        if not self._pending:
            return
        steps, values, sums = zip(*self._pending)
        self._pending = []
        if len(steps) == 1:
            table = [[values[0].item(), sums[0].item()]]
        else:
            table = torch.stack([torch.stack(values).double(), torch.stack(sums).double()], 1).tolist()
        for step, (value, total) in zip(steps, table):
            for what, number in (("loss", value), ("gradient", total)):
                if number - number != 0:  # infinite, or not a number
                    raise NonFiniteError(step, what)
