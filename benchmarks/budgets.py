"""How far does a longer distillation reach? Quality on test against outer steps and time.

    python run_farzi.py --farzi_outer_steps=200 --farzi_report_path=report/200     # several, of other numbers of steps
    python benchmarks/budgets.py DATASET REPORT_DIR ...

A REPORT_DIR holds ``results.json`` and ``rows.npz`` of one seed of one dataset with the same number of events. Each is a
distillation of its own: its learning rate falls over its own steps, and the summary is the one that was best on validation in
the meantime. Writes ``results/quality/budgets-DATASET.csv``, ``.md`` and, with Matplotlib, ``.png``.
"""

import argparse
import contextlib
import sys

import numpy as np
import pandas as pd
from distillations import FOLDER, METRICS, as_text, read, to_full

from recbole_farzi.report.resampling import bootstrap_means, interval, sample_of_rows
from recbole_farzi.storage import write_text

LABELS = {"hit@10": "HR@10", "ndcg@10": "nDCG@10", "crossentropy": "cross-entropy"}


def table_of(reports):
    """A line for full data, one for the start and one for each number of outer steps."""
    results, first, users = reports[0]
    lines = []

    def add(name, steps, seconds, values, start, validation):
        samples = [sample_of_rows(part, users) for part in (first["full"], start, values)]
        draws = bootstrap_means(samples, seed=0)  # [draws, 3, metrics]
        line = {"trained on": name, "outer steps": steps, "seconds": seconds, "students": len(values), "validation": validation}
        for m, metric in enumerate(METRICS):
            line[metric] = float(values[:, m].mean())
            line[f"{metric}, low"], line[f"{metric}, high"] = interval(draws[:, 2, m])
            if values is not first["full"]:
                names = (f"{metric}, to full{end}" for end in ("", ", low", ", high"))
                full = float(first["full"][:, m].mean())
                line.update(zip(names, to_full(metric, line[metric], full, draws[:, 2, m], draws[:, 0, m])))
        if steps:
            line["gain on start"] = float((start[:, -1] - values[:, -1]).mean())
            line["gain, low"], line["gain, high"] = interval(draws[:, 1, -1] - draws[:, 2, -1])
        lines.append(line)

    def kept(distillation):
        """Validation score of the summary that was kept, of one step or another."""
        return next(v["metrics"].get(score) for v in distillation["validations"] if v["step"] == distillation["best_step"])

    score = results["valid_metric"].lower()
    add("full data", None, None, first["full"], first["full"], None)
    add("start, not distilled", 0, 0.0, first["start"], first["start"], results["distillation"]["validations"][0]["metrics"][score])
    for results, values, _ in reports:
        distillation = results["distillation"]
        add("summary", distillation["outer_steps"], distillation["seconds"], values["summary"], values["start"], kept(distillation))
    return pd.DataFrame(lines)


def page_of(table, reports):
    """The table as people read it, and how each line was made."""
    results = reports[0][0]
    shown = []
    for _, line in table.iterrows():
        cells = {"trained on": line["trained on"]}
        cells["outer steps"] = "–" if pd.isna(line["outer steps"]) else f"{line['outer steps']:.0f}"
        cells["minutes"] = "–" if pd.isna(line["seconds"]) else f"{line['seconds'] / 60:.1f}"
        cells["validation"] = "–" if pd.isna(line["validation"]) else f"{line['validation']:.4f}"
        for metric in METRICS:
            cells[LABELS[metric]] = f"{line[metric]:.4f}"
            if line["trained on"] != "full data":
                estimate = (line[f"{metric}, to full{end}"] for end in ("", ", low", ", high"))
                cells[LABELS[metric]] += " · " + as_text(metric, *estimate)
        gain = not pd.isna(line["gain on start"])
        cells["gain on start"] = f"{line['gain on start']:.3f} ({line['gain, low']:.3f} to {line['gain, high']:.3f})" if gain else "–"
        shown.append(cells)
    made = "\n".join(
        f"* {found['distillation']['outer_steps']} outer steps, the best on validation: {found['distillation']['best_step']}: "
        f"`{found['command']}`"
        for found, _, _ in reports
    )
    return (
        f"# Longer distillations: {results['dataset']}, {results['model']}\n\nOn test, {results['summary']['events']:,} events; the "
        "cross-entropy on validation decides which summary is kept. Beside each number, per cent of full data's; of the cross-entropy "
        "the difference in nats, and how much distillation takes off the start's. 95% intervals over users and students of one "
        f"distillation each.\n\n{pd.DataFrame(shown).to_markdown(index=False, disable_numparse=True)}\n\nMinutes are those of the "
        f"outer steps with their validations, {results['environment']['threads']} threads.\n\n{made}\n\nMade by `python "
        f"benchmarks/budgets.py {results['dataset']} REPORT_DIR ...`.\n"
    )


def setting(results):
    """What has to be alike."""
    free = ("farzi_outer_steps", "farzi_eval_step", "farzi_stopping_step", "farzi_report_path", "farzi_output_path", "farzi_contenders")
    options = {name: value for name, value in results["options"].items() if name not in free}
    return results["model"], results["seed"], options


def draw(table, title, path):
    """Each metric against minutes of distillation, start and full data beside it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(METRICS), figsize=(13, 4.2))
    full, rest = table[table["trained on"] == "full data"].iloc[0], table[table["trained on"] != "full data"]
    minutes = rest["seconds"].to_numpy(float) / 60
    for axis, metric in zip(axes, METRICS):
        axis.axhline(full[metric], color="#555555", linestyle="--", linewidth=1.2, label="full data")
        mean, low, high = (rest[f"{metric}{end}"].to_numpy(float) for end in ("", ", low", ", high"))
        axis.errorbar(
            minutes, mean, yerr=np.stack([mean - low, high - mean]), color="#0072b2", marker="o", capsize=3, linewidth=1.6, label="summary"
        )
        axis.plot(minutes[:1], mean[:1], "s", color="#d55e00", markersize=8, zorder=5, label="start, not distilled")
        for x, y, steps in zip(minutes[1:], mean[1:], rest["outer steps"].to_numpy(float)[1:]):
            axis.annotate(f"{steps:.0f}", (x, y), xytext=(5, 6), textcoords="offset points", fontsize=8, color="#0072b2")
        axis.set_xlabel("minutes of distillation (numbers: outer steps)")
        axis.set_title(f"{LABELS[metric]} on test" + (", less is better" if metric == "crossentropy" else ""), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e6e6e6")
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("reports", nargs="+", metavar="REPORT_DIR")
    arguments = parser.parse_args()
    reports = sorted((read(folder) for folder in arguments.reports), key=lambda report: report[0]["distillation"]["outer_steps"])
    for results, values, users in reports:
        if results["dataset"] != arguments.dataset or not np.array_equal(users, reports[0][2]):
            sys.exit(f"these reports are not all of {arguments.dataset} and one split")
        if setting(results) != setting(reports[0][0]) or not np.array_equal(values["full"], reports[0][1]["full"]):
            sys.exit("these reports differ in more than the number of outer steps")
    table = table_of(reports)
    FOLDER.mkdir(parents=True, exist_ok=True)
    name = FOLDER / f"budgets-{arguments.dataset}"
    write_text(name.with_suffix(".csv"), table.to_csv(index=False))
    text = page_of(table, reports)
    with contextlib.suppress(ImportError):
        draw(table, f"{arguments.dataset}, {reports[0][0]['model']}", name.with_suffix(".png"))
        text = text.replace("Minutes are those", f"![quality against time]({name.name}.png)\n\nMinutes are those")
    write_text(name.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
