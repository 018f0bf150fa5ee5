"""The cross-architecture table: trained models by distilling models, against each model's own full-data quality."""

import csv
import io
import statistics

from recbole_farzi.report import words

__all__ = ["csv_document", "markdown_document"]


def markdown_document(results):
    """The table of each metric, and how it was made.

    Args:
        results: the dict that ``architectures.json`` holds.
    """
    names = [summary["model"] for summary in results["summaries"]]
    parts = [f"# Models trained on each other's summaries, {results['dataset']}"]
    seeds = max(len(student["full"]) for student in results["students"])
    how = f"Mean and standard deviation over {seeds} seeds" if seeds > 1 else "One seed"
    parts.append(
        f"Rows: the model that trains. Columns: the model that distilled the summary. {how}, on {results['test_rows']:,} test rows; "
        "in brackets per cent of the same model's quality on all the training data."
    )
    for metric in results["metrics"]:
        lower = metric in results["smaller_is_better"]
        parts.append(f"**{words.metric_name(metric)}**" + (" (less is better; differences in nats)" if lower else ""))
        header = ["trained model", "full data", *(f"summary of {name}" for name in names)]
        rows = [header, ["---", *["---:"] * (len(header) - 1)]]
        for student in results["students"]:
            full = [run["metrics"][metric] for run in student["full"]]
            cells = [student["model"], _spread(full)]
            for name in names:
                values = [run["metrics"][metric] for run in student["on"][name]]
                cells.append(f"{_spread(values)} ({_against(values, full, lower)})")
            rows.append(cells)
        parts.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
    parts.append("Summaries: " + "; ".join(_summary(summary, results["training_events"]) for summary in results["summaries"]) + ".")
    rows = [["trained model", "how it reads and trains", "seconds on full data", "seconds on a summary"], ["---", "---", "---:", "---:"]]
    for student in results["students"]:
        soft = [run["seconds"] for name in names for run in student["on"][name]]
        full = [run["seconds"] for run in student["full"]]
        rows.append([student["model"], student["reads"], *(f"{statistics.mean(times):.1f}" for times in (full, soft))])
    parts.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
    budgets = {}
    for student in results["students"]:
        options = tuple(sorted((name, str(value)) for name, value in student["options"].items()))
        budgets.setdefault(options, []).append(student["model"])
    for options, models in budgets.items():
        budget = ", ".join(f"{name} {value}" for name, value in options)
        parts.append(f"Budget of training on real events ({', '.join(models)}): {budget}.")
    environment = results["environment"]
    made = f"Made by `{results['command']}`" if results["command"] else "Made"
    parts.append(
        f"{made} on {results['date']}: {environment['device']}, {environment['threads']} thread(s), PyTorch {environment['torch']}, "
        f"RecBole {environment['recbole']}."
    )
    return "\n\n".join(parts) + "\n"


def csv_document(results):
    """One row for each run and metric: trained model, distilling model (empty: full data), seed, metric, value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trained", "distilled_by", "seed", "seconds", "metric", "value"])
    for student in results["students"]:
        for name, runs in [("", student["full"]), *student["on"].items()]:
            for run in runs:
                for metric, value in run["metrics"].items():
                    writer.writerow([student["model"], name, run["seed"], run["seconds"], metric, repr(value)])
    return out.getvalue()


def _spread(values):
    mean = statistics.mean(values)
    return f"{mean:.4f}" if len(values) < 2 else f"{mean:.4f} ± {statistics.stdev(values):.4f}"


def _against(values, full, lower):
    mean, whole = statistics.mean(values), statistics.mean(full)
    if lower:
        return f"{mean - whole:+.2f}"
    return "–" if whole == 0 else f"{100 * mean / whole:.0f}%"


def _summary(summary, training_events):
    share = 100 * summary["events"] / training_events
    return (
        f"{summary['model']}'s has {summary['events']:,} events ({share:.1f}% of the real ones), the best on validation of "
        f"{summary['outer_steps']} outer steps (step {summary['best_step']})"
    )
