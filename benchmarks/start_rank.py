"""What does the rank of the teacher's start cost, factorised by its divergence and by cutting singular values?

    python benchmarks/start_rank.py            # SASRec on ML-100K; about ten minutes on two cores

For each rank the same real histories are labelled by the same teacher, factorised both ways, and students are trained on the
result, undistilled. Validation alone is looked at. Writes ``results/quality/start_rank.csv`` and ``.md``.
"""

import argparse
import functools
import logging
import sys
from pathlib import Path
from unittest import mock

import pandas as pd
from recbole.utils import init_logger

from recbole_farzi.configuration import build_config, parse_overrides
from recbole_farzi.data import load_split
from recbole_farzi.factorisation import factorise
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import read_options
from recbole_farzi.provenance import environment
from recbole_farzi.storage import write_text
from recbole_farzi.trainer import FarziTrainer

ROOT = Path(__file__).resolve().parent.parent
WAYS = {"least divergence": factorise, "largest singular values": functools.partial(factorise, steps=0)}
STUDENTS = 4


def validated(model, dataset, overrides, way, rank):
    """Validation of students of a start: mean metrics, bytes, and RecBole's Config."""
    given = {
        "show_progress": False, "state": "ERROR", **overrides, "farzi_latent_dim": rank, "farzi_outer_steps": 0,
        "farzi_start_draws": 1, "farzi_eval_students": STUDENTS,
    }  # fmt: skip
    config, model_class = build_config(model, dataset, (), given)
    read_options(config)
    init_logger(config)
    logging.getLogger().setLevel(logging.ERROR)
    split = load_split(config)
    trainer = FarziTrainer(config, ModelFactory(model_class, config, split.train.dataset)(config["seed"]))
    with mock.patch("recbole_farzi.starts.factorise", WAYS[way]):
        _, metrics = trainer.fit(split.train, split.valid, verbose=False, saved=False)
    return metrics, trainer.summary.nbytes, config


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--dataset", default="ml-100k")
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4, 8, 16, 32])
    known, rest = parser.parse_known_args()
    rows = []
    for rank in known.ranks:
        for way in WAYS:
            metrics, size, config = validated(known.model, known.dataset, parse_overrides(rest), way, rank)
            rows.append({"rank": rank, "factorised by": way, "KB": size / 1024, **metrics})
            print(rows[-1], flush=True)
    table, machine = pd.DataFrame(rows), environment(config["device"])
    folder = ROOT / "results" / "quality"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "start_rank.csv", table.to_csv(index=False))
    write_text(
        folder / "start_rank.md",
        f"# Rank of the teacher's start, undistilled: {known.model}, {known.dataset}\n\nMeans of {STUDENTS} students on validation, "
        "all starts on the same real histories and of the same teacher.\n\n"
        + table.to_markdown(index=False, floatfmt=".4f")
        + f"\n\nMade by `{' '.join(['python benchmarks/start_rank.py', *sys.argv[1:]])}` ({machine['device'].upper()}, {machine['threads']} threads, PyTorch {machine['torch']}).\n",
    )


if __name__ == "__main__":
    main()
