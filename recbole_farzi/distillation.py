"""The outer loop: updates of ``Z``, ``M`` and ``b`` along meta-gradients. Knows nothing of RecBole.

A step trains an inner trajectory on the summary, differentiates the loss of the result on real events through W of its
steps (exactly, :mod:`recbole_farzi.adjoint`), and updates the summary. With W = T that is a full unroll from an
initialisation, as in the paper. With W < T there are three ways:

* ``last``: T steps from an initialisation, the last W of them differentiated.
* ``random``: the same, ended after a random number of steps from W to T (Feng, Vedantam and Kempe, "Embarrassingly Simple
  Dataset Distillation", ICLR 2024).
* ``windows``: several trajectories are in flight, at different stages, and take turns, each advanced by W steps and begun
  anew after T (Vicol et al., "Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent Evolution
  Strategies", 2021, keep inner problems in flight likewise).
"""

import contextlib
import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from recbole_farzi.adjoint import Adam, Checkpointed, NonFiniteError, State, StoreAll, Truncated, unroll
from recbole_farzi.blockwise import blockwise_mean, rows_in_memory
from recbole_farzi.errors import DivergenceError
from recbole_farzi.sequences import batch_order
from recbole_farzi.soft_events import soft_distributions
from recbole_farzi.summary import Summary

__all__ = ["Distiller", "OuterStep"]

_SCORES_IN_MEMORY = 256 * 2**20  # bytes of scores of real events at a time
_MOST_FAILURES = 10  # consecutive outer steps without a finite meta-gradient before the run is given up


@dataclass(frozen=True)
class OuterStep:
    """What one outer step did.

    Attributes:
        loss: cross-entropy on real events after the window, in nats an event.
        gradient_norm: norm of the meta-gradient before clipping; NaN if the step was skipped.
        inner_step: how far the trajectory had come before the window.
        skipped: the numbers went bad, nothing was updated and the trajectory was begun anew.
    """

    loss: float
    gradient_norm: float
    inner_step: int
    skipped: bool


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
        judge: the same architecture without dropout, for the loss on real events.
        start: :class:`recbole_farzi.summary.Summary` to begin from.
        inner: :class:`recbole_farzi.options.InnerOptions`.
        outer: :class:`recbole_farzi.options.OuterOptions`.
        initial: function from a seed to initial parameters ``{name: tensor}``.
        sequences: the real histories, :class:`recbole_farzi.sequences.Sequences`.
        teacher: a trained :class:`recbole_farzi.student.Student`, without dropout, whose predictions are part of the outer
            loss's targets where ``outer.teacher`` is above 0; or None.
        seed: of everything random here. All draws depend on it and on counters alone, so that a run that is continued
            from :meth:`state` goes on as if never interrupted.
    """

    def __init__(self, student, judge, start, inner, outer, initial, sequences, seed, teacher=None):
        self.student = student
        self.judge = judge
        self.inner = inner
        self.outer = outer
        self.initial = initial
        self.sequences = sequences
        self.teacher = teacher if outer.teacher > 0.0 else None
        self.seed = seed
        self.device = next(student.model.parameters()).device
        self.temperature = start.temperature
        self.tensors = [t.detach().clone().to(self.device).requires_grad_(True) for t in start.tensors]
        self.averages = [t.detach().clone() for t in self.tensors]
        self.optimizer = torch.optim.Adam(self.tensors, lr=outer.learning_rate, betas=(0.9, 0.99))
        self.steps_done = 0
        self.failures = 0
        self.skipped = 0
        self.begun = 0
        self.trajectories = None

    @property
    def summary(self):
        """The running mean of the summaries so far (Polyak and Juditsky 1992): meta-gradients are noisy, it is less so."""
        return Summary(*(t.clone() for t in self.averages), self.temperature)

    def step(self):
        """One update of the summary.

        Returns:
            :class:`OuterStep`.

        Raises:
            DivergenceError: the meta-gradient was not finite for too many steps in a row.
        """
        if self.trajectories is None:
            self.trajectories = self._first_trajectories()
        slot = self.steps_done % len(self.trajectories)
        trajectory = self.trajectories[slot]
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        distributions = self._distributions()
        leaf = distributions.detach().requires_grad_(True)
        self.optimizer.zero_grad()
        loss, norm = math.nan, math.nan
        try:
            advanced, params = self._advance(trajectory, leaf, min(self._stride, self.inner.steps - trajectory.step))
            value = self._real_loss(params)
            loss = value.item()
            value.backward()
            distributions.backward(leaf.grad)
            norm = float(torch.nn.utils.clip_grad_norm_(self.tensors, self.outer.clip_norm))
        except NonFiniteError:
            advanced = None
        finite = advanced is not None and math.isfinite(loss) and math.isfinite(norm)
        if finite:
            self.optimizer.step()
            for average, tensor in zip(self.averages, self.tensors):
                average.lerp_(tensor.detach(), 1.0 - self.outer.average)
            self.failures = 0
        else:
            self.failures += 1
            self.skipped += 1
            advanced = None
            if self.failures >= _MOST_FAILURES:
                raise DivergenceError(
                    f"no finite meta-gradient in {self.failures} outer steps in a row; reduce "
                    "farzi_inner_learning_rate or farzi_window, or raise farzi_inner_eps"
                )
        if advanced is None or advanced.step >= self.inner.steps:
            advanced = self._begin()
        self.trajectories[slot] = advanced
        self.steps_done += 1
        return OuterStep(loss, norm, trajectory.step, not finite)

    def state(self):
        """Everything needed to go on exactly, as tensors and plain values; for :meth:`restore`."""
        trajectories = self.trajectories or []
        return {
            "tensors": [t.detach().cpu().clone() for t in self.tensors],
            "averages": [t.cpu().clone() for t in self.averages],
            "optimizer": self.optimizer.state_dict(),
            "counters": [self.steps_done, self.failures, self.skipped, self.begun],
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
        self.steps_done, self.failures, self.skipped, self.begun = state["counters"]
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
        return self.outer.window if self.outer.unroll == "windows" else self.inner.steps

    def _adjoint(self, trajectory):
        every, window = self.outer.checkpoint_every, self.outer.window
        if self._stride > window and self.outer.unroll == "random":
            return Truncated(random=window, seed=trajectory.seed)
        if self._stride > window:
            return Truncated(last=window)
        return StoreAll() if every == 0 else Checkpointed(every=every if every > 0 else None)

    def _distributions(self):
        latent, decoder, bias = self.tensors
        return soft_distributions(latent, decoder, self.temperature, bias)

    def _real_batch(self):
        rng = np.random.default_rng([self.seed, 1, self.steps_done])
        return self.sequences.sample(self.outer.batch_size, rng).to(self.device)

    def _real_loss(self, params):
        """Mean cross-entropy of a real batch, by blocks where its scores would take too much memory."""
        batch = self._real_batch()
        block = self.outer.block or rows_in_memory(batch, self.judge.vocabulary, _SCORES_IN_MEMORY)
        return blockwise_mean(self._loss_of, params, batch, block, weigh=lambda rows: int(rows[:, 1:].ne(0).sum()))

    def _loss_of(self, params, windows):
        expected = self.teacher.predictions(windows[:, :-1]) if self.teacher is not None else None
        return self.judge.real_loss(windows, params, expected, self.outer.teacher)

    def _order(self, seed):
        return batch_order(len(self.tensors[0]), self.inner.batch_size, self.inner.steps, seed)

    def _begin(self):
        seed = int(np.random.default_rng([self.seed, 2, self.begun]).integers(2**31))
        self.begun += 1
        return _Trajectory(seed, 0, self.initial(seed), {}, self._order(seed))

    def _first_trajectories(self):
        """Whole inner loops need one at a time; windows need several, spread evenly over the T inner steps."""
        if self._stride >= self.inner.steps:
            return [self._begin()]
        trajectories, count = [], self.outer.trajectories
        distributions = self._distributions().detach()
        for i in range(count):
            trajectory = self._begin()
            ahead = (i * self.inner.steps // count) // self.outer.window * self.outer.window
            if ahead:
                with contextlib.suppress(NonFiniteError):  # stays at its beginning; its own turn will find it bad again
                    trajectory, _ = self._advance(trajectory, distributions, ahead)
            trajectories.append(trajectory)
        return trajectories

    def _advance(self, trajectory, distributions, steps):
        """Train a trajectory ``steps`` further; returns it, detached, and its parameters with their history."""
        inner = self.inner
        rates = torch.tensor(inner.rates()[trajectory.step : trajectory.step + steps], dtype=torch.float64)
        adam = Adam(lr=rates, betas=inner.betas, eps=inner.eps, weight_decay=inner.weight_decay)
        params, state = unroll(
            lambda params, rows, step: self.student.soft_loss(rows, params),
            trajectory.params,
            distributions,
            optimizer=adam,
            steps=steps,
            adjoint=self._adjoint(trajectory),
            batches=trajectory.order[trajectory.step : trajectory.step + steps],
            state=State(trajectory.step, trajectory.slots) if trajectory.slots else None,
            seed=trajectory.seed,  # whatever is random in the model's training mode is replayed
            return_state=True,
        )
        advanced = replace(
            trajectory,
            step=trajectory.step + steps,
            params={name: value.detach() for name, value in params.items()},
            slots={slot: {k: v.detach() for k, v in values.items()} for slot, values in state.slots.items()},
        )
        return advanced, params
