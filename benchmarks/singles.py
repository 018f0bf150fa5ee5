"""Does it help to fit the token decoder to what the teacher predicts after every single item, too?

    python benchmarks/singles.py                                                       # SASRec on ML-100K
    python benchmarks/singles.py -d ml-100k amazon-magazine --data_path=datasets

Starts, undistilled, without and with single items (``farzi_start_singles``), on the same histories; their students on
validation. Validation alone is looked at. Writes ``results/quality/singles.csv`` and ``.md``.
"""

import argparse
from dataclasses import replace

import pandas as pd
from undistilled import put_on_record, start_on_validation

from recbole_farzi.configuration import parse_overrides

STUDENTS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--datasets", nargs="+", default=["ml-100k"])
    parser.add_argument("--draws", type=int, default=4, help="starts on histories as they come, and as many on covering ones")
    known, rest = parser.parse_known_args()
    rows = []
    for dataset in known.datasets:
        trainer, split, _ = start_on_validation(known.model, dataset, parse_overrides(rest), STUDENTS)
        summary = replace(trainer.options.summary, start_draws=known.draws, start_covering=known.draws)
        for singles in (0, None):
            found = []
            trainer.options = replace(trainer.options, summary=replace(summary, start_singles=singles))
            for draw in range(2 * known.draws):
                start = trainer._make_start(split.sequences, split.counts, draw)
                found.append(trainer._score(start, split.valid)[0])
            found, count = pd.DataFrame(found), trainer.options.summary.singles(len(split.counts))
            rows.append({"dataset": dataset, "events": start.events, "single items": count, **found.mean(), "crossentropy, spread": found["crossentropy"].std()})
            rows[-1]["crossentropy, best"] = found["crossentropy"].min()
            print(rows[-1], flush=True)
    put_on_record(
        "singles", pd.DataFrame(rows), trainer.config, f"What else the token decoder is fitted to: {known.model}",
        f"The teacher's start, undistilled; means of {2 * known.draws} starts on other histories, half of them covering, with {STUDENTS} "
        "students each, on validation; spread: standard deviation over the starts.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
