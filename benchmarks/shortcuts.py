"""Shortcuts through Adam in reverse, and what they lose: the numbers and figures of docs/shortcuts.md.

    python -m pip install -c constraints.txt -e '.[benchmarks]'
    python benchmarks/shortcuts.py          # writes results/shortcuts/: results.json, tables.md, figure.png
    python benchmarks/shortcuts.py --draw   # tables and figure anew, from results.json

The problem: RecBole's SASRec (properties/model/SASRec.yaml, without dropout) on ML-100K. The inner data are spectral
soft events (10 sequences, 2 a batch), the outer loss is the cross-entropy of 16 real windows, the meta-gradient is that
for the soft events. Adam at learning rate 0.005. "Exact" is this package's `StoreAll` in float64 on the same problem.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from recbole_farzi.adjoint import Adam, NonFiniteError, StoreAll, unroll
from recbole_farzi.adjoint._trajectory import Snapshot, Trajectory
from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split
from recbole_farzi.starts import pick_windows, spectral_start
from recbole_farzi.storage import write_text
from recbole_farzi.student import Student

ROOT = Path(__file__).resolve().parent.parent
LR = 0.005
SEQUENCES, BATCH, EVENTS = 10, 2, 21
LENGTHS = (5, 10, 20, 50, 100)
LONG = 200


class Problem:
    """Soft events, initial parameters, inner and outer loss in one precision."""

    def __init__(self, model, dtype):
        quiet = {"show_progress": False, "state": "ERROR", "use_gpu": False}
        config, model_class = build_config(model, "ml-100k", (), quiet)
        split = load_split(config)
        rng = np.random.default_rng(0)
        windows = pick_windows(split.sequences, SEQUENCES, EVENTS, rng)
        soft = spectral_start(windows, split.counts, split.sequences, 8, 1.0, 0).distributions()
        self.real = split.sequences.sample(16, rng)
        self.batches = [torch.from_numpy(rng.permutation(SEQUENCES)[:BATCH]) for _ in range(LONG)]
        self.soft = soft.detach()
        torch.manual_seed(0)
        self.student = Student(model_class(config, split.train.dataset).eval())
        self.start = self.student.parameter_dict()  # in float32, so that both precisions begin with the same numbers
        self.use(dtype)

    def use(self, dtype):
        """Go on in this precision."""
        self.student.model.to(dtype)
        self.params = {name: value.to(dtype) for name, value in self.start.items()}
        self.data = self.soft.to(dtype)
        return self

    def inner(self, params, rows, step):
        return self.student.soft_loss(rows, params)

    def outer(self, params):
        return self.student.real_loss(self.real, params)

    def gradient(self, rule, steps, **options):
        """The meta-gradient for the soft events; None if it is not finite, or the trajectory is not."""
        data = self.data.clone().requires_grad_()
        try:
            final = unroll(
                self.inner, self.params, data, optimizer=rule, steps=steps, batches=self.batches[:steps], **options
            )
            (gradient,) = torch.autograd.grad(self.outer(final), data)
        except NonFiniteError:
            return None
        return gradient.double() if torch.isfinite(gradient).all() else None

    def by_step(self, rule, steps, **options):
        """Each step's own part of the exact meta-gradient, [T, batch, events, V], and whose it is, [T, batch]."""
        rows = torch.stack(self.batches[:steps])
        data = self.data[rows.flatten()].clone().requires_grad_()  # every step reads rows of its own
        own = torch.arange(rows.numel()).view_as(rows)
        final = unroll(
            self.inner, self.params, data, optimizer=rule, steps=steps, batches=list(own), adjoint=StoreAll(), **options
        )
        (gradient,) = torch.autograd.grad(self.outer(final), data)
        return gradient.view(*rows.shape, *gradient.shape[1:]), rows


class FirstMomentAlone(Adam):
    """Shortcut: the adjoint of v is left out altogether."""

    def adjoint(self, w, g, slots, lr, t, w_, slots_):
        _, lr_ = super().adjoint(w, g, slots, lr, t, w_, slots_)  # m_ is right, and multiplied by b1 already
        slots_[1].zero_()
        return slots_[0] * ((1 - self.betas[0]) / self.betas[0]), lr_


class OwnStepAlone(Adam):
    """Shortcut: v's part in its own step is kept, but no adjoint of v is carried to earlier steps."""

    def adjoint(self, w, g, slots, lr, t, w_, slots_):
        g_, lr_ = super().adjoint(w, g, slots, lr, t, w_, slots_)
        slots_[1].zero_()
        return g_, lr_


class InPlace(Trajectory):
    """Shortcut: nothing is stored; Adam is run backwards from the last (w, m, v), v clamped at 0.

    w' = w + lr (m / c1) / (sqrt(v / c2) + eps);  g: the gradient at w'
    m' = (m - (1 - b1) g) / b1;  v' = max((v - (1 - b2) g^2) / b2, 0)
    """

    lost = []  # for each step back, the distance from the true parameters over how far they have moved

    def __init__(self, chain, schedule):
        self._chain, self._true, self._last = chain, [], None

    def record(self, start, xs, watch):
        here = start
        for _ in range(self._chain.length):
            self._true.append(here.w)
            here, _ = self._chain.evaluate(here, xs, watch)
        self._last = here
        return here

    def backwards(self, xs):
        chain, here, moved = self._chain, self._last, (self._last.w - self._true[0]).norm()
        (b1, b2), eps = chain.inner.rule.betas, chain.inner.rule.eps
        for at in range(chain.length - 1, -1, -1):
            t = at + 1
            (m, v), lr = here.slots, chain.rates[at]
            w = here.w + lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
            _, g = chain.inner.gradient(w, xs, at)
            here = Snapshot(at, w, ((m - (1 - b1) * g) / b1, ((v - (1 - b2) * g * g) / b2).clamp(min=0)))
            InPlace.lost.append(float((w - self._true[at]).norm() / moved))
            yield here


def in_place():
    """Inside, trajectories are recovered in place."""
    InPlace.lost = []
    return mock.patch("recbole_farzi.adjoint._reverse.trajectory", InPlace)


def compare(gradient, exact):
    """Cosine and relative error, None for what is not finite."""
    if gradient is None or not torch.isfinite(gradient.norm()):
        return {"cosine": None, "error": None}
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0)
    return {"cosine": float(cosine), "error": float((gradient - exact).norm() / exact.norm())}


def moments(problem):
    """Without the second moment's adjoint, float64."""
    rows = []
    for eps in (1e-8, 1e-5):
        for steps in LENGTHS:
            exact = problem.gradient(Adam(LR, eps=eps), steps)
            for name, rule in (("first moment alone", FirstMomentAlone), ("own step alone", OwnStepAlone)):
                found = compare(problem.gradient(rule(LR, eps=eps), steps), exact)
                rows.append({"eps": eps, "steps": steps, "what": name, **found})
                print(rows[-1], flush=True)
    return rows


def reversal(problem):
    """Adam backwards in place, in both precisions, beside stored states in float32."""
    rows = []
    for eps in (1e-8, 1e-5, 1e-4):
        rule = Adam(LR, eps=eps)
        for steps in LENGTHS:
            exact = problem.use(torch.float64).gradient(rule, steps)
            for dtype in (torch.float64, torch.float32):
                problem.use(dtype)
                with in_place():
                    found = compare(problem.gradient(rule, steps), exact)
                row = {"eps": eps, "steps": steps, "dtype": str(dtype).split(".")[1], **found}
                rows.append(row | {"lost": [x if np.isfinite(x) else None for x in InPlace.lost]})
                print({k: v for k, v in rows[-1].items() if k != "lost"}, flush=True)
            stored = compare(problem.use(torch.float32).gradient(rule, steps), exact)
            rows.append({"eps": eps, "steps": steps, "dtype": "float32, stored", **stored, "lost": []})
    problem.use(torch.float64)
    return rows


def growth(problem):
    """Norm of the exact meta-gradient of the last K of T steps, and how far it is from that of all."""
    kinds = {
        "eps 1e-8": (Adam(LR, eps=1e-8), {}),
        "eps 1e-5": (Adam(LR, eps=1e-5), {}),
        "eps 1e-4": (Adam(LR, eps=1e-4), {}),
        "eps 1e-8, eps_root 1e-8": (Adam(LR, eps=1e-8, eps_root=1e-8), {}),
        "eps 1e-8, clipped at 0.1": (Adam(LR, eps=1e-8), {"clip_norm": 0.1}),
    }
    curves = {}
    for name, (rule, options) in kinds.items():
        steps, rows = problem.by_step(rule, LONG, **options)
        total = torch.zeros_like(problem.data)
        norms, sums = [], {}
        for k, (part, where) in enumerate(zip(steps.flip(0), rows.flip(0)), start=1):
            total.index_add_(0, where, part)
            norms.append(float(total.norm()))
            if k in (10, 20, 50, 100, LONG):
                sums[k] = total.clone()
        windows = {k: compare(value, sums[LONG])["cosine"] for k, value in sums.items()}
        curves[name] = {"norms": norms, "cosines": windows}
        print(name, norms[0], norms[-1], windows, flush=True)
    return curves


def number(value):
    return "not finite" if value is None else f"{value:.2g}" if abs(value) < 100 else f"{value:.0e}"


def tables(results):
    """Markdown."""
    lines = [
        "# Shortcuts, measured",
        "",
        f"Made by `{results['command']}` (PyTorch {results['torch']}, {results['minutes']:.0f} minutes).",
        "",
        "## No adjoint for the second moment (float64; cosine and relative error against the exact gradient)",
        "",
        "| eps | T | first moment alone | own step alone |",
        "| ---: | ---: | ---: | ---: |",
    ]
    pairs = {}
    for row in results["moments"]:
        pairs.setdefault((row["eps"], row["steps"]), []).append(f"{number(row['cosine'])}, {number(row['error'])}")
    lines += [f"| {eps:g} | {steps} | {' | '.join(cells)} |" for (eps, steps), cells in pairs.items()]
    lines += [
        "",
        "## Adam run backwards in place (relative error of the meta-gradient)",
        "",
        "| eps | T | in place, float64 | in place, float32 | stored, float32 |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    errors = {}
    for row in results["reversal"]:
        errors.setdefault((row["eps"], row["steps"]), []).append(number(row["error"]))
    lines += [f"| {eps:g} | {steps} | {' | '.join(cells)} |" for (eps, steps), cells in errors.items()]
    ks = (10, 20, 50, 100, LONG)
    lines += [
        "",
        f"## The last K of T = {LONG} steps (float64; norm of the meta-gradient, and cosine to that of all steps)",
        "",
        "| | " + " | ".join(f"K = {k}" for k in ks) + " |",
        "| --- |" + " ---: |" * len(ks),
    ]
    for name, curve in results["growth"].items():
        cells = [f"{number(curve['norms'][k - 1])}, {number(curve['cosines'][str(k)])}" for k in ks]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(results, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.4))
    for (eps, what), style in zip(
        [(e, w) for e in (1e-8, 1e-5) for w in ("first moment alone", "own step alone")], ("o-", "s-", "o--", "s--")
    ):
        points = [r for r in results["moments"] if (r["eps"], r["what"]) == (eps, what) and r["cosine"] is not None]
        left.plot([r["steps"] for r in points], [r["cosine"] for r in points], style, label=f"{what}, eps {eps:g}")
    left.set(title="No adjoint for v", xscale="log", xlabel="T", ylabel="cosine to the exact meta-gradient")
    for row in results["reversal"]:
        if row["steps"] == LENGTHS[-1] and row["lost"]:
            lost = [x if x is not None else np.nan for x in row["lost"]]
            style = "-" if row["dtype"] == "float64" else ":"
            colour = {1e-8: "C0", 1e-5: "C1", 1e-4: "C2"}[row["eps"]]
            label = f"{row['dtype']}, eps {row['eps']:g}"
            middle.plot(range(1, len(lost) + 1), np.maximum(lost, 1e-17), style, color=colour, label=label)
    middle.set(
        title=f"Adam backwards in place, T = {LENGTHS[-1]}", yscale="log", xlabel="steps back", ylim=(1e-17, 1e4),
        ylabel="error of the parameters, over their way",
    )  # fmt: skip
    for name, curve in results["growth"].items():
        right.plot(range(1, LONG + 1), curve["norms"], label=name)
    right.set(title=f"The last K of T = {LONG} steps", yscale="log", xlabel="K", ylabel="norm of the meta-gradient")
    for axis in (left, middle, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="SASRec")
    parser.add_argument("--draw", action="store_true", help="only make tables and figure anew")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = ROOT / "results" / "shortcuts"
    out.mkdir(parents=True, exist_ok=True)
    if not options.draw:
        began = time.perf_counter()
        problem = Problem(options.model, torch.float64)
        results = {
            "command": " ".join(["python", os.path.relpath(__file__, ROOT), *sys.argv[1:]]),
            "torch": torch.__version__,
            "moments": moments(problem),
            "growth": growth(problem),
            "reversal": reversal(problem),
        }
        results["minutes"] = (time.perf_counter() - began) / 60
        write_text(out / "results.json", json.dumps(results) + "\n")
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    write_text(out / "tables.md", tables(results))
    with contextlib.suppress(ImportError):  # the figure wants matplotlib
        draw(results, out / "figure.png")


if __name__ == "__main__":
    main()
