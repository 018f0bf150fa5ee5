"""The report as text for the terminal, as Markdown, as tidy CSV, and its numbers as JSON."""

import csv
import html
import io
import json
import math
import textwrap

from recbole_farzi.report import tables, words

__all__ = [
    "COLUMNS",
    "COMPARISON_COLUMNS",
    "comparisons_document",
    "csv_document",
    "json_document",
    "markdown_document",
    "text_document",
]

COLUMNS = ("contender", "seed", "group", "stratum", "rows", "users", "metric", "value")
"""Columns of ``strata.csv``: one line a contender, seed, stratum and metric. ``group`` is ``all``, ``users``, ``items``,
``tail`` or ``grid``."""

COMPARISON_COLUMNS = (
    "contender", "group", "stratum", "rows", "users", "metric", "mean", "low", "high", "reference", "of_reference",
    "of_reference_low", "of_reference_high", "p", "p_alone", "focus", "p_focus", "p_focus_alone",
)  # fmt: skip
"""Columns of ``comparisons.csv``: one line a contender, stratum and metric. ``of_reference`` is per cent, or the
difference for metrics of which less is better; ``low`` and ``high`` end 95% intervals; ``p`` and ``p_focus`` are
corrected for the number of contenders, in strata for that of the strata of their kind; ``p_alone`` and ``p_focus_alone`` are not.
Means, intervals and p-values have 12 digits, so that they do not depend on how many threads summed them."""


def text_document(report, width=110):
    """Headline, tables and notes as plain text of at most ``width`` columns."""
    parts = [_wrap(words.headline(report) + ".", width)]
    parts.append(tables.to_text(tables.values_table(report), width))
    parts.append(tables.to_text(tables.comparison_table(report), width))
    findings = tables.findings_table(report)
    if findings.rows:
        about = [words.verdict_note(report), *words.gap_sentences(report)]
        parts += [tables.to_text(findings, width), "\n".join(_wrap(sentence, width) for sentence in about)]
    for by_metric in tables.strata_tables(report).values():
        parts += [tables.to_text(table, width) for table in by_metric.values()]
    gains = words.gain_sentences(report)
    parts.append("\n".join(_wrap(sentence, width) for sentence in gains))
    notes = [*words.notes(report), *words.unseen_sentences(report)]
    notes += [words.strata_notes(report)] if report.strata else []
    parts.append("\n".join(_wrap(note, width) for note in notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_document(report):
    """The whole report in Markdown, without figures."""
    results = report.results
    title = " · ".join(str(results[name]) for name in ("dataset", "model", "date") if results.get(name))
    parts = [f"# {_text(title or 'Report')}", _text(words.headline(report)) + "."]
    parts += words.gap_sentences(report)
    gains = words.gain_sentences(report)
    parts += ["## Who gains, who loses", _bullets(gains)] if gains else []
    parts += ["## Contenders", tables.to_markdown(tables.contenders_table(report)), _bullets(words.notes(report))]
    extra = tables.extra_table(report)
    parts += [f"## {extra.title}", tables.to_markdown(extra)] if extra else []
    findings = tables.findings_table(report)
    if findings.rows:
        parts += [f"## {findings.title}", tables.to_markdown(findings), words.verdict_note(report)]
    for kind, by_metric in tables.strata_tables(report).items():
        title, _, about = words.kind_title(kind)
        parts += [f"## {title}", f"{about} {words.strata_notes(report)}".strip()] if by_metric else []
        for table in by_metric.values():
            parts += [f"### {_text(table.title)}", tables.to_markdown(table)]
    grids = tables.grid_tables(report)
    parts += ["## Users by items"] if grids else []
    for table in grids.values():
        parts += [f"### {_text(table.title)}", tables.to_markdown(table)]
    unseen = words.unseen_sentences(report)
    parts += ["## Never seen in training", _bullets(unseen)] if unseen else []
    for table in (tables.settings_table(report), tables.environment_table(report)):
        parts += [f"## {table.title}", tables.to_markdown(table)] if table.rows else []
    if results.get("command"):
        # An indented block, not a fence: no text inside can end it.
        parts += ["## To make it again", textwrap.indent(" ".join(str(results["command"]).split()), "    ")]
        parts += ["The report alone, from what was saved, without training:", "    python run_farzi.py --report THIS_FOLDER"]
    parts += ["## What the words mean"]
    parts += ["\n".join(f"* **{_text(term)}**: {_text(text)}" for term, text in words.glossary(report))]
    return "\n\n".join(part for part in parts if part) + "\n"


def csv_document(report):
    """Every run's numbers as tidy CSV, columns :data:`COLUMNS`. Floats survive exactly; what is missing is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    everything, users = report.part("data").get("test_rows"), report.test_users
    for contender in report.results["contenders"]:
        for run in contender["runs"]:
            groups = [("all", "", everything, users, run["metrics"])]
            for kind, strata in {**report.strata, "grid": report.grid}.items():
                values = (run.get("strata") or {}).get(kind) or []
                groups += [(kind, stratum.label, stratum.rows, stratum.users, value) for stratum, value in zip(strata, values)]
            for group, stratum, rows, users_here, values in groups:
                for metric in report.metrics:
                    value = (values or {}).get(metric)
                    size = _blank(rows), _blank(users_here)
                    start = (contender["key"], _blank(run.get("seed")), group, stratum, *size, metric)
                    writer.writerow((*start, _blank(_finite_or_none(value))))
    return buffer.getvalue()


def comparisons_document(report):
    """Means, intervals and tests as tidy CSV, columns :data:`COMPARISON_COLUMNS`. What is unknown is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COMPARISON_COLUMNS)
    reference, focus = (one.key if one else "" for one in (report.reference, report.focus))
    places = [("all", "", report.part("data").get("test_rows"), report.test_users, None, None)]
    for kind, strata in {**report.strata, "grid": report.grid}.items():
        places += [(kind, stratum.label, stratum.rows, stratum.users, kind, number) for number, stratum in enumerate(strata)]
    for contender in report.contenders:
        for group, label, rows, users, *at in places:
            for metric in report.metrics:
                value, found = report.value(contender, metric, *at), report.estimate(contender, metric, *at)
                low, high = report.relative_interval(contender, metric, *at) or (None, None)
                numbers = (
                    value.mean, value.low, value.high, reference, report.relative(contender, metric, *at), low, high,
                    found and found.p, found and found.p_alone, focus, found and found.p_focus, found and found.p_focus_alone,
                )  # fmt: skip
                start = [contender.key, group, label, _blank(rows), _blank(users), metric]
                writer.writerow([*start, *map(_twelve_digits, numbers)])
    return buffer.getvalue()


def json_document(report):
    """The results themselves, as JSON that any reader takes: numbers that are not finite become null."""
    return json.dumps(_finite_or_none(report.results), indent=1, allow_nan=False) + "\n"


def _wrap(text, width):
    return textwrap.fill(tables.printable(text), width, subsequent_indent="  ", break_on_hyphens=False)


def _text(text):
    """Text for Markdown outside tables: no HTML in it counts."""
    return html.escape(str(text), quote=False)


def _bullets(sentences):
    return "\n".join(f"* {_text(sentence)}" for sentence in sentences)


def _twelve_digits(value):
    return float(f"{value:.12g}") if isinstance(value, float) else _blank(value)


def _blank(value):
    return "" if value is None else value


def _finite_or_none(value):
    if isinstance(value, dict):
        return {str(key): _finite_or_none(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite_or_none(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
