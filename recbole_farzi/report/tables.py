"""Tables of the report, and their three renderings: aligned text, Markdown, HTML."""

import html
import unicodedata
from typing import NamedTuple

from recbole_farzi.report import words

__all__ = [
    "Cell",
    "Table",
    "comparison_table",
    "contenders_table",
    "environment_table",
    "escape",
    "extra_table",
    "findings_table",
    "grid_subject",
    "grid_tables",
    "printable",
    "settings_table",
    "strata_tables",
    "to_html",
    "to_markdown",
    "to_text",
    "values_table",
]

_LABEL_WIDTH = 28
_WIDE = 6  # columns, from which on a page in print takes smaller letters


class Cell(NamedTuple):
    """A cell: its text and, in small print, how it compares with full data."""

    text: str
    aside: str = ""


class Table(NamedTuple):
    """A table: ``columns`` are headings (a line break separates the small print), the first heads the row labels."""

    title: str
    columns: list
    rows: list


# ---- the tables


def contenders_table(report):
    """Every contender with all there is to say of it: for wide media."""
    metrics = words.main_metrics(report)
    costs = _costs(report)
    columns = ["contender", "seeds", *map(words.metric_name, metrics), *(name for name, _ in costs)]
    rows = []
    for contender in report.contenders:
        rows.append([
            Cell(contender.label),
            Cell(str(contender.runs)),
            *(_value_cell(report, contender, metric) for metric in metrics),
            *(cell(contender) for _, cell in costs),
        ])  # fmt: skip
    return Table("Contenders", columns, rows)


def _costs(report):
    """Columns of what a contender takes, those that are known of any: pairs of a heading and a function to a cell."""

    def events(contender):
        share = report.share_of_events(contender)
        return Cell(words.big_number(contender.events), "" if share is None else words.percentage(share))

    columns = [
        ("events", events, lambda contender: contender.events is not None),
        ("KB", lambda contender: Cell(words.kilobytes(contender.bytes)), lambda contender: contender.bytes is not None),
        ("seconds", lambda contender: Cell(words.seconds_text(contender.seconds.mean)), lambda contender: contender.seconds.n),
    ]
    return [(name, cell) for name, cell, known in columns if any(map(known, report.contenders))]


def values_table(report):
    """Every contender's metrics, alone: for narrow media, beside :func:`comparison_table`."""
    metrics, rows = words.main_metrics(report), []
    for contender in report.contenders:
        values = [Cell(words.mean_and_spread(report.value(contender, metric))) for metric in metrics]
        rows.append([Cell(contender.label), Cell(str(contender.runs)), *values])
    return Table("Quality on test", ["contender", "seeds", *map(words.metric_name, metrics)], rows)


def comparison_table(report):
    """Every contender against the reference, and what it takes."""
    compared = words.main_metrics(report) if report.reference else []
    costs = _costs(report)
    columns = ["contender"]
    for metric in compared:
        compared_by = "difference" if metric in report.smaller_is_better else "of full" if report.find("full") else "relative"
        columns.append(f"{words.metric_name(metric)}\n{compared_by}")
    columns += [name for name, _ in costs]
    rows = []
    for contender in report.contenders:
        relatives = [
            Cell(
                words.relative_text(report, contender, metric) or words.MISSING,
                words.relative_range(report, contender, metric),
            )
            for metric in compared
        ]
        rows.append([Cell(contender.label), *relatives, *(cell(contender) for _, cell in costs)])
    name = report.reference.label if report.reference else ""
    title = f"Against {name}" + (", and what it takes" if costs else "") if compared else "What it takes"
    return Table(title, columns, rows)


def extra_table(report):
    """The metrics that the report alone has, such as those of the variety of what is recommended; None for none."""
    if not report.extra_metrics:
        return None
    rows = [
        [Cell(contender.label)]
        + [
            Cell(words.metric_value(report.value(contender, m).mean), words.spread_text(report.value(contender, m)))
            for m in report.extra_metrics
        ]
        for contender in report.contenders
    ]
    return Table("Variety and more", ["contender", *map(words.metric_name, report.extra_metrics)], rows)


def findings_table(report):
    """The contender in focus beside each other one, with a verdict a metric; no rows where there is none."""
    focus = report.focus
    smaller = [metric for metric in words.main_metrics(report) if metric in report.smaller_is_better]
    chosen = words.headline_metrics(report) + smaller
    rows = []
    for other in report.contenders:
        if focus is None or other.key == focus.key:
            continue
        cells = []
        for metric in chosen:
            said = words.verdict(report, other, metric)
            means = [words.metric_value(report.value(one, metric).mean) for one in (focus, other)]
            found = report.estimate(other, metric)
            p = "" if found is None or found.p_focus is None else f", p {_p_value(found.p_focus)}"
            cells.append(Cell(said, " / ".join(means) + p) if said else Cell(words.MISSING))
        rows.append([Cell(other.label), *cells])
    name = "The summary" if focus is not None and focus.key == "summary" else words.contender_name(focus)
    return Table(f"{name} against", ["", *map(words.metric_name, chosen)], rows)


def _p_value(p):
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def strata_tables(report, metrics=None):
    """One table a kind of stratum and metric: a row a contender, a column a stratum.

    Args:
        report: the :class:`~recbole_farzi.report.aggregate.Aggregate`.
        metrics: names; default :func:`recbole_farzi.report.words.strata_metrics`.

    Returns:
        dict from kind (``users``, ``items``, ``tail``) to a dict from metric to its table.
    """
    tables = {}
    for kind, strata in report.strata.items():
        columns = ["contender"]
        for stratum in strata:
            columns.append(f"{stratum.label}\n{words.size_text(stratum)}".strip())
        tables[kind] = {
            metric: Table(
                f"{words.metric_name(metric)}, {words.kind_title(kind)[1]}",
                columns,
                [
                    [Cell(contender.label)]
                    + [_value_cell(report, contender, metric, kind, number) for number in range(len(strata))]
                    for contender in report.contenders
                ],
            )
            for metric in (metrics or words.strata_metrics(report))
            if strata
        }
    return tables


def grid_tables(report, metrics=None):
    """Users x items: one table a metric of the contender in focus (else the first beside the reference), or of the
    reference where it is alone; a row a stratum of users, a column a stratum of items. Empty where there is no grid."""
    subject = grid_subject(report)
    if subject is None:
        return {}
    users, items = report.strata.get("users", ()), report.strata.get("items", ())
    place = {stratum.cell: number for number, stratum in enumerate(report.grid)}
    out = {}
    for metric in metrics or words.strata_metrics(report):
        rows = []
        for row, user in enumerate(users):
            cells = [Cell(user.label)]
            for column in range(len(items)):
                number = place.get((row, column))
                if number is None:
                    cells.append(Cell(words.MISSING))
                    continue
                cell = _value_cell(report, subject, metric, "grid", number)
                size = words.size_text(report.grid[number])
                cells.append(Cell(cell.text, "; ".join(part for part in (cell.aside, size) if part)))
            rows.append(cells)
        columns = ["users \\ items", *(stratum.label for stratum in items)]
        out[metric] = Table(f"{words.metric_name(metric)} of {subject.label}, users by items", columns, rows)
    return out


def grid_subject(report):
    """The contender that the grid shows; None where there is no grid."""
    if not report.grid or not report.contenders:
        return None
    others = [c for c in report.contenders if report.reference is None or c.key != report.reference.key]
    return report.focus or (others or list(report.contenders))[0]


def settings_table(report):
    """The options of the run, as given."""
    return _pairs("Settings", "option", report.part("options"))


def environment_table(report):
    """What the run is, versions and machine."""
    return _pairs("Environment", "what", {**report.part("run"), **report.part("environment")})


def _pairs(title, name, mapping):
    return Table(title, [name, "value"], [[Cell(str(key)), Cell(_plain(value))] for key, value in mapping.items()])


def _plain(value):
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _value_cell(report, contender, metric, kind=None, stratum=None):
    """The mean; beside it the interval, per cent of the reference with its interval, and whether they differ."""
    value = report.value(contender, metric, kind, stratum)
    if value.low is None:
        return Cell(words.mean_and_spread(value), words.relative_text(report, contender, metric, kind, stratum))
    relative = words.relative_text(report, contender, metric, kind, stratum)
    sure = words.relative_range(report, contender, metric, kind, stratum)
    against = f"{relative} ({sure})" if relative and sure else relative
    text = f"{words.metric_value(value.mean)} {words.mark(report, contender, metric, kind, stratum)}".rstrip()
    return Cell(text, "; ".join(part for part in (words.spread_text(value), against) if part))


# ---- renderings


def to_text(table, width=110):
    """Aligned text of at most ``width`` columns: columns that do not fit continue in a block below, labels repeated."""
    heads = [[printable(line) for line in head.split("\n")] for head in table.columns]
    body = []
    for label, *cells in table.rows:
        # Without the blanks around ±, five metrics fit beside a label.
        texts = [printable(f"{cell.text} {_bracket(_first(cell.aside))}".rstrip().replace(" ± ", "±")) for cell in cells]
        body.append([_shorten(printable(label.text), _LABEL_WIDTH), *texts])
    depth = max(len(head) for head in heads)
    lines = [[head[level] if level < len(head) else "" for head in heads] for level in range(depth)]
    widths = [max(len(line[column]) for line in lines + body) for column in range(len(heads))]
    blocks, used = [], width
    for column in range(1, len(heads)):
        if used + 2 + widths[column] > width or not blocks:
            blocks.append([])
            used = widths[0]
        blocks[-1].append(column)
        used += 2 + widths[column]
    out = [table.title]
    for number, block in enumerate(blocks):
        if number:
            out.append("")
        rule = "-" * (widths[0] + sum(2 + widths[column] for column in block))
        for line in [*lines, None, *body]:
            if line is None:
                out.append(rule[:width])
                continue
            cells = [line[0].ljust(widths[0]), *(line[column].rjust(widths[column]) for column in block)]
            out.append("  ".join(cells).rstrip())
    return "\n".join(out)


def to_markdown(table):
    """A Markdown table, without its title; texts cannot break out of their cells."""

    def line(cells):
        return "| " + " | ".join(cells) + " |"

    out = [line(_markdown(head.replace("\n", ", ")) for head in table.columns)]
    out.append(line(["---"] + ["---:"] * (len(table.columns) - 1)))
    for row in table.rows:
        out.append(line(_markdown(f"{cell.text} {_bracket(cell.aside)}".rstrip()) for cell in row))
    return "\n".join(out)


def to_html(table, colours=None):
    """An HTML table, texts escaped.

    Args:
        table: the table.
        colours: for each row the colour of a mark before its label; default no marks.
    """

    def small(text):
        return f"<small>{escape(text)}</small>" if text else ""

    heads = []
    for head in table.columns:
        first, _, rest = head.partition("\n")
        first = escape(first).replace("@", "<wbr>@")  # where a long name may break
        heads.append(f'<th scope="col">{first}{small(rest)}</th>')
    rows = []
    for number, row in enumerate(table.rows):
        mark = f'<i class="mark" style="background:{escape(colours[number])}"></i>' if colours else ""
        cells = [f'<th scope="row">{mark}{escape(row[0].text)}</th>']
        cells += [
            f"<td>{escape(cell.text)}{''.join(small(part) for part in cell.aside.split('; '))}</td>" for cell in row[1:]
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    wide = ' class="wide"' if len(table.columns) > _WIDE else ""
    return (
        f'<div class="scroll"><table{wide}><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def escape(text):
    """Text for HTML, inside an element or a quoted attribute."""
    return html.escape(str(text), quote=True)


def _first(aside):
    """On the terminal the last part alone of what stands beside a number: how it compares."""
    return aside.rpartition("; ")[2]


def _bracket(text):
    return f"({text})" if text else ""


def _markdown(text):
    text = printable(text).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace("`", "\\`")
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def printable(text):
    """Without line breaks and control characters, which a name in a dataset could carry to the terminal."""
    return "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in str(text))


def _shorten(text, width):
    return text if len(text) <= width else text[: width - 1] + "…"
