"""How much do two independent meta-gradients of the same summary have in common?

    python benchmarks/meta_gradient_noise.py            # SASRec on ML-100K, from the teacher's start; about five minutes

For several ways of differentiating the inner loop it draws a few meta-gradients, each with its own initialisation, batch
order, dropout and real events, and reports the mean cosine between two of them (the share of the squared norm that is
signal), their norm, and the time of one. Writes ``results/quality/meta_gradient_noise.csv`` and ``.md``. Training events
only: neither validation nor test is looked at.
"""

import argparse
import dataclasses
import time

import numpy as np
import pandas as pd
import torch
from undistilled import put_on_record, start_on_validation

from recbole_farzi.adjoint import StoreAll, Truncated, unroll
from recbole_farzi.configuration import parse_overrides
from recbole_farzi.sequences import batch_order
from recbole_farzi.soft_events import SoftEvents, soft_distributions
from recbole_farzi.student import Student
from recbole_farzi.update_rules import differentiable_rule

WAYS = [  # differentiated steps (None: all), changes of the recipe
    ("last 20 steps", 20, {}),
    ("last 40 steps", 40, {}),
    ("last 60 steps", 60, {}),
    ("full unroll", None, {}),
    ("full unroll, eps 1e-5", None, {"eps": 1e-5}),
    ("full unroll, twice the learning rate", None, {"learning_rate": 0.03}),
    ("first 25 steps alone", None, {"steps": 25, "decay": 0.0}),
    ("last 40 steps, without dropout", 40, {"dropout": False}),
]


class Problem:
    """A model, its real events, a trained teacher and the start of a summary."""

    def __init__(self, model, dataset, overrides):
        trainer, self.split, _ = start_on_validation(model, dataset, overrides, students=1)
        self.config, self.options, self.factory = trainer.config, trainer.options, trainer.factory
        self.traits, self.start = trainer.student.traits, trainer.start
        self.teacher = trainer.teacher()

    def meta_gradient(self, inner, window, seed):
        """Gradients for ``Z``, ``M`` and ``b``, flat, from one draw of everything random."""
        student = Student(self.factory(0, dropout=inner.dropout).train(), self.traits)
        judge = Student(self.factory(0, dropout=False), self.traits)
        summary = [t.detach().clone().requires_grad_(True) for t in self.start.tensors]
        distributions = soft_distributions(summary[0], summary[1], self.start.temperature, summary[2])
        leaf = distributions.detach().requires_grad_(True)
        rates = torch.tensor(inner.rates(), dtype=torch.float64)
        final = unroll(
            lambda params, rows, step: student.soft_loss(rows, params),
            {name: p.detach().clone() for name, p in self.factory(1000 + seed).named_parameters()},
            leaf if self.start.inputs is None else SoftEvents(leaf, self.start.inputs),
            optimizer=differentiable_rule(inner, rates),
            steps=inner.steps,
            adjoint=StoreAll() if window is None else Truncated(last=window),
            batches=batch_order(len(leaf), inner.batch_size, inner.steps, seed),
            seed=seed,
        )
        outer = self.options.outer
        windows = self.split.sequences.sample(outer.batch_size, np.random.default_rng(seed))
        judge.real_loss(windows, final, self.teacher.predictions(windows), outer.teacher).backward()
        distributions.backward(leaf.grad)
        return [t.grad.flatten() for t in summary]


def mean_cosine(vectors):
    """Mean cosine between two different ones of the vectors ``[n, k]``."""
    unit = torch.nn.functional.normalize(torch.stack(vectors).double(), dim=1)
    n = len(vectors)
    return ((unit @ unit.T).sum() - n).item() / (n * (n - 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--dataset", default="ml-100k")
    parser.add_argument("--draws", type=int, default=6)
    known, rest = parser.parse_known_args()
    problem = Problem(known.model, known.dataset, parse_overrides(rest))
    rows = []
    for name, window, changes in WAYS:
        inner, begun = dataclasses.replace(problem.options.inner, **changes), time.process_time()
        draws = [problem.meta_gradient(inner, window, seed) for seed in range(known.draws)]
        row = {"differentiated": name, "CPU seconds": (time.process_time() - begun) / known.draws}
        for tensor, gradients in zip(("Z", "M", "b"), zip(*draws)):
            row[f"norm {tensor}"] = float(torch.stack(gradients).norm(dim=1).mean())
            row[f"cosine {tensor}"] = mean_cosine(gradients)
        rows.append(row)
        print(row, flush=True)
    inner = problem.options.inner
    put_on_record(
        "meta_gradient_noise", pd.DataFrame(rows), problem.config,
        f"Signal and noise of meta-gradients: {known.model}, {known.dataset}",
        f"T = {inner.steps}, learning rate {inner.learning_rate}, eps {inner.eps}, batches of {inner.batch_size}, from the teacher's "
        f"start; {known.draws} independent draws each. A cosine of 0 is nothing but noise.",
        digits=".3g",
    )  # fmt: skip


if __name__ == "__main__":
    main()
