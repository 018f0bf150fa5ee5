"""What an outer step, its start, training on the summary and an evaluation cost in time and memory as the vocabulary, the events
and T grow.

    python benchmarks/vocabulary.py            # half an hour or more on one core; the largest points hold some gigabytes

Generated data (:mod:`recbole_farzi.studies.generated`, 300 users of 20 events), SASRec with two layers of 64, on the CPU. Each
point is measured in a process of its own: processor seconds, and the most that the process came to hold in a stage beyond
what it held before (resident memory, which Linux alone says stage by stage), beside what the plan says before anything is run
(:mod:`recbole_farzi.memory`). Writes ``table.md``, ``results.json`` and, with Matplotlib, ``figure.png``.
"""

import argparse
import contextlib
import itertools
import json
import logging
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from recbole_farzi import inspection, memory
from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split
from recbole_farzi.distillation import Distiller
from recbole_farzi.generation import generate_windows
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import read_options
from recbole_farzi.provenance import environment
from recbole_farzi.starts import random_start, teacher_start
from recbole_farzi.storage import read_json, write_json, write_text
from recbole_farzi.student import Student
from recbole_farzi.studies.generated import make
from recbole_farzi.training import SummaryLoader, WindowTrainer, recipe_optimizer

ROOT = Path(__file__).resolve().parent.parent
BASE = {"items": 1_000, "sequences": 2, "steps": 5, "whole": False}
SWEEPS = (  # what varies, its values, what else is set
    ("items", (1_000, 10_000, 100_000, 1_000_000), {}),
    ("sequences", (2, 8, 32, 128, 512), {"items": 10_000}),
    ("steps", (5, 20, 80), {"items": 10_000}),
    ("sequences", (24,), {"items": 1_000_000, "steps": 2}),
    ("sequences", (512,), {"items": 10_000, "whole": True}),
    ("items", (1_000_000,), {"whole": True}),
)
STAGES = ("start", "outer step", "student", "evaluation")
LENGTH = 21
LARGEST_START = 1_000_000  # sequences times items; above, a teacher's start is made for whole soft events alone, and random numbers do


def points():
    """Every point once: items, sequences of 21 events, inner steps, and whether all soft events are made whole."""
    every = [{**BASE, **others, axis: value} for axis, values, others in SWEEPS for value in values]
    return [point for number, point in enumerate(every) if point not in every[:number]]


class Peak:
    """The most memory that this process holds while it is inside, beyond what it held before; None where that cannot be told.

    Attributes:
        seconds, bytes: of processor time, and of memory.
    """

    def __enter__(self):
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._before, self._begun = self._status("VmRSS"), time.process_time()
        return self

    def __exit__(self, *_):
        self.seconds = time.process_time() - self._begun
        most = self._status("VmHWM")
        self.bytes = None if most is None else most - self._before

    @staticmethod
    def _status(name):
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024
        return None


def measure(items, sequences, steps, whole):
    """Seconds and bytes of each stage, and the bytes that the plan says."""
    logging.getLogger().setLevel(logging.ERROR)
    if whole:
        inspection.WHOLE_EVENTS = math.inf
    with tempfile.TemporaryDirectory() as folder:
        data = make({"items": items}, folder)
        config, model_class = build_config(
            "SASRec", data["dataset"], (),
            {
                **data, "MAX_ITEM_LIST_LENGTH": LENGTH - 1, "state": "ERROR", "use_gpu": False, "farzi_sequences": sequences, "farzi_latent_dim": 8,
                "farzi_inner_batch_size": sequences, "farzi_inner_steps": steps, "farzi_window": steps, "farzi_checkpoint_every": -1,
                "eval_batch_size": 100, "farzi_outer_batch_size": 8, "train_batch_size": 8, "show_progress": False, "checkpoint_dir": folder, "log_wandb": False,
            },
        )  # fmt: skip
        split = load_split(config)
    options = read_options(config)
    factory = ModelFactory(model_class, config, split.train.dataset)
    student = Student(factory(1, dropout=False).train())
    judge = Student(factory(1, dropout=False).train(), student.traits, last_only=True)
    teacher = Student(factory(2, dropout=False), student.traits, last_only=True)
    plan = memory.plan(config, options, student)
    costs = memory.measure(
        student, judge, LENGTH, torch.device("cpu"), options.outer.teacher, options.summary.latent_dims[-1] if plan.by_blocks else None
    )
    planned = memory.needed(plan, costs)
    out = {
        "by blocks": plan.by_blocks,
        "plan": {"start": planned["the start"], "outer step": planned["distillation"], "evaluation": planned["evaluation"]},
    }
    windows = generate_windows(teacher, split.counts, sequences, LENGTH, split.sequences.repeats, 0)
    if whole or items * sequences <= LARGEST_START:
        with Peak() as start_cost:
            singles = options.summary.singles(len(split.counts))
            start = teacher_start(windows, teacher, split.counts, options.summary.latent_dims[-1], 1.0, 0.0, 0, singles=singles)
    else:
        start, start_cost = random_start(sequences, LENGTH, options.summary.latent_dims[-1], len(split.counts), 1.0, 0), None
    start = replace(start, inputs=windows)
    distiller = Distiller(
        student, judge, start, options.inner, options.outer,
        lambda seed: Student(factory(seed, dropout=False), student.traits).parameter_dict(), split.sequences, 1, teacher=teacher,
    )  # fmt: skip
    with Peak() as step_cost:
        distiller.step()
    summary = distiller.summary
    del distiller, start
    fresh = Student(factory(4, dropout=False).train(), student.traits)
    with Peak() as student_cost:
        optimizer = recipe_optimizer(fresh.model, options.inner)
        for rows in SummaryLoader(summary, split.train.dataset, options.inner, 4, fresh.traits):
            optimizer.zero_grad()
            fresh.soft_loss(rows).backward()
            optimizer.step()
    del fresh, optimizer, summary
    trainer = WindowTrainer(config, factory(3), student.traits)
    with Peak() as evaluation_cost:
        trainer.evaluate(split.valid, load_best_model=False)
    for stage, cost in zip(STAGES, (start_cost, step_cost, student_cost, evaluation_cost)):
        out[stage] = None if cost is None else {"seconds": cost.seconds, "bytes": cost.bytes}
    return out


def in_a_process(point):
    """A point's measurement, or what its process said when it ended without one."""
    command = [sys.executable, "-W", "ignore", __file__, "--measure", json.dumps(point)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or [f"signal {-ended.returncode}"])[-1]
        return {**point, "error": last}
    return {**point, **json.loads(ended.stdout.splitlines()[-1])}


def table(found):
    """The points as Markdown."""
    head = ["V", "events", "T", "soft events"] + [f"{stage}: {what}" for stage in STAGES for what in ("s", "MiB", "MiB planned")]
    lines = ["| " + " | ".join(head) + " |", "|" + " ---: |" * len(head)]
    for point in found:
        cells = [f"{point['items']:,}", f"{point['sequences'] * LENGTH:,}", str(point["steps"])]
        if "error" in point:
            cells += [point["error"]] + [""] * (3 * len(STAGES))
        else:
            cells.append("in blocks" if point["by blocks"] else "whole")
            for stage in STAGES:
                cost = point[stage]
                cells += ["–", "–"] if cost is None else [f"{cost['seconds']:.2f}", _mib(cost["bytes"])]
                cells.append(_mib(point["plan"].get(stage)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mib(size):
    return "–" if size is None else f"{size / 2**20:,.0f}"


def draw(found, path):
    """Time and memory of each stage along each axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    columns = [sweep for sweep in SWEEPS if len(sweep[1]) > 1]
    figure, axes = plt.subplots(2, len(columns), figsize=(3.4 * len(columns), 6), squeeze=False)
    names = {"items": "items V", "sequences": "synthetic events", "steps": "inner steps T, all differentiated"}
    for column, (axis, values, others) in enumerate(columns):
        for whole in (False, True):
            wanted = [{**BASE, **others, axis: value, "whole": whole} for value in values]
            mine = [p for p in found if {k: p[k] for k in BASE} in wanted and "error" not in p]
            x = [p[axis] * (LENGTH if axis == "sequences" else 1) for p in mine]
            for row, (number, stage) in itertools.product(range(2), enumerate(STAGES)):
                key, unit = (("seconds", 1), ("bytes", 2**20))[row]
                there = [(at, p[stage][key] / unit) for at, p in zip(x, mine) if p[stage] and p[stage][key] is not None]
                if there and (not whole or stage != "evaluation"):
                    axes[row][column].plot(
                        *zip(*there), marker="x" if whole else "o", linestyle=":" if whole else "-",
                        color=f"C{number}", label=stage + (", soft events whole" if whole else ""),
                    )  # fmt: skip
        title = f"V = {others['items']:,}" if "items" in others else f"{BASE['sequences'] * LENGTH} events"
        axes[0][column].set_title(title, fontsize=9)
        ticks = [value * (LENGTH if axis == "sequences" else 1) for value in values]
        for row, label in enumerate(("processor seconds", "peak memory, MiB")):
            axes[row][column].set(xscale="log", yscale="log", xlabel=names[axis], ylabel=label)
            axes[row][column].xaxis.set_minor_formatter(NullFormatter())
            axes[row][column].set_xticks(ticks, [f"{value:,}" for value in ticks], fontsize=8)
            axes[row][column].grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", metavar="POINT", help="one point, as JSON")
    parser.add_argument("--most", type=int, default=1_000_000, metavar="ITEMS", help="leave out larger vocabularies")
    parser.add_argument("--continue", action="store_true", help="keep the points that are in the output already")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "studies" / "vocabulary")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(**json.loads(given.measure))))
        return
    found, where = [], environment(torch.device("cpu"))
    if getattr(given, "continue"):
        found = [point for point in read_json(given.output / "results.json")["points"] if "error" not in point]
    known = [{name: point[name] for name in BASE} for point in found]
    for point in points():
        if point["items"] > given.most or point in known:
            continue
        measured = in_a_process(point)
        print(table([measured]).splitlines()[-1], flush=True)
        found = sorted([*found, measured], key=lambda p: points().index({name: p[name] for name in BASE}))
        said = (
            f"# Time and memory against vocabulary, events and T\n\n`python benchmarks/vocabulary.py`, PyTorch {where['torch']}, "
            f"{where['device']}, {where['threads']} thread(s). Processor seconds; memory beyond what the process held before the "
            f"stage; V is without the padding; d = 8. The teacher writes the histories (`farzi_inputs: generated`). All inner steps are "
            f"differentiated, with as few states stored as can be; all synthetic sequences are in a batch; the outer loss is of 8 "
            f"real windows; a student trains for T steps; evaluation scores 100 of 300 users at a time.\n\n{table(found)}\n"
        )
        write_json(given.output / "results.json", {"environment": where, "points": found})
        write_text(given.output / "table.md", said)
    with contextlib.suppress(ImportError):  # the figure wants matplotlib
        draw(found, given.output / "figure.png")


if __name__ == "__main__":
    main()
