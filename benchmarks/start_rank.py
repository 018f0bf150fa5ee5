"""What does the rank of the teacher's start cost, factorised by its divergence and by cutting singular values?

    python benchmarks/start_rank.py            # SASRec on ML-100K; about ten minutes on two cores

For each rank the same histories are labelled by the same teacher, factorised both ways, and students are trained on the
result, undistilled. Validation alone is looked at. Writes ``results/quality/start_rank.csv`` and ``.md``.
"""

import argparse
import functools
from unittest import mock

import pandas as pd
from undistilled import put_on_record, start_on_validation

from recbole_farzi.configuration import parse_overrides
from recbole_farzi.factorisation import factorise

WAYS = {"least divergence": factorise, "largest singular values": functools.partial(factorise, steps=0)}
STUDENTS = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--dataset", default="ml-100k")
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4, 8, 16, 32])
    known, rest = parser.parse_known_args()
    rows = []
    for rank in known.ranks:
        options = {**parse_overrides(rest), "farzi_latent_dim": rank}
        for way, function in WAYS.items():
            with mock.patch("recbole_farzi.starts.factorise", function):
                trainer, _, metrics = start_on_validation(known.model, known.dataset, options, STUDENTS)
            rows.append({"rank": rank, "factorised by": way, "KB": trainer.summary.nbytes / 1024, **metrics})
            print(rows[-1], flush=True)
    put_on_record(
        "start_rank", pd.DataFrame(rows), trainer.config,
        f"Rank of the teacher's start, undistilled: {known.model}, {known.dataset}",
        f"Means of {STUDENTS} students on validation, all starts on the same histories and of the same teacher.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
