"""Figures of the report, as plotly figures. Each contender has its colour and its mark, the same everywhere.

Figures carry no theme: text, grid and background take their colours from the page, which has a light and a dark one.
"""

import html
import math
import statistics
import textwrap
from typing import NamedTuple

import plotly.graph_objects as go

from recbole_farzi.report import words

__all__ = ["Style", "contender_figure", "loss_figure", "size_figure", "strata_figure", "styles", "validation_figure"]

# Okabe and Ito's palette without black and yellow, which vanish on a dark or a light page, then three of Tol's "muted".
_COLOURS = {
    "full": "#0072b2",
    "summary": "#d55e00",
    "start": "#e69f00",
    "hard": "#cc79a7",
    "random": "#009e73",
    "popularity": "#8c8c8c",
}
_MARKS = {
    "full": ("circle", "●"),
    "summary": ("diamond", "◆"),
    "start": ("square", "■"),
    "hard": ("triangle-up", "▲"),
    "random": ("triangle-down", "▼"),
    "popularity": ("x", "✖"),
}
_SPARE_COLOURS = ("#56b4e9", "#aa4499", "#999933", "#ddcc77")
_SPARE_MARKS = (("pentagon", "⬟"), ("hexagon", "⬢"), ("star", "★"), ("cross", "✚"))


class Style(NamedTuple):
    """How a contender is drawn: colour, plotly's marker symbol, and the same mark as a letter."""

    colour: str
    symbol: str
    glyph: str


def styles(report):
    """dict from the key of each contender to its :class:`Style`."""
    out, spare = {}, 0
    for contender in report.contenders:
        if contender.key in _COLOURS:
            out[contender.key] = Style(_COLOURS[contender.key], *_MARKS[contender.key])
        else:
            out[contender.key] = Style(_SPARE_COLOURS[spare % 4], *_SPARE_MARKS[spare % 4])
            spare += 1
    return out


def contender_figure(report, metric):
    """Mean of one metric for each contender, error bars of one standard deviation over seeds.

    Bars from zero where more is better; points where less is, since such a metric has no meaningful zero to draw from.
    """
    style = styles(report)
    rows = [(contender, report.value(contender, metric)) for contender in report.contenders]
    rows = [(contender, value) for contender, value in rows if value.mean is not None]
    figure = _figure(height=62 + 34 * max(len(rows), 1))
    if not rows:
        return figure
    ends = [value.mean + (value.sd or 0) for _, value in rows]
    starts = [value.mean - (value.sd or 0) for _, value in rows]
    low = min(0.0, *starts) if metric not in report.smaller_is_better else min(starts)
    span = (max(ends) - low) or abs(max(ends)) or 1.0
    for row, (contender, value) in enumerate(rows):
        colour, symbol, _ = style[contender.key]
        common = {
            "x": [value.mean],
            "y": [row],
            "name": _plain(contender.label),
            "error_x": _error([value]),
            "hoverinfo": "text",
            "hovertext": f"{_plain(contender.label)}: {words.mean_and_spread(value)}",
        }
        if metric in report.smaller_is_better:
            figure.add_scatter(mode="markers", marker={"color": colour, "symbol": symbol, "size": 10}, **common)
        else:
            figure.add_bar(orientation="h", width=0.66, marker={"color": colour}, **common)
    figure.add_scatter(
        x=[end for end in ends],
        y=list(range(len(rows))),
        mode="text",
        text=["\u2002\u2002" + words.metric_value(value.mean) for _, value in rows],
        textposition="middle right",
        textfont={"size": 12},
        hoverinfo="skip",
        cliponaxis=False,
    )
    pad = 0.0 if low == 0 else 0.06 * span
    figure.update_xaxes(range=[low - pad, max(ends) + 0.3 * span], nticks=5)
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[_wrapped(contender.label, 16) for contender, _ in rows],
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
        automargin=True,
    )
    return figure


def size_figure(report, metric):
    """Mean of one metric against the number of events trained on, on a logarithmic axis."""
    style = styles(report)
    figure = _figure(height=320)
    places = []
    for contender in report.contenders:
        value = report.value(contender, metric)
        if value.mean is None or not contender.events or contender.events <= 0:
            continue
        places.append(contender.events)
        colour, symbol, _ = style[contender.key]
        figure.add_scatter(
            x=[contender.events],
            y=[value.mean],
            error_y=_error([value]),
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 12, "opacity": 0.9},
            name=_plain(contender.label),
            hoverinfo="text",
            hovertext=f"{_plain(contender.label)}: {words.mean_and_spread(value)}, {contender.events:,} events",
        )
    if places:
        low, high = math.log10(min(places)), math.log10(max(places))
        ticks = _log_ticks(min(places), max(places))
        figure.update_xaxes(
            type="log",
            tickvals=ticks,
            ticktext=[_short(tick) for tick in ticks],
            range=[low - 0.25, high + 0.25],
            tickangle=0,
        )
    figure.update_xaxes(title_text="events trained on (log scale)")
    return figure


def strata_figure(report, kind, metric):
    """Mean of one metric by stratum, cold to warm, a line a contender; error bars of one standard deviation."""
    style = styles(report)
    strata = report.strata[kind]
    figure = _figure(height=340)
    count = len(report.contenders)
    for number, contender in enumerate(report.contenders):
        values = [report.value(contender, metric, kind, stratum) for stratum in range(len(strata))]
        if all(value.mean is None for value in values):
            continue
        colour, symbol, _ = style[contender.key]
        shift = 0.05 * (number - (count - 1) / 2)  # beside each other, or error bars would hide one another
        figure.add_scatter(
            x=[stratum + shift for stratum in range(len(strata))],
            y=[value.mean for value in values],
            error_y=_error(values),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"color": colour, "symbol": symbol, "size": 9},
            name=_plain(contender.label),
            hoverinfo="text",
            hovertext=[
                f"{_plain(contender.label)}, {_plain(stratum.label)}: {words.mean_and_spread(value)}"
                for stratum, value in zip(strata, values)
            ],
        )
    labels = []
    for stratum in strata:
        size = "" if stratum.rows is None else f"<br>{stratum.rows:,} rows{' (small)' if stratum.small else ''}"
        labels.append(_wrapped(stratum.label, 14) + size)
    figure.update_xaxes(
        tickvals=list(range(len(strata))),
        ticktext=labels,
        range=[-0.4, len(strata) - 0.6],
        tickangle=0,
        tickfont={"size": 11},
        showgrid=False,
    )
    return figure


def loss_figure(report):
    """Outer loss of each step of distillation, skipped ones left out, and its running median; None for no steps."""
    losses = report.part("distillation").get("losses") or []
    known = [(step, loss) for step, loss in enumerate(losses, start=1) if _number(loss)]
    if not known:
        return None
    steps, values = zip(*known)
    figure = _figure(height=300)
    figure.add_scatter(
        x=steps, y=values, mode="markers", marker={"color": _COLOURS["start"], "size": 3, "opacity": 0.45},
        name="each step", hoverinfo="x+y",
    )  # fmt: skip
    figure.add_scatter(
        x=steps, y=_running_median(values, max(1, len(values) // 40)), mode="lines",
        line={"color": _COLOURS["summary"], "width": 2}, name="running median", hoverinfo="x+y",
    )  # fmt: skip
    figure.update_xaxes(title_text="outer step")
    return figure


def validation_figure(report):
    """The validation metric against the outer step, the step that was kept marked; None where there is none."""
    distillation = report.part("distillation")
    metric = report.results.get("valid_metric")
    points = [
        (validation["step"], (validation.get("metrics") or {}).get(metric))
        for validation in distillation.get("validations") or []
    ]
    points = [(step, value) for step, value in points if _number(value)]
    if not points:
        return None
    steps, values = zip(*points)
    figure = _figure(height=300)
    figure.add_scatter(
        x=steps, y=values, mode="lines+markers", line={"color": _COLOURS["summary"], "width": 2},
        marker={"size": 8, "symbol": _MARKS["summary"][0]}, name=words.metric_name(metric), hoverinfo="x+y",
    )  # fmt: skip
    best = distillation.get("best_step")
    if best is not None:
        figure.add_vline(
            x=best, line={"color": "#8c8c8c", "dash": "dot"}, annotation_text=f"kept: step {best}",
            annotation_position="top left" if best > max(steps) / 2 else "top right",
        )  # fmt: skip
    figure.update_xaxes(title_text="outer step")
    return figure


def _figure(height):
    figure = go.Figure(layout={
        "height": height, "margin": {"l": 8, "r": 8, "t": 12, "b": 8}, "showlegend": False, "hovermode": "closest",
        "font": {"size": 12}, "dragmode": False,
    })  # fmt: skip
    figure.update_xaxes(automargin=True, zeroline=False)
    figure.update_yaxes(automargin=True, zeroline=False)
    return figure


def _error(values):
    """Error bars of one standard deviation; none where no spread is known."""
    known = any(value.sd is not None for value in values)
    sizes = [value.sd or 0 for value in values]
    return {"type": "data", "array": sizes, "visible": known, "thickness": 1.5, "width": 4}


def _plain(text):
    """Text that plotly draws as it stands: plotly reads a few HTML tags in labels."""
    return html.escape(str(text), quote=False)


def _wrapped(text, width):
    return "<br>".join(_plain(line) for line in textwrap.wrap(str(text), width) or [""])


def _running_median(values, reach):
    """Median of each value with ``reach`` neighbours on either side, fewer at the ends."""
    return [statistics.median(values[max(0, k - reach) : k + reach + 1]) for k in range(len(values))]


def _log_ticks(low, high):
    """Round numbers across ``low`` to ``high``: 1, 2 and 5 times powers of ten; over 3 decades the powers alone."""
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10**exponent for exponent in exponents for step in steps]


def _short(count):
    """A round count in few letters: 5k, 20M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (1000, "k")):
        if count >= size:
            return f"{count // size}{letter}"
    return str(count)


def _number(value):
    return isinstance(value, (int, float)) and value == value and abs(value) != float("inf")
