"""Whom a summary fails: test rows whose last item it shows as history, against those whose last item it does not.

    python benchmarks/shown_items.py DATASET REPORT_DIR=SUMMARY_DIR ...

A REPORT_DIR holds ``results.json`` and ``rows.npz`` of the summary in SUMMARY_DIR. A summary has fewer events than most datasets have
items: an item that none of its histories shows, a student knows from having to predict it alone. Several distillations are
pooled. Writes ``results/quality/shown-DATASET.csv`` and ``.md``.

Intervals: bootstrap over test users, the same for all models and distillations; students are averaged first.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_farzi.report.resampling import interval
from recbole_farzi.storage import read_arrays, read_json, write_text

FOLDER = Path(__file__).resolve().parent.parent / "results" / "quality"
CONTENDERS = {"full": "full data", "start": "start", "summary": "summary"}
DRAWS = 2000


def shown_of(folder):
    """Items that a summary shows as history: all inputs but those of the last events, which nothing follows."""
    table = pd.read_csv(folder / f"{folder.name}.latent", sep="\t", dtype={"item_id:token": str}, keep_default_na=False, quoting=3)
    if "item_id:token" not in table:
        sys.exit(f"{folder}: events of this summary are distributions where they are read, so that all items are shown")
    return set(table.loc[table["position:float"] < table["position:float"].max(), "item_id:token"])


def read(report, folder):
    """``({contender: values [metrics, rows]}, shown [rows], users [rows])``, the mean of a contender's students."""
    results, rows = read_json(report / "results.json"), read_arrays(report / "rows.npz")
    if results["summary"]["sha256"] != read_json(folder / "recipe.json")["summary_sha256"]:
        sys.exit(f"{report} is not of the summary in {folder}")
    metrics = [results["row_metrics"].index(metric) for metric in ("hit@10", "crossentropy")]
    histories = pd.read_csv(folder / f"{folder.name}.test.inter", sep="\t", dtype=str, keep_default_na=False, quoting=3)
    histories = histories["item_id_list:token_seq"].str.split(" ")
    if len(histories) != len(rows["all/users"]):
        sys.exit(f"{report} and {folder} are of different test splits")
    shown = shown_of(folder)
    values = {key: rows[f"all/{key}"][:, metrics].mean(axis=0) for key in CONTENDERS}
    return values, np.array([history[-1] in shown for history in histories]), rows["all/users"]


def lines(pairs):
    """A line for each kind of rows: what full data, start and summary reach on it, and the summary against full data."""
    read_pairs = [read(*pair) for pair in pairs]
    if any(not np.array_equal(users, read_pairs[0][2]) for *_, users in read_pairs):
        sys.exit("these reports are of different test splits")
    count = len(read_pairs[0][1])
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1.0 / count), size=DRAWS).astype(float)
    for name, wanted in (("shown", True), ("not shown", False)):
        masks = [shown == wanted for _, shown, _ in read_pairs]
        size = sum(mask.sum() for mask in masks)
        drawn = sum(weights @ mask for mask in masks)
        line = {"last item": name, "rows": size / (count * len(masks))}
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
    arguments = parser.parse_args()
    pairs = [tuple(map(Path, pair.split("=", 1))) for pair in arguments.pairs]
    for report, _ in pairs:
        if read_json(report / "results.json")["dataset"] != arguments.dataset:
            sys.exit(f"{report} is not of {arguments.dataset}")
    table = pd.DataFrame(lines(pairs))
    shown = pd.DataFrame(
        {
            "last item of the history": table["last item"],
            "test rows": table["rows"].map("{:.0%}".format),
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
        "summary shows, and the others. 95% intervals over users.\n\n"
        f"{shown.to_markdown(index=False, disable_numparse=True)}\n\nMade by `python benchmarks/shown_items.py {arguments.dataset} "
        "REPORT_DIR=SUMMARY_DIR ...` from the reports of "
        f"[distillations-{arguments.dataset}.md](distillations-{arguments.dataset}.md).\n"
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_text(FOLDER / f"shown-{arguments.dataset}.csv", table.to_csv(index=False))
    write_text(FOLDER / f"shown-{arguments.dataset}.md", text)
    print(text)


if __name__ == "__main__":
    main()
