"""What does the rank of the teacher's start cost, factorised by its divergence and by cutting singular values?

    python benchmarks/start_rank.py                                                       # SASRec on ML-100K
    python benchmarks/start_rank.py -d ml-100k amazon-magazine --data_path=datasets       # 25 minutes on one core

For each rank the same histories are labelled by the same teacher, factorised both ways, and students are trained on the
result, undistilled. Validation alone is looked at. Writes ``results/quality/start_rank.csv`` and ``.md``.
"""

import argparse
import functools
from unittest import mock

import pandas as pd
from undistilled import put_on_record, start_on_validation

from recbole_farzi.configuration import parse_overrides
from recbole_farzi.factorisation import divergence, factorise
from recbole_farzi.starts import MOST_LOST

WAYS = {"least divergence": factorise, "largest singular values": functools.partial(factorise, steps=0)}
STUDENTS = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--datasets", nargs="+", default=["ml-100k"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[4, 8, 16, 24, 32, 48])
    known, rest = parser.parse_known_args()
    rows = []
    for dataset in known.datasets:
        for rank in known.ranks:
            options = {**parse_overrides(rest), "farzi_latent_dim": rank}
            for way, function in WAYS.items():
                made = []

                def kept(logs, *args, function=function, made=made):
                    made[:] = [logs, *function(logs, *args)]
                    return made[1:]

                with mock.patch("recbole_farzi.factorisation.factorise", kept):
                    trainer, _, metrics = start_on_validation(known.model, dataset, options, STUDENTS)
                logs, left, *others = made
                events = trainer.summary.events
                lost = divergence(logs[:events], left[:events], *others).item()
                rows.append({"dataset": dataset, "rank": rank, "factorised by": way, "lost, nats": lost, "KB": trainer.summary.nbytes / 1024, **metrics})
                print(rows[-1], flush=True)
    put_on_record(
        "start_rank", pd.DataFrame(rows), trainer.config, f"Rank of the teacher's start, undistilled: {known.model}",
        f"Means of {STUDENTS} students on validation; of a dataset all starts on the same histories and of the same teacher. Lost: the mean divergence of an "
        f"event's distribution from what the teacher predicts, before it is rounded. By default the first of 16, 24 and 32 is taken that loses no more than {MOST_LOST}, or 32.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
