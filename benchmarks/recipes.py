"""How should a student train on a summary?

    python benchmarks/recipes.py                                                       # SASRec on ML-100K
    python benchmarks/recipes.py -d ml-100k amazon-magazine --data_path=datasets

The start, undistilled, of several draws of histories, with the default recipe and with one thing in it changed at a time;
its students on validation. Validation alone is looked at. Writes ``results/quality/recipes.csv`` and ``.md``.
"""

import argparse

import pandas as pd
from undistilled import put_on_record, starts_on_validation

from recbole_farzi.configuration import parse_overrides

STUDENTS, DRAWS = 4, 3
CHANGES = [
    {},
    {"farzi_inner_dropout": True},
    {"farzi_inner_steps": 200},
    {"farzi_inner_steps": 800},
    {"farzi_inner_learning_rate": 0.0075},
    {"farzi_inner_learning_rate": 0.03},
    {"farzi_latent_dim": 8},  # the others have 16
    {"farzi_latent_dim": 32},
    {"farzi_bits": 16},
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--datasets", nargs="+", default=["ml-100k"])
    known, rest = parser.parse_known_args()
    rows = []
    for dataset in known.datasets:
        for change in CHANGES:
            options = {**parse_overrides(rest), **change}
            trainer, means = starts_on_validation(known.model, dataset, options, STUDENTS, DRAWS)
            changed = ", ".join(f"{name}: {value}" for name, value in change.items()) or "as in properties/"
            rows.append({"dataset": dataset, "recipe": changed, **means, "teacher's crossentropy": trainer.pool.score})
            print(rows[-1], flush=True)
            put_on_record(
                "recipes", pd.DataFrame(rows), trainer.config, f"How a student trains on a summary: {known.model}",
                f"The teacher's start, undistilled; means of {DRAWS} starts on other histories, with {STUDENTS} students "
                "each, on validation; spread: standard deviation over the starts; teacher: the best of the pool.",
            )  # fmt: skip


if __name__ == "__main__":
    main()
