"""Are events better read as items or as distributions, and how long should a student train on them?

    python benchmarks/inputs.py            # SASRec on ML-100K; about half an hour on two cores

The teacher's start, undistilled, with histories that are distributions (the paper's way), real items, and items that the teacher
generates; students train for different numbers of steps on each. Validation alone is looked at.
Writes ``results/quality/inputs.csv`` and ``.md``.
"""

import argparse
import logging
import sys
from pathlib import Path

import pandas as pd
from recbole.utils import init_logger

from recbole_farzi.configuration import build_config, parse_overrides
from recbole_farzi.data import load_split
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import INPUTS, read_options
from recbole_farzi.provenance import environment
from recbole_farzi.storage import write_text
from recbole_farzi.trainer import FarziTrainer

ROOT = Path(__file__).resolve().parent.parent
STUDENTS = 3


def validated(model, dataset, overrides):
    """Validation of students of a start: mean metrics, bytes, and RecBole's Config."""
    given = {
        "show_progress": False, "state": "ERROR", **overrides, "farzi_outer_steps": 0, "farzi_start_draws": 1,
        "farzi_eval_students": STUDENTS,
    }  # fmt: skip
    config, model_class = build_config(model, dataset, (), given)
    read_options(config)
    init_logger(config)
    logging.getLogger().setLevel(logging.ERROR)
    split = load_split(config)
    trainer = FarziTrainer(config, ModelFactory(model_class, config, split.train.dataset)(config["seed"]))
    _, metrics = trainer.fit(split.train, split.valid, verbose=False, saved=False)
    return metrics, trainer.summary.nbytes, config


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--dataset", default="ml-100k")
    parser.add_argument("--steps", nargs="+", type=int, default=[100, 200, 400, 800])
    known, rest = parser.parse_known_args()
    rows = []
    for steps in known.steps:
        for inputs in INPUTS:
            options = {**parse_overrides(rest), "farzi_inputs": inputs, "farzi_inner_steps": steps}
            metrics, size, config = validated(known.model, known.dataset, options)
            rows.append({"inputs": inputs, "steps": steps, "KB": size / 1024, **metrics})
            print(rows[-1], flush=True)
    table, machine = pd.DataFrame(rows), environment(config["device"])
    folder = ROOT / "results" / "quality"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "inputs.csv", table.to_csv(index=False))
    write_text(
        folder / "inputs.md",
        f"# What an event is as history, and how long students train: {known.model}, {known.dataset}\n\n"
        f"The teacher's start, undistilled, of one draw of histories; means of {STUDENTS} students on validation.\n\n"
        + table.to_markdown(index=False, floatfmt=".4f")
        + f"\n\nMade by `{' '.join(['python benchmarks/inputs.py', *sys.argv[1:]])}` ({machine['device'].upper()}, "
        f"{machine['threads']} threads, PyTorch {machine['torch']}).\n",
    )


if __name__ == "__main__":
    main()
