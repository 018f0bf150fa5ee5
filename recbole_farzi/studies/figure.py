"""The figure of a study, whole or partial: an HTML page by plotly, and an SVG by Matplotlib where it is installed.

Both draw the same two panels: a metric on test with its 95% intervals, and the score on validation, where every candidate
that was tried is a small mark. A panel is plain values, so that neither library knows of studies.
"""

import html
import importlib.util
import io
import statistics
from typing import NamedTuple

__all__ = ["Line", "Panel", "draw_html", "draw_svg", "panels", "svg_is_possible"]

_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999933", "#8c8c8c")
_APART = 0.14  # of lines that stand at the same name of x
_LABELS = {"start": "start, not distilled", "full data": "full data", "summary": "summary", "known answer": "best possible"}


class Line(NamedTuple):
    """Points of one name: ``x`` and ``y``, ends ``low`` and ``high`` or None, a colour's number, and ``line``, ``dash`` or ``dots``."""

    name: str
    x: list
    y: list
    low: list
    high: list
    colour: int
    style: str


class Panel(NamedTuple):
    """One pair of axes: its title, its lines, the label of x, whether x is logarithmic, names of x where it has no numbers."""

    title: str
    lines: list
    x: str
    log: bool
    names: list


def panels(results):
    """What a study's results look like so far.

    Args:
        results: see :mod:`recbole_farzi.studies.results`.

    Returns:
        List of :class:`Panel`.
    """
    points = results["points"]
    numeric = all(isinstance(p["x"], (int, float)) and not isinstance(p["x"], bool) for p in points)
    names = [] if numeric else list(dict.fromkeys(str(p["x"]) for p in points))

    def place(point):
        return point["x"] if numeric else names.index(str(point["x"]))

    log = numeric and results["log"] and all(p["x"] > 0 for p in points)
    axis = {"x": results["x"], "log": log, "names": names}
    series = list(dict.fromkeys(p["series"] for p in points))
    metric = results["metric"]
    on_test, on_valid = [], []
    for number, one in enumerate(series):
        mine = [p for p in points if p["series"] == one]
        for contender in _in_order({c for p in mine for c in p["estimates"]}):
            seen = [(place(p), *p["estimates"][contender][metric]) for p in mine if metric in p["estimates"].get(contender, {})]
            name = ", ".join(part for part in (one, _LABELS.get(contender, contender)) if part)
            style = ("line" if numeric else "marks") if contender == "summary" else "dash" if numeric else "open"
            on_test.append(_line(name, seen, _colour(contender, number, series), style))
        scores = [(place(p), s, None, None) for p in mine for s in [_chosen(p)] if s is not None]
        on_valid.append(_line(one or "summary", scores, number, "line" if numeric else "marks"))
        tried = [(place(p), t["valid"], None, None) for p in mine for t in p["trials"] if not t["final"] and t.get("valid") is not None]
        if tried:
            on_valid.append(_line(", ".join(part for part in (one, "candidates") if part), tried, number, "dots"))
        starts = [
            (place(p), s, None, None) for p in mine for t in p["trials"][-1:]
            for s in [(t.get("start_valid_metrics") or {}).get(results["valid_metric"])] if s is not None
        ]  # fmt: skip
        on_valid.append(_line(", ".join(part for part in (one, "start, not distilled") if part), starts, _colour("start", number, series), "dash" if numeric else "open"))
    if names:
        on_test = _side_by_side(on_test)
    sure = "mean and 95% interval"
    return [
        Panel(f"{metric} on test, {sure}", [line for line in on_test if line.x], **axis),
        Panel(f"{results['valid_metric']} on validation", [line for line in on_valid if line.x], **axis),
    ]


def _colour(contender, number, series):
    """Of a contender's line: the summary's is that of its series, the others have their own in both panels."""
    return number if contender == "summary" else len(series) + _in_order({contender, *_LABELS}).index(contender)


def _side_by_side(lines):
    """Lines moved along x, so that their intervals do not hide each other."""
    middle = (len(lines) - 1) / 2
    return [line._replace(x=[x + _APART * (number - middle) for x in line.x]) for number, line in enumerate(lines)]


def y_range(panel):
    """Ends of y that show every mean, and intervals as long as most of the panel's; the longest are cut. None without intervals."""
    ends = [(y, low, high) for line in panel.lines for y, low, high in zip(line.y, line.low, line.high) if low is not None]
    if not ends:
        return None
    room = 2.5 * statistics.median(max(high - y, y - low) for y, low, high in ends)
    values = [y for line in panel.lines for y in line.y]
    return max(min(values) - room, min(low for _, low, _ in ends)), min(max(values) + room, max(high for *_, high in ends))


def _with_margin(ends):
    low, high = ends
    return [low - 0.05 * (high - low), high + 0.05 * (high - low)]


def _in_order(contenders):
    known = list(_LABELS)
    return sorted(contenders, key=lambda c: (known.index(c) if c in known else len(known), c))


def _chosen(point):
    """Mean validation score of a point's final trials, or its best candidate's so far; the smaller is better or the larger."""
    final = [t["valid"] for t in point["trials"] if t["final"] and t.get("valid") is not None]
    if final:
        return sum(final) / len(final)
    tried = [t["valid"] for t in point["trials"] if t.get("valid") is not None]
    return (max if point["bigger"] else min)(tried) if tried else None


def _line(name, points, colour, style):
    columns = [list(column) for column in zip(*sorted(points, key=lambda point: point[0]))] or [[], [], [], []]
    return Line(name, *columns, colour, style)


def draw_html(results):
    """The page, as text; it needs no network."""
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
    from plotly.subplots import make_subplots

    drawn = panels(results)
    figure = make_subplots(rows=1, cols=len(drawn), subplot_titles=[panel.title for panel in drawn])
    named = set()
    for column, panel in enumerate(drawn, start=1):
        for line in panel.lines:
            colour = _COLOURS[line.colour % len(_COLOURS)]
            known = line.low[0] is not None
            error = {
                "type": "data", "symmetric": False, "visible": known,
                "array": [max(h - y, 0.0) for h, y in zip(line.high, line.y)] if known else [],
                "arrayminus": [max(y - w, 0.0) for w, y in zip(line.low, line.y)] if known else [],
            }  # fmt: skip
            figure.add_trace(
                go.Scatter(
                    x=line.x, y=line.y, name=line.name, legendgroup=line.name, showlegend=line.name not in named, error_y=error,
                    mode="lines+markers" if line.style in ("line", "dash") else "markers",
                    line={"color": colour, "dash": "dot" if line.style == "dash" else "solid"},
                    marker={"color": colour, "size": 5 if line.style == "dots" else 9,
                            "symbol": "circle-open" if line.style in ("open", "dots") else "circle"},
                ),
                row=1, col=column,
            )  # fmt: skip
            named.add(line.name)
        if y_range(panel):
            figure.update_yaxes(range=_with_margin(y_range(panel)), row=1, col=column)
        figure.update_xaxes(title_text=panel.x, type="log" if panel.log else "linear", row=1, col=column)
        if panel.names:
            figure.update_xaxes(tickvals=list(range(len(panel.names))), ticktext=panel.names, row=1, col=column)
    figure.update_layout(
        template="plotly_white", height=560, title=_title(results), margin={"t": 90, "b": 170},
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
    )  # fmt: skip
    body = figure.to_html(include_plotlyjs=False, full_html=False, config={"responsive": True, "displayModeBar": False})
    title = html.escape(_title(results))
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{title}</title><script>{get_plotlyjs()}</script></head><body>{body}</body></html>\n"
    )


def svg_is_possible():
    """Whether Matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_svg(results):
    """The picture, as bytes; the same results give the same bytes. Needs Matplotlib, and no browser."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    drawn = panels(results)
    with matplotlib.rc_context({"svg.hashsalt": "study", "font.size": 9}):
        figure, named = Figure(figsize=(6.2 * len(drawn), 5.0), layout="constrained"), {}
        for axis, panel in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn):
            for line in panel.lines:
                colour = _COLOURS[line.colour % len(_COLOURS)]
                error = None
                if line.low[0] is not None:
                    error = [[max(y - w, 0.0) for w, y in zip(line.low, line.y)], [max(h - y, 0.0) for h, y in zip(line.high, line.y)]]
                drawn_line = axis.errorbar(
                    line.x, line.y, yerr=error, label=line.name, color=colour, capsize=3 if error else 0,
                    marker="o", markersize=3 if line.style == "dots" else 5,
                    markerfacecolor="none" if line.style in ("open", "dots") else colour,
                    linestyle={"line": "-", "dash": ":"}.get(line.style, "none"),
                )  # fmt: skip
                named.setdefault(line.name, drawn_line)
            if panel.log:
                axis.set_xscale("log")
            if panel.names:
                axis.set_xticks(range(len(panel.names)), panel.names, rotation=30, ha="right")
            if y_range(panel):
                axis.set_ylim(*_with_margin(y_range(panel)))
            axis.set_title(panel.title, fontsize=10)
            axis.set_xlabel(panel.x)
            axis.grid(alpha=0.3)
        if named:
            figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(len(named), 6 if max(map(len, named)) < 24 else 3), fontsize=8, frameon=False)
        figure.suptitle(_title(results), fontsize=11)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _title(results):
    partial = "" if results["done"] == results["total"] else f" (partial: {results['done']} of {results['total']} trials)"
    return f"{results['title']}: {results['dataset']}, {results['model']}{partial}"
