"""One table from several distillations of a dataset, made with other seeds: what holds beyond one summary?

    python run_farzi.py --seed=2030 --farzi_report_path=report/2030     # several, of other seeds and sizes
    python benchmarks/distillations.py DATASET REPORT_DIR ...

A REPORT_DIR holds ``results.json`` and ``rows.npz``. Results of the same number of events are pooled. Writes
``results/quality/distillations-DATASET.csv`` and ``.md``, and renews the README's table of all datasets from these, and its picture
(``distillations.png``; needs Matplotlib).

Intervals are of a bootstrap over test users and distillations: the students of a distillation, which share its summary (and
the models of its pool), are averaged first, and the distillations' own spread is added by Student's t
(:mod:`recbole_farzi.report.resampling`). With two distillations that t has one degree of freedom, and a
spread that happens to be large makes an interval of no use: so the interval over users and students alone stands beside it.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_farzi.report.resampling import bootstrap_means, interval, sample_of_rows
from recbole_farzi.storage import read_arrays, read_json, write_text

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "quality"
BEGIN, END = "<!-- distillations:begin -->", "<!-- distillations:end -->"
METRICS = ["hit@10", "ndcg@10", "crossentropy"]
CONTENDERS = {"full": "full data", "start": "start, not distilled", "summary": "summary"}
UNTRAINED = {"markov": "Markov chain", "teacher": "teacher"}  # in the table, too, where all reports have them


def read(folder):
    """``(results, {contender: values [runs, metrics, rows]}, users [rows])`` of a report."""
    results, rows = read_json(Path(folder) / "results.json"), read_arrays(Path(folder) / "rows.npz")
    chosen = [results["row_metrics"].index(metric) for metric in METRICS]
    names = [*CONTENDERS, *(key for key in UNTRAINED if f"all/{key}" in rows)]
    return results, {key: rows[f"all/{key}"][:, chosen] for key in names}, rows["all/users"]


def to_full(metric, mean, full, own, other):
    """A mean as part of full data's, or of the cross-entropy the difference; and its 95% interval from draws of both."""
    less = metric == "crossentropy"
    return (mean - full if less else mean / full, *interval(own - other if less else own / other))


def as_text(metric, *estimate):
    """Such an estimate, as people read it."""
    return ("{:+.3f} ({:+.3f} to {:+.3f})" if metric == "crossentropy" else "{:.0%} ({:.0%}–{:.0%})").format(*estimate)


def compare(group):
    """Lines of the table for the results of one size."""
    users = group[0][2]
    if any(not np.array_equal(users, other) for _, _, other in group):
        sys.exit("these reports are of different test splits")
    contenders = {**CONTENDERS, **{key: label for key, label in UNTRAINED.items() if all(key in values for _, values, _ in group)}}
    nested = [sample_of_rows(np.stack([values[key].mean(axis=0) for _, values, _ in group]), users) for key in contenders]
    flat = [sample_of_rows(np.concatenate([values[key] for _, values, _ in group]), users) for key in contenders]
    ways = [bootstrap_means(samples, seed=0) for samples in (nested, flat)]  # [draws, contenders, metrics]
    summary, sizes = group[0][0]["summary"], dict.fromkeys(str(results["summary"]["bytes"]) for results, _, _ in group)
    lines = []
    for place, (key, label) in enumerate(contenders.items()):
        for m, metric in enumerate(METRICS):
            means = [float(values[key][:, m].mean()) for _, values, _ in group]
            mean, full = flat[place].means.mean(axis=0)[m], flat[0].means.mean(axis=0)[m]
            line = {
                "events": summary["events"] if key in ("start", "summary") else group[0][0]["data"]["training_events"],
                "bytes": " / ".join(sizes) if key in ("start", "summary") else "", "contender": label, "metric": metric,
                "distillations": len(group), "students": len(flat[place].sums), "mean": mean,
                "of each": " / ".join(f"{value:.4f}" for value in means),
            }  # fmt: skip
            if key != "full":
                for name, draws in list(zip(("distillations", "students"), ways))[len(group) == 1 :]:  # one has no spread of its own
                    line["to full"], line[f"low, {name}"], line[f"high, {name}"] = to_full(
                        metric, mean, full, draws[:, place, m], draws[:, 0, m]
                    )
            if key == "summary":
                line["start"] = flat[1].means.mean(axis=0)[m]
                line["low, start"], line["high, start"] = interval(ways[1][:, 2, m] - ways[1][:, 1, m])
            lines.append(line)
    return lines


def shown(line):
    """The comparison with full data, as people read it."""
    return tuple(
        "–" if pd.isna(line.get(f"low, {name}", np.nan))
        else as_text(line["metric"], line["to full"], line[f"low, {name}"], line[f"high, {name}"])
        for name in ("distillations", "students")
    )  # fmt: skip


def chain_of(results):
    """How much of a Markov chain taught, in words; nothing where there was no choice."""
    found = results["distillation"].get("interpolation")
    return f"{found['weight']:.0%} of a Markov chain in the teacher ({found['likeliest']:.0%} is likeliest), " if found else ""


def readme_table():
    """A line for each dataset and size on record, with the intervals over users and students."""
    rows = []
    for file in sorted(FOLDER.glob("distillations-*.csv")):
        table = pd.read_csv(file)
        full = table[table["contender"] == "full data"]["events"].iloc[0]
        for events, lines in table[table["contender"] == "summary"].groupby("events", sort=False):
            of = {line["metric"]: line for _, line in lines.iterrows()}
            loss = of["crossentropy"]
            rows.append(
                {
                    "on test, of full data": f"[{file.stem.removeprefix('distillations-')}]({file.relative_to(ROOT).with_suffix('.md').as_posix()})",
                    "events": f"{events:,.0f} ({events / full:.1%})",
                    "KB": " / ".join(f"{float(size) / 1024:.0f}" for size in str(loss["bytes"]).split(" / ")),
                    "distillations x students": f"{loss['distillations']} x {loss['students'] // loss['distillations']}",
                    "HR@10": shown(of["hit@10"])[1],
                    "nDCG@10": shown(of["ndcg@10"])[1],
                    "cross-entropy, difference": shown(loss)[1],
                    "cross-entropy, less than the undistilled start's by": f"{loss['start'] - loss['mean']:.3f} "
                    f"({-loss['high, start']:.3f} to {-loss['low, start']:.3f})",
                }
            )
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def draw(path):
    """A picture of all that is on record: start and summary against full data, with the intervals over users and students."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = []  # name, {(contender, metric): line}
    for file in sorted(FOLDER.glob("distillations-*.csv")):
        table = pd.read_csv(file)
        real = table["contender"] == CONTENDERS["full"]
        for events, lines in table[~real & table["contender"].isin(CONTENDERS.values())].groupby("events", sort=False):
            share = events / table[real]["events"].iloc[0]
            of = {(line["contender"], line["metric"]): line for _, line in lines.iterrows()}
            rows.append((f"{file.stem.removeprefix('distillations-')}\n{share:.1%} of the events", of))
    figure, axes = plt.subplots(1, len(METRICS), figsize=(11, 1.3 + 0.55 * len(rows)), sharey=True)
    styles = {"start": ("s", "#d55e00", 0.14), "summary": ("o", "#0072b2", -0.14)}
    titles = ("HR@10, % of full data\n", "nDCG@10, % of full data\n", "cross-entropy less full data's, nats\n(less is better)")
    for axis, metric, title in zip(axes, METRICS, titles):
        less = metric == "crossentropy"
        axis.axvline(0 if less else 100, color="#555555", linestyle="--", linewidth=1.2)
        for key, (marker, colour, shift) in styles.items():
            lines = [of[CONTENDERS[key], metric] for _, of in rows]
            found = np.array([[line[name] for name in ("to full", "low, students", "high, students")] for line in lines], dtype=float)
            mean, low, high = (found * (1 if less else 100)).T
            axis.errorbar(
                mean, np.arange(len(rows)) + shift, xerr=[mean - low, high - mean], fmt=marker, color=colour, capsize=3,
                label=CONTENDERS[key] if key == "start" else "summary, distilled",
            )  # fmt: skip
        axis.set_title(title, fontsize=10)
        axis.xaxis.set_major_locator(plt.MaxNLocator(4))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#e6e6e6")
    axes[0].set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=9)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.4 / figure.get_figheight(), 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("reports", nargs="+", metavar="REPORT_DIR")
    arguments = parser.parse_args()
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit("the picture needs Matplotlib: pip install -c constraints.txt -e '.[benchmarks]'")
    groups = {}
    for folder in arguments.reports:
        found = read(folder)
        if found[0]["dataset"] != arguments.dataset:
            sys.exit(f"{folder} is of {found[0]['dataset']}")
        groups.setdefault(found[0]["summary"]["events"], []).append(found)
    table = pd.DataFrame([line for _, group in sorted(groups.items(), reverse=True) for line in compare(group)])
    page = pd.DataFrame(
        {
            "events": table["events"].map("{:,}".format),
            "contender": table["contender"],
            "metric": table["metric"],
            "distillations x students": [f"{d} x {s // d}" for d, s in zip(table["distillations"], table["students"])],
            "mean": table["mean"].map("{:.4f}".format),
            "of each distillation": table["of each"],
            "to full data (95%, users and distillations)": [shown(line)[0] for _, line in table.iterrows()],
            "(95%, users and students)": [shown(line)[1] for _, line in table.iterrows()],
        }
    )
    gains = [
        f"* {events:,} events, summary less its start: "
        + ", ".join(f"{line['metric']} {line['mean'] - line['start']:+.4f} ({line['low, start']:+.4f} to {line['high, start']:+.4f})"
                    for _, line in lines.iterrows())
        + " (users and students)."
        for events, lines in table[table["contender"] == CONTENDERS["summary"]].groupby("events", sort=False)
    ]  # fmt: skip
    made = "\n".join(
        f"* seed {r['seed']}, {r['summary']['sequences']} x {r['summary']['length']} events, {r['summary']['bytes'] / 1024:.0f} KB, {chain_of(r)}"
        f"best of {r['distillation']['outer_steps']} outer steps on validation: {r['distillation']['best_step']}: `{r['command']}`"
        for group in groups.values()
        for r, _, _ in group
    )
    model = next(iter(groups.values()))[0][0]["model"]
    text = (
        f"# Several distillations: {arguments.dataset}, {model}\n\nOn test. Per cent of full data's mean; of the cross-entropy the "
        "difference in nats. Full data's models are those of each distillation's pool.\n\n"
        f"{page.to_markdown(index=False, disable_numparse=True)}\n\n" + "\n".join(gains) + f"\n\n{made}\n\n"
        f"Made by `python benchmarks/distillations.py {arguments.dataset} REPORT_DIR ...`.\n"
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_text(FOLDER / f"distillations-{arguments.dataset}.csv", table.to_csv(index=False))
    write_text(FOLDER / f"distillations-{arguments.dataset}.md", text)
    draw(FOLDER / "distillations.png")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before, after = readme.split(BEGIN)[0], readme.split(END)[1]
    picture = "![Students of the summary and of its start against full data](results/quality/distillations.png)"
    write_text(ROOT / "README.md", f"{before}{BEGIN}\n\n{picture}\n\n{readme_table()}\n\n{END}{after}")
    print(text)


if __name__ == "__main__":
    main()
