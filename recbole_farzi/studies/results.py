"""A study's results: from its plan and the trials on disk to plain values, tidy CSV and Markdown. Reads files, not models.

The results of a study are a dict: what it is (``study``, ``title``, ``question``, ``dataset``, ``model``, ``command``, ``size``,
``environment``, ...) and ``points``, a list of dicts with the point's ``label``, ``series``, ``x``, the ``tuned`` options that
validation chose, its ``trials`` (candidates and seeds), and ``estimates``: contender to metric to mean and 95% interval.

Intervals are over test users and distillation seeds (:mod:`recbole_farzi.report.resampling`); the students of a seed are
averaged, since they share its summary. With one seed the students stand in for seeds: the interval then says nothing of
other distillations. Differences to the reference are paired by user.
"""

import csv
import io
import json

import numpy as np

from recbole_farzi.errors import StorageError
from recbole_farzi.report.resampling import bootstrap_means, interval, sample_of_rows
from recbole_farzi.storage import read_arrays

__all__ = ["add_estimates", "points_csv", "study_markdown", "test_csv", "trials_csv"]

_SEED = 9
_OF_TRIAL = (
    "events", "bytes", "training_events", "outer_steps", "best_step", "skipped", "step_seconds", "distillation_seconds", "pool_seconds", "seconds",
)  # fmt: skip


def add_estimates(results, rows_of):
    """Fill in ``estimates`` and ``differences`` of every point that has final trials.

    Args:
        results: the dict; changed in place.
        rows_of: function from a trial (a dict) to the path of its ``rows.npz``.
    """
    samples, names = {}, {}
    for number, point in enumerate(results["points"]):
        for contender, values, users, metrics in _values(point, rows_of):
            samples[number, contender] = sample_of_rows(values, users)
            names[number] = (metrics, users)
    reference = next((n for n, p in enumerate(results["points"]) if p["label"] == results["reference"]), None)
    for number, point in enumerate(results["points"]):
        point["estimates"], point["differences"] = {}, {}
        known = next((trial["known"] for trial in point["trials"] if trial.get("known")), None)
        if known:  # of generated data: what the best possible model scores on the same rows
            point["estimates"]["known answer"] = {metric: [value] * 3 for metric, value in known.items()}
        if number not in names:
            continue
        metrics, users = names[number]
        mine = [contender for n, contender in samples if n == number]
        paired = reference not in (None, number) and reference in names and np.array_equal(users, names[reference][1])
        others = [samples[reference, "summary"]] if paired and (reference, "summary") in samples else []
        draws = bootstrap_means([*(samples[number, c] for c in mine), *others], _SEED)
        low, high = interval(draws)
        for place, contender in enumerate(mine):
            means = samples[number, contender].means.mean(axis=0)
            point["estimates"][contender] = {
                metric: [float(means[m]), float(low[place, m]), float(high[place, m])] for m, metric in enumerate(metrics)
            }
        if others and "summary" in mine:
            at = mine.index("summary")
            less, more = interval(draws[:, at] - draws[:, -1])
            gap = samples[number, "summary"].means.mean(axis=0) - others[0].means.mean(axis=0)
            point["differences"] = {m: [float(gap[i]), float(less[i]), float(more[i])] for i, m in enumerate(metrics)}


def _values(point, rows_of):
    """``(contender, values [runs, metrics, n], users [n], metrics)`` of a point, its final trials together."""
    found = {}
    for trial in point["trials"]:
        if not trial["final"] or not trial.get("test"):
            continue
        try:
            rows = read_arrays(rows_of(trial))
        except StorageError:  # it is being written, or was removed: the metrics of the whole are in the outcome
            continue
        for name, values in rows.items():
            if name.startswith("values/"):
                found.setdefault(name.removeprefix("values/"), []).append((values, rows["users"], list(rows["metrics"])))
    for contender, runs in found.items():
        values = [run[0] for run in runs]
        stacked = values[0] if len(values) == 1 else np.stack([value.mean(axis=0) for value in values])
        yield contender, stacked, runs[0][1], [str(metric) for metric in runs[0][2]]


def _write(header, lines):
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if value is None else value for value in line] for line in lines)
    return buffer.getvalue()


def _of_point(results, point):
    return [results["study"], results["dataset"], results["model"], point["label"], point["series"], point["x"]]


_POINT = ["study", "dataset", "model", "point", "series", "x"]


def trials_csv(results):
    """One line a trial: what it was, how it went, what validation said."""
    metric = results["valid_metric"]
    header = [*_POINT, "tuned", "seed", "final", "state", f"valid_{metric}", f"start_valid_{metric}", "teacher_valid", *_OF_TRIAL, "error", "warnings"]

    def line(point, trial):
        start = (trial.get("start_valid_metrics") or {}).get(metric)
        return [
            *_of_point(results, point), json.dumps(trial["params"], sort_keys=True), trial["seed"], trial["final"], trial["state"],
            trial.get("valid"), start, trial.get("teacher_valid"), *(trial.get(name) for name in _OF_TRIAL), trial.get("error"),
            " | ".join(trial.get("warnings") or []),
        ]  # fmt: skip

    return _write(header, (line(point, trial) for point in results["points"] for trial in point["trials"]))


def test_csv(results):
    """One line an observation on test: point, distillation seed, contender, run, metric, value."""
    return _write(
        [*_POINT, "seed", "contender", "run_seed", "metric", "value"],
        (
            [*_of_point(results, point), trial["seed"], contender, run["seed"], metric, value]
            for point in results["points"]
            for trial in point["trials"]
            if trial["final"]
            for contender, runs in (trial.get("test") or {}).items()
            for run in runs
            for metric, value in run["metrics"].items()
        ),
    )


test_csv.__test__ = False  # no test of pytest's


def points_csv(results):
    """One line a point, contender and metric: mean on test, 95% interval, difference to the reference."""
    return _write(
        [*_POINT, "tuned", "contender", "metric", "mean", "low", "high", "difference", "difference_low", "difference_high"],
        (
            [
                *_of_point(results, point), json.dumps(point["tuned"], sort_keys=True), contender, metric, *estimate,
                *(point["differences"].get(metric, ["", "", ""]) if contender == "summary" else ["", "", ""]),
            ]
            for point in results["points"]
            for contender, metrics in point["estimates"].items()
            for metric, estimate in metrics.items()
        ),
    )  # fmt: skip


def study_markdown(results):
    """What was asked, how it was run, and a table of the points with intervals; what is not there yet is said."""
    asked = {m for p in results["points"] for t in p["trials"] for m in t.get("valid_metrics") or {}}  # without the report's extra ones
    metrics = [m for m in results["metrics"] if m in asked]
    valid = results["valid_metric"]
    done, total = results["done"], results["total"]
    lines = [
        f"# {results['title']}: {results['dataset']}, {results['model']}",
        results["question"],
        f"`{results['command']}`",
        f"{done} of {total} trials{'' if done == total else ' so far'}; {results['seeds']} distillation seed(s) a point; "
        f"{results['minutes']:.0f} minutes of trials on {results['environment']['device']}, {results['environment']['threads']} "
        f"thread(s) each; {results['date']}. Tuned options and the step of the summary are chosen on validation; test is read "
        "once, for the chosen ones.",
        results["said"] or "",
    ]
    header = ["point", "tuned", f"valid {valid}", *metrics]
    if results["reference"]:
        header += [f"{m}, less {results['reference']}" for m in metrics]
    table = []
    for point in results["points"]:
        seen = point["estimates"].get("summary", {})
        tuned = ", ".join(f"{k.removeprefix('farzi_').removeprefix('inner_')} {_number(v)}" for k, v in point["tuned"].items())
        scores = [t["valid"] for t in point["trials"] if t["final"] and t.get("valid") is not None]
        row = [point["label"], tuned, f"{np.mean(scores):.4f}" if scores else _state(point), *(_estimate(seen.get(m)) for m in metrics)]
        if results["reference"]:
            row += [_estimate(point["differences"].get(m), sign=True) for m in metrics]
        table.append(row)
    for contender in sorted({c for p in results["points"] for c in p["estimates"] if c != "summary"}):
        for point in results["points"]:
            if contender in point["estimates"]:
                cells = [_estimate(point["estimates"][contender].get(m)) for m in metrics]
                if cells not in [row[3 : 3 + len(metrics)] for row in table]:  # full data is the same for many points
                    table.append([f"{point['label']}: {contender}", "", "", *cells] + [""] * (len(header) - 3 - len(cells)))
    lines.append(_table(header, table))
    errors = [f"* {p['label']}: {e}" for p in results["points"] for e in p["errors"]]
    if errors:
        lines.append("\n".join(["What failed, candidates among it, in the words that the user gets:", "", *errors]))
    return "\n\n".join(line for line in lines if line) + "\n"


def _state(point):
    if any(trial["state"] == "done" for trial in point["trials"]):
        return "running"
    return "failed" if point["errors"] else "not run yet"


def _estimate(found, sign=False):
    if not found:
        return "–"
    mean, low, high = found
    form = "+.4f" if sign else ".4f"
    return f"{mean:{form}} ({low:{form}} to {high:{form}})"


def _number(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _table(header, rows):
    def line(cells):
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(["---", "---", *["---:"] * (len(header) - 2)]), *map(line, rows)])
