"""How many models should teach?

    python benchmarks/teachers.py                                                       # SASRec on ML-100K
    python benchmarks/teachers.py -d ml-100k amazon-magazine --data_path=datasets

The start, undistilled, from the mean prediction of the best one, two or three of a pool of three models; its students on
validation. Validation alone is looked at. Writes ``results/quality/teachers.csv`` and ``.md``.
"""

import argparse

import pandas as pd
from undistilled import put_on_record, starts_on_validation

from recbole_farzi.configuration import parse_overrides

STUDENTS, MODELS = 4, 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--datasets", nargs="+", default=["ml-100k"])
    parser.add_argument("--draws", type=int, default=3, help="starts, on other histories each")
    known, rest = parser.parse_known_args()
    rows = []
    for dataset in known.datasets:
        for teachers in range(1, MODELS + 1):
            options = {**parse_overrides(rest), "farzi_pool_models": MODELS, "farzi_pool_teachers": teachers}
            trainer, means = starts_on_validation(known.model, dataset, options, STUDENTS, known.draws)
            rows.append({"dataset": dataset, "teachers": teachers, **means})
            print(rows[-1], flush=True)
    put_on_record(
        "teachers", pd.DataFrame(rows), trainer.config, f"How many models teach: {known.model}",
        f"The teacher's start, undistilled; means of {known.draws} starts on other histories, with {STUDENTS} students each, on "
        "validation; spread: standard deviation over the starts.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
