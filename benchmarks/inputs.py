"""Are events better read as items or as distributions, and how long should a student train on them?

    python benchmarks/inputs.py            # SASRec on ML-100K; about ten minutes on two cores

The teacher's start, undistilled, with histories that are distributions (the paper's way), real items, and items that the teacher
generates; students train for different numbers of steps on each. Validation alone is looked at.
Writes ``results/quality/inputs.csv`` and ``.md``.
"""

import argparse

import pandas as pd
from undistilled import put_on_record, start_on_validation

from recbole_farzi.configuration import parse_overrides
from recbole_farzi.options import INPUTS

STUDENTS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--dataset", default="ml-100k")
    parser.add_argument("--steps", nargs="+", type=int, default=[100, 400, 800])
    known, rest = parser.parse_known_args()
    rows = []
    for steps in known.steps:
        for inputs in INPUTS:
            options = {**parse_overrides(rest), "farzi_inputs": inputs, "farzi_inner_steps": steps}
            trainer, _, metrics = start_on_validation(known.model, known.dataset, options, STUDENTS)
            rows.append({"inputs": inputs, "steps": steps, "KB": trainer.summary.nbytes / 1024, **metrics})
            print(rows[-1], flush=True)
    put_on_record(
        "inputs", pd.DataFrame(rows), trainer.config,
        f"What an event is as history, and how long students train: {known.model}, {known.dataset}",
        f"The teacher's start, undistilled, of one draw of histories; means of {STUDENTS} students on validation.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
