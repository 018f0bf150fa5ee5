"""The cross-architecture table: trained models by distilling models, against each model's own full-data quality."""

import csv
import io
import statistics

from recbole_farzi.report import words
from recbole_farzi.report.uncertainty import estimate

__all__ = ["csv_document", "headline", "markdown_document", "relative_intervals", "relative_table"]


def relative_intervals(arrays, names, row_metrics):
    """95% intervals, over users and seeds, of a model's quality on each summary against its own on full data.

    Args:
        arrays: what :func:`recbole_farzi.results.gather` found for the contenders ``full`` and ``names``.
        names: the summaries.
        row_metrics: metrics that the arrays have.

    Returns:
        dict from name to metric to ``{"per_cent": [low, high], "difference": [low, high]}``; an end that is not finite is None.
    """
    found = estimate(arrays, ["full", *names], row_metrics, {}, "full", None)
    out = {name: {} for name in names}
    for (_, _, name, metric), e in found.items():
        if name in out:
            out[name][metric] = {
                "per_cent": [e.ratio_low, e.ratio_high],
                "difference": [e.difference_low, e.difference_high],
            }
    return out


def markdown_document(results):
    """The table of each metric, how each model trains, and how it was made.

    Args:
        results: the dict that ``architectures.json`` holds.
    """
    names = _names(results)
    parts = [f"# Models trained on each other's summaries, {results['dataset']}"]
    seeds = max(len(student["full"]) for student in results["students"])
    how = f"Mean and standard deviation over {seeds} seeds" if seeds > 1 else "One seed"
    parts.append(
        f"Rows: the model that trains. Columns: the model that distilled the summary. {how}, on {results['test_rows']:,} test rows; "
        "in brackets per cent of the same model's quality on all the training data, with its 95% interval over users and seeds."
    )
    for metric in results["metrics"]:
        lower = metric in results["smaller_is_better"]
        parts.append(f"**{words.metric_name(metric)}**" + (" (less is better; differences in nats)" if lower else ""))
        rows = [["trained model", "full data", *(f"summary of {name}" for name in names)]]
        for student in results["students"]:
            cells = [student["model"], _spread(_values(student["full"], metric))]
            for name in names:
                cells.append(f"{_spread(_values(student['on'][name], metric))} ({_against(student, name, metric, lower)})")
            rows.append(cells)
        parts.append(_markdown(rows))
    parts.append("Summaries: " + "; ".join(_summary(summary, results["training_events"]) for summary in results["summaries"]) + ".")
    parts += _training(results)
    environment = results["environment"]
    made = f"Made by `{results['command']}`" if results["command"] else "Made"
    parts.append(
        f"{made} on {results['date']}: {environment['device']}, {environment['threads']} thread(s), PyTorch {environment['torch']}, "
        f"RecBole {environment['recbole']}."
    )
    return "\n\n".join(parts) + "\n"


def relative_table(results, metrics):
    """Markdown: per cent of full data of some metrics (differences where less is better), a row for each trained model."""
    names = _names(results)
    columns = [(metric, name) for metric in metrics for name in names]
    rows = [["trained model", *(f"{words.metric_name(metric)}, summary of {name}" for metric, name in columns)]]
    for student in results["students"]:
        cells = [_against(student, name, metric, metric in results["smaller_is_better"]) for metric, name in columns]
        rows.append([student["model"], *cells])
    return _markdown(rows)


def headline(results, metric):
    """A sentence on what the worst and the best model keep of their own full-data quality when another distilled."""
    kept = sorted(
        (share, student["model"], name)
        for student in results["students"]
        for name in _names(results)
        if name != student["model"] and (share := _share(student, name, metric)) is not None
    )
    if not kept:
        return ""
    (low, worst, worst_on), (high, best, best_on) = kept[0], kept[-1]
    middle = statistics.median(share for share, _, _ in kept)
    return (
        f"Trained on a summary that another model distilled, a model keeps {middle:.0f}% of its own full-data {words.metric_name(metric)} "
        f"in the median: from {low:.0f}% ({worst} on {worst_on}'s) to {high:.0f}% ({best} on {best_on}'s)."
    )


def csv_document(results):
    """One row for each run and metric: trained model, distilling model (empty: full data), way, seed, metric, value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trained", "distilled_by", "way", "seed", "seconds", "metric", "value"])
    for student in results["students"]:
        chosen = student["chosen"]
        for name, runs, how in [("", student["full"], chosen["full"]), *((n, r, chosen["on"][n]) for n, r in student["on"].items())]:
            for run in runs:
                for metric, value in run["metrics"].items():
                    writer.writerow([student["model"], name, how["way"], run["seed"], run["seconds"], metric, repr(value)])
    return out.getvalue()


def _training(results):
    """How each model reads, what was chosen for it on validation, and what that took."""
    names, rows = _names(results), []
    for student in results["students"]:
        for where, runs, how in [
            ("full data", student["full"], student["chosen"]["full"]),
            *((f"summary of {name}", student["on"][name], student["chosen"]["on"][name]) for name in names),
        ]:
            epochs = [run["epochs"] for run in runs]
            length = "" if None in epochs else f", {min(epochs)}–{max(epochs)} epochs" if len(set(epochs)) > 1 else f", {epochs[0]} epochs"
            tried = "; ".join(f"{p['way']}: {_score(p['valid'])}" for p in how["tried"]) or "–"
            search = words.seconds_text(how["seconds"]) if how["tried"] else "–"
            seconds = words.seconds_text(statistics.mean(run["seconds"] for run in runs))
            rows.append([student["model"], where, how["way"] + length, tried, seconds, search])
    header = ["trained model", "on", "chosen", f"tried with one seed: {words.metric_name(results['valid_metric'])} on validation",
              "seconds of a run", "seconds of the search"]  # fmt: skip
    steps, most = results["passes"]["eval_step"], results["passes"]["steps"]
    parts = [
        "How each trains, chosen on validation: on full data a learning rate; on a summary its recipe, or passes over it at a "
        f"learning rate of RecBole's optimiser with early stopping (an epoch is {steps} steps, at most {most}). What was best "
        "with the first seed trains with all of them; the test rows were not looked at for it.",
        _markdown([header, *rows], left=4),
        _markdown([["trained model", "how it reads and trains"], *([s["model"], s["reads"]] for s in results["students"])], left=2),
    ]
    budgets = {}
    for student in results["students"]:
        options = tuple(sorted((name, str(value)) for name, value in student["options"].items()))
        budgets.setdefault(options, []).append(student["model"])
    for options, models in budgets.items():
        budget = ", ".join(f"{name} {value}" for name, value in options)
        parts.append(f"RecBole's options of training ({', '.join(models)}): {budget}.")
    return parts


def _names(results):
    return [summary["model"] for summary in results["summaries"]]


def _values(runs, metric):
    return [run["metrics"][metric] for run in runs]


def _markdown(rows, left=1):
    header, *body = rows
    ruler = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ruler, *body])


def _score(value):
    return "diverged" if value is None else f"{value:.3f}"


def _spread(values):
    mean = statistics.mean(values)
    return f"{mean:.4f}" if len(values) < 2 else f"{mean:.4f} ± {statistics.stdev(values):.4f}"


def _share(student, name, metric):
    whole = statistics.mean(_values(student["full"], metric))
    return None if whole == 0 else 100 * statistics.mean(_values(student["on"][name], metric)) / whole


def _against(student, name, metric, lower):
    known = student["relative"][name].get(metric, {})
    if lower:
        difference = statistics.mean(_values(student["on"][name], metric)) - statistics.mean(_values(student["full"], metric))
        low, high = known.get("difference", (None, None))
        return f"{difference:+.2f}" + (f"; {low:+.2f} to {high:+.2f}" if low is not None and high is not None else "")
    share = _share(student, name, metric)
    if share is None:
        return "–"
    low, high = known.get("per_cent", (None, None))
    return f"{share:.0f}%" + (f"; {low:.0f}–{high:.0f}%" if low is not None and high is not None else "")


def _summary(summary, training_events):
    share = 100 * summary["events"] / training_events
    return (
        f"{summary['model']}'s has {summary['events']:,} events ({share:.1f}% of the real ones, "
        f"{words.kilobytes(summary['bytes'])} KB), the best on validation of {summary['outer_steps']} outer steps (step "
        f"{summary['best_step']})"
    )
