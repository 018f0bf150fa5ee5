"""Does it help to choose a start's histories so that they show as much of the real events as they can?

    python benchmarks/coverage.py                                                       # SASRec on ML-100K
    python benchmarks/coverage.py -d ml-100k amazon-magazine --data_path=datasets

Starts, undistilled, on histories as they come and on ones that are chosen from many (``farzi_start_covering``); their
students on validation. Validation alone is looked at. Writes ``results/quality/coverage.csv`` and ``.md``.
"""

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd
from undistilled import put_on_record, start_on_validation

from recbole_farzi.configuration import parse_overrides

STUDENTS = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--datasets", nargs="+", default=["ml-100k"])
    parser.add_argument("--draws", type=int, default=4, help="starts of each kind, on other histories each")
    known, rest = parser.parse_known_args()
    rows, given = [], parse_overrides(rest)
    if given.get("farzi_inputs") == "soft":
        parser.error("farzi_inputs=soft shows no items that could be counted")
    for dataset in known.datasets:
        trainer, split, _ = start_on_validation(known.model, dataset, given, STUDENTS)
        summary = replace(trainer.options.summary, start_draws=known.draws, start_covering=known.draws)
        trainer.options = replace(trainer.options, summary=summary)
        for chosen, first in (("as they come", 0), ("covering", known.draws)):
            found = []
            for draw in range(first, first + known.draws):
                start = trainer._make_start(split.sequences, split.counts, draw)
                items = np.unique(start.inputs[:, :-1].numpy())
                share = split.counts[items].sum() / split.counts.sum()
                found.append({"items": len(items), "share of events": share, **trainer._score(start, split.valid)[0]})
            found = pd.DataFrame(found)
            rows.append({"dataset": dataset, "events": start.events, "histories": chosen, **found.mean(), "crossentropy, spread": found["crossentropy"].std()})
            rows[-1]["crossentropy, best"] = found["crossentropy"].min()
            print(rows[-1], flush=True)
    put_on_record(
        "coverage", pd.DataFrame(rows), trainer.config, f"Histories that show as much as they can: {known.model}",
        f"The teacher's start, undistilled; means of {known.draws} starts on other histories, with {STUDENTS} students each, on "
        "validation; spread: standard deviation over the starts. Items that are read in a history, and their share of the real events.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
