"""The outer loop: updates of ``Z``, ``M`` and ``b``. Knows nothing of RecBole.

What they are updated for is the objective (:mod:`recbole_farzi.objectives`):

* ``meta``, as in the paper: the outer loss, that of a student that was trained on the summary, on real windows or on ones that
  a teacher wrote, against real events or the teacher's predictions.
* ``gradient``: the gradients of a student on the summary and of the outer loss point the same way, before each W of its T steps of
  training on the summary. All synthetic sequences count, and neither gradient has dropout.
* ``trajectory``: W steps of training on the summary lead from one snapshot of an expert to its next.

``Z`` is a tensor of its own, or the product of Tucker's factors (:mod:`recbole_farzi.tucker`), which are then what is updated.

With ``meta`` a step trains an inner trajectory on the summary, differentiates the outer loss of the result through W of its
steps (exactly, :mod:`recbole_farzi.adjoint`), and updates the summary. With W = T that is a full unroll from an
initialisation, as in the paper. With W < T there are three ways:

* ``last``: T steps from an initialisation, the last W of them differentiated.
* ``random``: the same, ended after a random number of steps from W to T (Feng, Vedantam and Kempe, "Embarrassingly Simple
  Dataset Distillation", ICLR 2024).
* ``windows``: several trajectories are in flight, at different stages, and take turns, each advanced by W steps and begun
  anew after T (Vicol et al., "Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent Evolution
  Strategies", 2021, keep inner problems in flight likewise). ``gradient`` does the same. With ``meta`` the first steps of each,
  up to a share ``window_from`` of T, are only taken: what is good for a student half trained is not what is good for one trained.
"""

import contextlib
import logging
import math
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np
import torch

from recbole_farzi.adjoint import (
    Captured,
    Checkpointed,
    Compiled,
    NonFiniteError,
    State,
    StoreAll,
    Truncated,
    unroll,
)
from recbole_farzi.blockwise import SCORES_IN_MEMORY, blockwise_mean, rows_in_memory
from recbole_farzi.memory import is_out_of_memory
from recbole_farzi.objectives import gradient_distance, summary_gradient, trajectory_distance
from recbole_farzi.recovery import Recovery
from recbole_farzi.sequences import batch_order
from recbole_farzi.soft_events import LatentEvents, SoftEvents, soft_distributions
from recbole_farzi.summary import Summary
from recbole_farzi.tucker import compose, decompose
from recbole_farzi.update_rules import differentiable_rule

__all__ = ["Distiller", "OuterStep"]


_DECODER, _BIAS = " decoder", " bias"  # among the parameters of a model, none of which is called so

_LOSSES = {  # for people
    "meta": "a loss after the inner loop", "gradient": "a distance of gradients", "trajectory": "a distance of weights"
}  # fmt: skip


@dataclass(frozen=True)
class OuterStep:
    """What one outer step did.

    Attributes:
        loss: of the objective: cross-entropy on the outer loss's events after the window, in nats an event (``meta``), or the distance of
            gradients or of weights.
        gradient_norm: norm of its gradient before clipping; NaN if the step was skipped.
        inner_step: how far the trajectory had come before the outer step.
        skipped: the numbers went bad, nothing was updated and the trajectory was begun anew.
        reduced: what was reduced because of that, in a line (:mod:`recbole_farzi.recovery`), or None.
    """

    loss: float
    gradient_norm: float
    inner_step: int
    skipped: bool
    reduced: Optional[str] = None


@dataclass(frozen=True)
class _Trajectory:
    seed: int
    step: int
    params: dict
    slots: dict
    order: list


class Distiller:
    """Optimises a summary.

    Args:
        student: :class:`recbole_farzi.student.Student` that trains on the summary; its model's mode (dropout) is used as
            it is.
        judge: the same architecture without dropout, for the outer loss.
        start: :class:`recbole_farzi.summary.Summary` to begin from.
        inner: :class:`recbole_farzi.options.InnerOptions`.
        outer: :class:`recbole_farzi.options.OuterOptions`.
        initial: function from a seed to initial parameters ``{name: tensor}``.
        sequences: the real histories, :class:`recbole_farzi.sequences.Sequences`.
        teacher: a trained :class:`recbole_farzi.student.Student` or :class:`recbole_farzi.ensemble.Ensemble`, without
            dropout, whose predictions are part of the outer loss's targets where ``outer.teacher`` is above 0; or None.
        experts: for the objective ``trajectory``: parameters ``{name: tensor}`` of each expert at moments of its training, in
            their order; a tuple of tuples of at least two.
        ranks: ``(r1, r2)`` of Tucker's factors of ``Z``, or None for ``Z`` itself.
        seed: of everything random here. All draws depend on it and on counters alone, so that a run that is continued
            from :meth:`state` goes on as if never interrupted.

    Attributes:
        generated: :class:`recbole_farzi.sequences.Windows` that a trained model wrote, of which ``outer.generated_windows`` stand in
            a batch in place of real ones; None, as at first, for real ones alone.
    """

    def __init__(
        self, student, judge, start, inner, outer, initial, sequences, seed, teacher=None, experts=(), ranks=None
    ):
        self.student = student
        self.by_blocks = student.traits.by_blocks(start.events)
        self.inner_loss = self._loss_on_summary(student)
        if outer.kernels != "eager":  # kept: what is compiled or captured is so once
            self.inner_loss = {"compiled": Compiled, "captured": Captured}[outer.kernels](self.inner_loss)
        self.judge = judge
        self.inner = inner
        self.outer = outer
        self.initial = initial
        self.sequences = sequences
        self.generated = None
        self.teacher = teacher if outer.teacher > 0.0 else None
        self.seed = seed
        self.device = next(student.model.parameters()).device
        self.temperature = start.temperature
        self.inputs = None if start.inputs is None else start.inputs.to(self.device)
        self.experts = experts
        self.factorised = ranks is not None
        latent, *rest = (t.detach() for t in start.tensors)
        self.count = len(latent)
        tensors = [*(decompose(latent, ranks) if self.factorised else [latent]), *rest]
        self.tensors = [t.clone().to(self.device).requires_grad_(True) for t in tensors]
        self.averages = [t.detach().clone() for t in self.tensors]
        self._outer_gradient = {
            "meta": self._match_losses, "gradient": self._match_gradients, "trajectory": self._match_trajectories
        }[outer.objective]  # fmt: skip
        self.optimizer = torch.optim.Adam(self.tensors, lr=outer.learning_rate, betas=(0.9, 0.99))
        self.recovery = Recovery(inner.learning_rate, outer.window)
        self.checkpoint_every = outer.checkpoint_every
        self.steps_done = 0
        self.begun = 0
        self.trajectories = None

    @property
    def summary(self):
        """The running mean of the summaries so far (Polyak and Juditsky 1992): meta-gradients are noisy, it is less so."""
        return Summary(*(t.clone() for t in self._as_summary(self.averages)), self.temperature, self.inputs)

    @property
    def skipped(self):
        """Number of outer steps whose numbers went bad."""
        return self.recovery.skipped

    @property
    def recipe(self):
        """The inner options in force, :class:`recbole_farzi.options.InnerOptions`."""
        return replace(self.inner, learning_rate=self.recovery.learning_rate)

    def step(self):
        """One update of the summary.

        Returns:
            :class:`OuterStep`.

        Raises:
            DivergenceError: numbers were not finite for too many steps in a row, whatever was reduced.
        """
        if self.trajectories is None:
            self.trajectories = self._first_trajectories()
        slot = self.steps_done % len(self.trajectories)
        trajectory = self.trajectories[slot]
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        made = self._made()
        leaves = [tensor.detach().requires_grad_(True) for tensor in made]
        self.optimizer.zero_grad()
        loss, norm, what = math.nan, math.nan, None
        try:
            advanced, loss = self._within_memory(lambda: self._outer_gradient(trajectory, leaves))
            torch.autograd.backward(made, [leaf.grad for leaf in leaves])
            norm = float(torch.nn.utils.clip_grad_norm_(self.tensors, self.outer.clip_norm))
            if not math.isfinite(loss):
                what = f"{_LOSSES[self.outer.objective]} that is not finite"
            elif not math.isfinite(norm):
                what = "a meta-gradient that is not finite"
        except NonFiniteError as error:
            what = str(error)
        reduced = None
        if what is None:
            self.optimizer.step()
            for average, tensor in zip(self.averages, self.tensors):
                average.lerp_(tensor.detach(), 1.0 - self.outer.average)
            self.recovery.good()
        else:
            advanced = None
            reduced = self.recovery.bad(self.steps_done, what, training=not math.isfinite(loss))
        if advanced is None or advanced.step >= self.inner.steps:
            advanced = self._begin()
        self.trajectories[slot] = advanced
        if reduced:
            self.trajectories = None
        self.steps_done += 1
        return OuterStep(loss, norm, trajectory.step, what is not None, reduced)

    def _match_losses(self, trajectory, leaves):
        """Train a trajectory for a window, and differentiate its outer loss into the gradients of the leaves."""
        _forget_gradients(leaves)
        ahead = self._first_window - trajectory.step
        if ahead > 0:
            trajectory, _ = self._advance(trajectory, _detached(leaves), ahead)
        advanced, params = self._advance(trajectory, leaves, min(self._stride, self.inner.steps - trajectory.step))
        value = self._outer_loss(params)
        value.backward()
        return advanced, value.item()

    def _match_gradients(self, trajectory, leaves):
        """The same with the distance of a trajectory's two gradients; then train it on for a window."""
        _forget_gradients(leaves)
        params = {name: value.detach().requires_grad_(True) for name, value in trajectory.params.items()}
        real = torch.autograd.grad(self._outer_loss(params), list(params.values()), allow_unused=True, materialize_grads=True)
        batches = torch.arange(self.count).split(self.inner.batch_size)
        data, constants = self._read(leaves)
        mine = summary_gradient(
            self._loss_on_summary(self.judge), {**trajectory.params, **constants}, data, batches, trajectory.seed, tuple(constants)
        )
        value = gradient_distance(mine, dict(zip(params, real)))
        value.backward()
        advanced, _ = self._advance(trajectory, _detached(leaves), min(self._stride, self.inner.steps - trajectory.step))
        return advanced, value.item()

    def _match_trajectories(self, trajectory, leaves):
        """The same with the distance to an expert's next snapshot, after a window of training from the one before."""
        _forget_gradients(leaves)
        start, goal = self._leg(trajectory.seed)
        _, params = self._advance(trajectory, leaves, self._stride)
        value = trajectory_distance(params, start, goal)
        value.backward()
        return None, value.item()

    def _within_memory(self, function):
        """Call a function; where memory ends, again, with ever fewer inner states stored: same result, more time."""
        while True:
            try:
                return function()
            except (MemoryError, RuntimeError) as error:
                if self.checkpoint_every == -1 or not is_out_of_memory(error):
                    raise
                fewer = 4 if self.checkpoint_every == 0 else 4 * self.checkpoint_every
                self.checkpoint_every = fewer if fewer * fewer < self.recovery.window else -1
            # Outside of the handler, whose traceback holds on to what is to be freed.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            logging.getLogger().warning(
                f"outer step {self.steps_done + 1}: memory ends; farzi_checkpoint_every={self.checkpoint_every} from here on "
                "(slower, same result)"
            )

    def state(self):
        """Everything needed to go on exactly, as tensors and plain values; for :meth:`restore`."""
        trajectories = self.trajectories or []
        return {
            "tensors": [t.detach().cpu().clone() for t in self.tensors],
            "averages": [t.cpu().clone() for t in self.averages],
            "optimizer": self.optimizer.state_dict(),
            "counters": [self.steps_done, self.begun],
            "recovery": self.recovery.state(),
            "checkpoint_every": self.checkpoint_every,
            "trajectories": [
                {"seed": t.seed, "step": t.step, "params": t.params, "slots": t.slots} for t in trajectories
            ],
        }

    def restore(self, state):
        """Continue from what :meth:`state` returned."""
        with torch.no_grad():
            for mine, theirs in zip([*self.tensors, *self.averages], [*state["tensors"], *state["averages"]]):
                mine.copy_(theirs)
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps_done, self.begun = state["counters"]
        self.recovery = Recovery(**state["recovery"])
        self.checkpoint_every = state["checkpoint_every"]
        self.trajectories = [
            _Trajectory(
                t["seed"],
                t["step"],
                {k: v.to(self.device) for k, v in t["params"].items()},
                {s: {k: v.to(self.device) for k, v in d.items()} for s, d in t["slots"].items()},
                self._order(t["seed"]),
            )
            for t in state["trajectories"]
        ] or None

    def _learning_rate(self):
        done = self.steps_done / max(self.outer.steps, 1)
        return self.outer.learning_rate * min(1.0, max(0.05, (1.0 - done) / 0.75))

    @property
    def _stride(self):
        """Inner steps that an outer step advances a trajectory by."""
        windows = self.outer.unroll == "windows" or self.outer.objective != "meta"
        return self.recovery.window if windows else self.inner.steps

    @property
    def _first_window(self):
        """The inner step at which the first window begins that is differentiated: whole windows fill the rest, one at least."""
        share, steps = 1.0 - self.outer.window_from, self.inner.steps
        if self.outer.objective != "meta" or share == 1.0:
            return 0
        return max(0, steps - max(1, round(share * steps / self._stride)) * self._stride)

    def _adjoint(self, trajectory):
        every, window = self.checkpoint_every, self.recovery.window
        states = None if every == 0 else Checkpointed(every=every if every > 0 else None)
        if self._stride > window and self.outer.unroll == "random":
            return Truncated(random=window, seed=trajectory.seed, states=states)
        if self._stride > window:
            return Truncated(last=window, states=states)
        return states or StoreAll()

    def _as_summary(self, tensors):
        """``Z``, ``M`` and ``b`` from what is updated."""
        *latent, decoder, bias = tensors
        return compose(*latent) if self.factorised else latent[0], decoder, bias

    def _distributions(self):
        latent, decoder, bias = self._as_summary(self.tensors)
        return soft_distributions(latent, decoder, self.temperature, bias)

    def _made(self):
        """What the inner loop reads of the summary: ``P``, or ``Z``, ``M`` and ``b`` where the student reads in blocks."""
        return list(self._as_summary(self.tensors)) if self.by_blocks else [self._distributions()]

    def _read(self, made):
        """``(data, constants)``: what the inner loss is given of it by rows, and as a whole, among the parameters."""
        rows, *whole = made
        if not self.by_blocks:
            return (rows if self.inputs is None else SoftEvents(rows, self.inputs)), {}
        return ((rows,) if self.inputs is None else (rows, self.inputs)), dict(zip((_DECODER, _BIAS), whole))

    def _loss_on_summary(self, student):
        """The inner loss, function from parameters, rows and the step."""
        if not self.by_blocks:
            return lambda params, rows, step: student.soft_loss(rows, params)

        def loss(params, rows, step):
            latent, *inputs = rows
            weights = {name: value for name, value in params.items() if name not in (_DECODER, _BIAS)}
            events = LatentEvents(latent, params[_DECODER], params[_BIAS], self.temperature, *inputs)
            return student.soft_loss(events, weights)

        return loss

    def _outer_batch(self):
        rng = np.random.default_rng([self.seed, 1, self.steps_done])
        count = 0 if self.generated is None else self.outer.generated_windows
        if count == 0:
            return self.sequences.sample(self.outer.batch_size, rng).to(self.device)
        written = self.generated.at((self.steps_done * count + np.arange(count)) % len(self.generated))
        if count < self.outer.batch_size:
            written = written.joined(self.sequences.sample(self.outer.batch_size - count, rng))
        return written.to(self.device)

    def _outer_loss(self, params):
        """Mean cross-entropy of a batch of windows, by blocks where its scores would take too much memory."""
        batch = self._outer_batch()
        items = batch if torch.is_tensor(batch) else batch.items
        block = self.outer.block or rows_in_memory(items, self.judge.vocabulary, SCORES_IN_MEMORY)
        return blockwise_mean(self._loss_of, params, batch, block, weigh=self.judge.terms)

    def _loss_of(self, params, windows):
        expected = self.teacher.predictions(windows) if self.teacher is not None else None
        return self.judge.real_loss(windows, params, expected, self.outer.teacher)

    def _order(self, seed):
        return batch_order(self.count, self.inner.batch_size, self.inner.steps, seed)

    def _begin(self):
        seed = int(np.random.default_rng([self.seed, 2, self.begun]).integers(2**31))
        self.begun += 1
        first = self._leg(seed)[0] if self.outer.objective == "trajectory" else self.initial(seed)
        return _Trajectory(seed, 0, first, {}, self._order(seed))

    def _leg(self, seed):
        """Two snapshots of an expert, one after the other."""
        legs = [leg for expert in self.experts for leg in zip(expert, expert[1:])]
        return legs[int(np.random.default_rng([seed, 5]).integers(len(legs)))]

    def _first_trajectories(self):
        """Whole inner loops need one at a time; windows need several, spread evenly over the inner steps that windows cover."""
        if self._stride >= self.inner.steps or self.outer.objective == "trajectory":
            return [self._begin()]
        trajectories, count, first = [], self.outer.trajectories, self._first_window
        made = _detached(self._made())
        for i in range(count):
            trajectory = self._begin()
            ahead = first + (i * (self.inner.steps - first) // count) // self.recovery.window * self.recovery.window
            if ahead:
                with contextlib.suppress(NonFiniteError):  # stays at its beginning; its own turn will find it bad again
                    trajectory, _ = self._advance(trajectory, made, ahead)
            trajectories.append(trajectory)
        return trajectories

    def _advance(self, trajectory, made, steps):
        """Train a trajectory ``steps`` further on what :meth:`_made` gives; returns it, detached, and its parameters with their
        history."""
        inner = self.recipe
        rates = torch.tensor(inner.rates()[trajectory.step : trajectory.step + steps], dtype=torch.float64)
        data, constants = self._read(made)
        params, state = unroll(
            self.inner_loss,
            {**trajectory.params, **constants},
            data,
            optimizer=differentiable_rule(inner, rates),
            steps=steps,
            adjoint=self._adjoint(trajectory),
            batches=trajectory.order[trajectory.step : trajectory.step + steps],
            state=State(trajectory.step, trajectory.slots) if trajectory.slots else None,
            seed=trajectory.seed,  # whatever is random in the model's training mode is replayed
            return_state=True,
            frozen=tuple(constants),
        )
        params = {name: params[name] for name in trajectory.params}
        advanced = replace(
            trajectory,
            step=trajectory.step + steps,
            params={name: value.detach() for name, value in params.items()},
            slots={slot: {k: v.detach() for k, v in values.items()} for slot, values in state.slots.items()},
        )
        return advanced, params


def _detached(tensors):
    return [tensor.detach() for tensor in tensors]


def _forget_gradients(leaves):
    for leaf in leaves:
        leaf.grad = None
