"""What to train full data and summaries of the Penn Treebank with, tried on validation; the test text is not touched.

    python benchmarks/ptb_tuning.py                  # all trials of ptb_tuning.yaml, on every tenth sentence
    python benchmarks/ptb_tuning.py baseline         # those of training on all of the text; or: recipe

A trial adds its options to those of ``properties/``. ``baseline`` trains a model on all of the text, ``recipe`` makes
the teacher's start of a summary (or distils it, where ``farzi_outer_steps`` is above 0) and trains a student on it. Each is
stored in results/ptb/tuning.json as it ends, so that an interrupted search goes on; results/ptb/tuning.md shows all.
"""

import argparse
import json
import logging
import math
import sys
import time
from pathlib import Path

import yaml
from recbole.utils import init_logger

from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split
from recbole_farzi.errors import DivergenceError
from recbole_farzi.inspection import inspect_model
from recbole_farzi.models import ModelFactory, seeded
from recbole_farzi.options import read_options
from recbole_farzi.storage import read_json, write_json, write_text
from recbole_farzi.trainer import FarziTrainer
from recbole_farzi.training import WindowLoader, WindowTrainer

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "results" / "ptb" / "tuning.json"
QUIET = {"show_progress": False, "state": "ERROR"}


def prepare(dataset, options):
    """``(config, split, factory)`` of a trial."""
    files = [str(ROOT / "properties" / "language.yaml")]
    config, model_class = build_config("SASRec", dataset, files, {**options, **QUIET})
    init_logger(config)
    logging.getLogger().setLevel(logging.ERROR)
    read_options(config)
    split = load_split(config)
    return config, split, ModelFactory(model_class, config, split.train.dataset)


def train_baseline(dataset, options, seed=1):
    """Perplexity on validation after each epoch of training on all of the text."""
    config, split, factory = prepare(dataset, options)
    model, curve = factory(seed), []
    trainer = WindowTrainer(config, model, inspect_model(model, config))
    loader = WindowLoader(split.sequences, split.train.dataset, config["train_batch_size"], seed)

    def after_epoch(epoch, score):
        curve.append(score)
        print(f"  epoch {epoch + 1}: {score:.1f}", flush=True)

    with seeded(seed):
        trainer.fit(loader, split.valid, verbose=False, callback_fn=after_epoch)
    return {"perplexity": min(curve), "curve": curve}


def train_summary(dataset, options):
    """Perplexity on validation of students of a start, and of its distilled summary after some outer steps."""
    config, split, factory = prepare(dataset, options)
    trainer = FarziTrainer(config, factory(config["seed"]))
    trainer.fit(split.train, split.valid, verbose=False, saved=False)
    curve = [validation["metrics"].get("perplexity", math.inf) for validation in trainer.history["validations"]]
    return {"perplexity": min(curve), "curve": curve}


TRAIN = {"baseline": train_baseline, "recipe": train_summary}


def table(stored):
    """Markdown: the trials of each kind, in the order in which they were tried."""
    parts = []
    for kind in TRAIN:
        trials = [trial for trial in stored if trial["kind"] == kind]
        if not trials:
            continue
        best = min(trials, key=lambda trial: trial["perplexity"])
        head = f"| {kind}: options tried | validation perplexity | on the way | processor seconds |"
        lines = [head, "| --- | ---: | --- | ---: |"]
        for trial in trials:
            options = ", ".join(f"{name.removeprefix('farzi_')} {value}" for name, value in trial["options"].items())
            value = f"{trial['perplexity']:.1f}"
            lines.append(
                f"| {options or 'as in properties/'} | {f'**{value}**' if trial is best else value} | "
                f"{', '.join(f'{score:.0f}' for score in trial['curve'])} | {trial['seconds']:.0f} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="baseline, recipe [both]")
    parser.add_argument("-d", "--dataset", default="ptb-tenth")
    arguments = parser.parse_args()
    kinds = arguments.kinds or list(TRAIN)
    if not set(kinds) <= set(TRAIN):
        parser.error(f"a kind is one of {', '.join(TRAIN)}")
    wanted = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    stored = read_json(RECORD) if RECORD.is_file() else []
    for kind in kinds:
        common = wanted[kind].get("all", {})
        for options in wanted[kind]["trials"]:
            options = {**common, **(options or {})}
            if any((trial["kind"], trial["options"]) == (kind, options) for trial in stored):
                continue
            print(f"{kind}: {json.dumps(options)}", flush=True)
            begun = time.process_time()
            try:
                found = TRAIN[kind](arguments.dataset, options)
            except DivergenceError as error:
                found = {"perplexity": math.inf, "curve": [], "diverged": str(error)}
            stored.append({"kind": kind, "options": options, **found, "seconds": time.process_time() - begun})
            print(f"  {found['perplexity']:.1f} after {stored[-1]['seconds']:.0f} s", flush=True)
            write_json(RECORD, stored)
            write_text(RECORD.with_suffix(".md"), table(stored))
    return 0


if __name__ == "__main__":
    sys.exit(main())
