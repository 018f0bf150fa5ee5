"""Whom a summary fails: test rows by whether it shows their last item as history, and by whether training data have the pair.

    python benchmarks/whom_it_fails.py DATASET REPORT_DIR=SUMMARY_DIR ... [options of the runs, such as --data_path=datasets]

The pair is the last item of a test row's history and the item that follows: in training data where somebody had one right after
the other. A REPORT_DIR holds ``results.json`` and ``rows.npz`` of the summary in SUMMARY_DIR. A summary has fewer events than most datasets have
items: an item that none of its histories shows, a student knows from having to predict it alone. Several distillations are
pooled. Writes ``results/quality/whom-it-fails-DATASET.csv`` and ``.md``.

Intervals: bootstrap over test users, the same for all models and distillations; students are averaged first.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_farzi.configuration import build_config, parse_overrides
from recbole_farzi.data import load_split
from recbole_farzi.report.resampling import interval
from recbole_farzi.storage import read_arrays, read_json, write_text

FOLDER = Path(__file__).resolve().parent.parent / "results" / "quality"
CONTENDERS = {"full": "full data", "start": "start", "summary": "summary"}
DRAWS = 2000
KINDS = ("last item shown by the summary", "last item not shown", "pair in training data", "pair not in training data")


def shown_of(folder):
    """Items that a summary shows as history: all inputs but those of the last events, which nothing follows."""
    table = pd.read_csv(folder / f"{folder.name}.latent", sep="\t", dtype={"item_id:token": str}, keep_default_na=False, quoting=3)
    if "item_id:token" not in table:
        sys.exit(f"{folder}: events of this summary are distributions where they are read, so that all items are shown")
    return set(table.loc[table["position:float"] < table["position:float"].max(), "item_id:token"])


def pairs_of(dataset, options, events):
    """Tokens of items that somebody had right after each other in training, of so many events."""
    config, _ = build_config("SASRec", dataset, (), {"state": "ERROR", "show_progress": False, **options})
    split = load_split(config)
    if split.sequences.events != events:
        sys.exit(f"with these options {dataset} has {split.sequences.events:,} training events, the reports {events:,}: give those of the runs")
    tokens = split.train.dataset.field2id_token[config["ITEM_ID_FIELD"]]
    return {tuple(tokens[list(pair)]) for items in split.sequences.items for pair in itertools.pairwise(items)}


def read(report, folder, known):
    """``({contender: values [metrics, rows]}, {kind: rows of it [rows]}, users [rows])``, the mean of a contender's students."""
    results, rows = read_json(report / "results.json"), read_arrays(report / "rows.npz")
    if results["summary"]["sha256"] != read_json(folder / "recipe.json")["summary_sha256"]:
        sys.exit(f"{report} is not of the summary in {folder}")
    metrics = [results["row_metrics"].index(metric) for metric in ("hit@10", "crossentropy")]
    histories = pd.read_csv(folder / f"{folder.name}.test.inter", sep="\t", dtype=str, keep_default_na=False, quoting=3)
    targets, histories = histories["item_id:token"], histories["item_id_list:token_seq"].str.split(" ")
    if len(histories) != len(rows["all/users"]):
        sys.exit(f"{report} and {folder} are of different test splits")
    shown = shown_of(folder)
    values = {key: rows[f"all/{key}"][:, metrics].mean(axis=0) for key in CONTENDERS}
    here = np.array([history[-1] in shown for history in histories])
    before = np.array([(history[-1], target) in known for history, target in zip(histories, targets)])
    return values, dict(zip(KINDS, (here, ~here, before, ~before))), rows["all/users"]


def lines(pairs, known):
    """A line for each kind of rows: what full data, start and summary reach on it, and the summary against full data."""
    read_pairs = [read(*pair, known) for pair in pairs]
    if any(not np.array_equal(users, read_pairs[0][2]) for *_, users in read_pairs):
        sys.exit("these reports are of different test splits")
    count = len(read_pairs[0][2])
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1.0 / count), size=DRAWS).astype(float)
    for kind in KINDS:
        masks = [kinds[kind] for _, kinds, _ in read_pairs]
        size = sum(mask.sum() for mask in masks)
        drawn = sum(weights @ mask for mask in masks)
        line = {"kind": kind, "rows": size / (count * len(masks))}
        draws = {}
        for key, label in CONTENDERS.items():
            sums = sum((values[key] * mask).sum(axis=1) for (values, *_), mask in zip(read_pairs, masks))
            line[f"hit@10, {label}"], line[f"crossentropy, {label}"] = sums / size
            draws[key] = sum(weights @ (values[key] * mask).T for (values, *_), mask in zip(read_pairs, masks)) / drawn[:, None]
        line["hit@10 of full data"] = line["hit@10, summary"] / line["hit@10, full data"]
        line["low"], line["high"] = interval(draws["summary"][:, 0] / draws["full"][:, 0])
        line["crossentropy to full data"] = line["crossentropy, summary"] - line["crossentropy, full data"]
        line["low, crossentropy"], line["high, crossentropy"] = interval(draws["summary"][:, 1] - draws["full"][:, 1])
        yield line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("pairs", nargs="+", metavar="REPORT_DIR=SUMMARY_DIR")
    arguments, rest = parser.parse_known_args()
    pairs = [tuple(map(Path, pair.split("=", 1))) for pair in arguments.pairs]
    for report, _ in pairs:
        results = read_json(report / "results.json")
        if results["dataset"] != arguments.dataset:
            sys.exit(f"{report} is not of {arguments.dataset}")
    table = pd.DataFrame(lines(pairs, pairs_of(arguments.dataset, parse_overrides(rest), results["data"]["training_events"])))
    shown = pd.DataFrame(
        {
            "test rows": table["kind"],
            "share": table["rows"].map("{:.0%}".format),
            **{f"HR@10, {label}": table[f"hit@10, {label}"].map("{:.4f}".format) for label in CONTENDERS.values()},
            "summary, of full data": [f"{r['hit@10 of full data']:.0%} ({r['low']:.0%}–{r['high']:.0%})" for _, r in table.iterrows()],
            "cross-entropy, difference to full data": [
                f"{r['crossentropy to full data']:+.3f} ({r['low, crossentropy']:+.3f} to {r['high, crossentropy']:+.3f})"
                for _, r in table.iterrows()
            ],
        }
    )
    text = (
        f"# Whom a summary fails: {arguments.dataset}\n\nOn test, {len(pairs)} distillations: users whose last item a history of the "
        "summary shows, and the others; users whose last item and the one that follows somebody had right after each other in training "
        "data, and the others. 95% intervals over users.\n\n"
        f"{shown.to_markdown(index=False, disable_numparse=True)}\n\nMade by `python benchmarks/whom_it_fails.py {arguments.dataset} "
        "REPORT_DIR=SUMMARY_DIR ... --data_path=DIR` from the reports of "
        f"[distillations-{arguments.dataset}.md](distillations-{arguments.dataset}.md).\n"
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_text(FOLDER / f"whom-it-fails-{arguments.dataset}.csv", table.to_csv(index=False))
    write_text(FOLDER / f"whom-it-fails-{arguments.dataset}.md", text)
    print(text)


if __name__ == "__main__":
    main()
