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

__all__ = [
    "Style",
    "contender_figure",
    "cost_figure",
    "gain_figure",
    "grid_figure",
    "in_front",
    "is_cut",
    "leaves_out_strata",
    "loss_figure",
    "size_figure",
    "strata_figure",
    "styles",
    "validation_figure",
]

# Okabe and Ito's palette without black and yellow, which vanish on a dark or a light page, then others, so that the default
# contenders stay apart for the colour-blind (tests/report/test_colours.py measures by how much).
# Variants of one way of training share its colour and differ by mark; open marks are those of equal bytes.
_FAMILIES = {
    "full": ("#0072b2", (("circle", "●"),)),
    "summary": ("#d55e00", (("diamond", "◆"), ("diamond-wide", "⬥"))),
    "start": ("#e69f00", (("square", "■"),)),
    "hard": ("#cc79a7", (("triangle-up", "▲"), ("triangle-left", "◀"), ("triangle-right", "▶"), ("star-triangle-up", "△"))),
    "random": ("#009e73", (("triangle-down", "▼"),)),
    "head": ("#44aa99", (("pentagon", "⬟"),)),
    "popular-items": ("#999933", (("hexagon", "⬢"),)),
    "svp-cf": ("#a5562f", (("star", "★"), ("hexagram", "✶"))),
    "teacher-labels": ("#56b4e9", (("cross", "✚"),)),
    "popularity": ("#6b6b6b", (("x", "✖"),)),
}
_SPARE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#aa4499", "#999933")
_SPARE_MARKS = (
    ("circle", "●"), ("diamond", "◆"), ("square", "■"), ("triangle-up", "▲"), ("pentagon", "⬟"), ("hexagon", "⬢"),
    ("star", "★"), ("cross", "✚"),
)  # fmt: skip
_IN_FRONT = ("full", "summary", "start", "random", "random-bytes", "teacher-labels")
_AT_MOST = 6  # lines that a figure shows before the reader asks for more
# Both ends can be told apart by the colour-blind, and letters are dark on all of it.
_DIVERGING = ((0.0, "#d6804b"), (0.5, "#e9e9e9"), (1.0, "#5aa5d1"))
_INK = "#1c2430"


class Style(NamedTuple):
    """How a contender is drawn: colour, plotly's marker symbol, and the same mark as a letter."""

    colour: str
    symbol: str
    glyph: str


def styles(report):
    """dict from the key of each contender to its :class:`Style`."""
    out, used = {}, {}
    spares = [(colour, _SPARE_MARKS[(i + turn) % 8]) for turn in range(8) for i, colour in enumerate(_SPARE_COLOURS)]
    for contender in report.contenders:
        plain = contender.key.removesuffix("-bytes")
        family = next((name for name in _FAMILIES if plain == name or plain.startswith(name + "-")), None)
        if family is None:
            taken = [(style.colour, style.symbol) for style in out.values()]
            free = [spare for spare in spares if (spare[0], spare[1][0]) not in taken]
            colour, (symbol, glyph) = (free or spares)[0]
        else:
            colour, marks = _FAMILIES[family]
            variants = used.setdefault(family, [])
            if plain not in variants:
                variants.append(plain)
            symbol, glyph = marks[variants.index(plain) % len(marks)]
        if plain != contender.key:
            symbol, glyph = symbol + "-open", glyph + "°"
        out[contender.key] = Style(colour, symbol, glyph)
    return out


def in_front(report):
    """Keys of the contenders that figures with a line each show at first: at most six, or all where there are no more."""
    keys = [contender.key for contender in report.contenders]
    if len(keys) <= _AT_MOST:
        return keys
    chosen = [key for key in keys if key in _IN_FRONT]
    return chosen or keys[:_AT_MOST]


def contender_figure(report, metric):
    """Mean of one metric for each contender, error bars of its 95% interval (one standard deviation where unknown).

    Bars from zero where more is better; points where less is, since such a metric has no meaningful zero to draw from.
    """
    style = styles(report)
    rows = [(contender, report.value(contender, metric)) for contender in report.contenders]
    rows = [(contender, value) for contender, value in rows if value.mean is not None]
    figure = _figure(height=62 + 34 * max(len(rows), 1), right=34)
    if not rows:
        return figure
    starts, ends = zip(*(_ends(value) for _, value in rows))
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
        x=list(ends),
        y=list(range(len(rows))),
        mode="text",
        text=["\u2002\u2002" + words.metric_value(value.mean) for _, value in rows],
        textposition="middle right",
        textfont={"size": 12},
        hoverinfo="skip",
        cliponaxis=False,
    )
    pad = 0.0 if low == 0 else 0.06 * span
    figure.update_xaxes(range=[low - pad, max(ends) + 0.3 * span], nticks=4, tickangle=0)
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[_wrapped(contender.label, 18) for contender, _ in rows],
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
        automargin=True,
        ticklabelstandoff=6,
    )
    return figure


def size_figure(report, metric):
    """Mean of one metric against the number of events trained on, on a logarithmic axis; equal sizes beside each other."""
    style = styles(report)
    figure = _figure(height=320)
    places = []
    known = [
        contender
        for contender in report.contenders
        if report.value(contender, metric).mean is not None and contender.events and contender.events > 0
    ]
    span = math.log10(max(c.events for c in known) / min(c.events for c in known)) if known else 0.0
    for contender in known:
        value = report.value(contender, metric)
        equals = [other.key for other in known if other.events == contender.events]
        shift = 0.03 * (span + 0.5) * (equals.index(contender.key) - (len(equals) - 1) / 2)
        places.append(contender.events * 10**shift)
        colour, symbol, _ = style[contender.key]
        figure.add_scatter(
            x=[places[-1]],
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
    """Mean of one metric by stratum, cold to warm, a line a contender; error bars of the 95% interval.

    Strata that are too small for a statement have no points, unless all are: their wide intervals would hide the others.
    """

    def values(contender, number):
        value = report.value(contender, metric, kind, number)
        return value.mean, *_ends(value), words.mean_and_spread(value)

    return _by_stratum(report, kind, report.contenders, values)


def gain_figure(report, kind, metric):
    """Each contender against the reference by stratum, with 95% intervals: per cent of it, or the difference to it.

    Full marks differ from the reference by the corrected test, open ones do not. None where there is no reference.
    """
    reference = report.reference
    if reference is None or not report.estimates:
        return None
    others = [contender for contender in report.contenders if contender.key != reference.key]

    def values(contender, number):
        mean = report.relative(contender, metric, kind, number)
        low, high = report.relative_interval(contender, metric, kind, number) or (None, None)
        text = " ".join(
            part
            for part in (
                words.relative_text(report, contender, metric, kind, number),
                f"({words.relative_range(report, contender, metric, kind, number)})",
                words.mark(report, contender, metric, kind, number),
            )
            if part != "()"
        )
        if report.relative_interval(contender, metric, kind, number) is not None and mean is not None:
            low, high = (math.inf * (-1) ** (not n) if end is None else end for n, end in enumerate((low, high)))
        return mean, mean if low is None else low, mean if high is None else high, text

    differs = {
        contender.key: [
            report.against_reference(contender, metric, kind, number) in ("better", "worse")
            for number in range(len(report.strata[kind]))
        ]
        for contender in others
    }
    relative = metric not in report.smaller_is_better
    tops = [
        report.relative(contender, metric, kind, number)
        for contender in others
        for number, stratum in enumerate(report.strata[kind])
        if not (stratum.small and leaves_out_strata(report, kind))
    ]
    tops = [top for top in tops if top is not None]
    top = max(130.0, 1.35 * max(tops)) if relative and tops else math.inf
    figure = _by_stratum(report, kind, others, values, differs, -0.04 * top if relative else -math.inf, top)
    figure.add_hline(y=100 if relative else 0, line={"color": styles(report)[reference.key].colour, "width": 2})
    figure.update_yaxes(ticksuffix="%" if relative else "")
    if math.isfinite(top):
        figure.update_yaxes(range=[-0.04 * top, top])  # marks at zero are whole
    return figure


def is_cut(figure):
    """Whether intervals of a :func:`gain_figure` go on beyond its upper edge."""
    return bool(figure.layout.meta and figure.layout.meta.get("cut"))


def leaves_out_strata(report, kind):
    """Whether figures of a kind of strata leave out some, those that are too small for a statement."""
    small = [stratum.small for stratum in report.strata[kind]]
    return any(small) and not all(small)


def _by_stratum(report, kind, contenders, values, differs=None, low=-math.inf, high=math.inf):
    """Lines across strata; ``values`` gives mean, ends of the interval and text of a point. Intervals end at ``low``, ``high``."""
    style, shown, strata = styles(report), in_front(report), report.strata[kind]
    drawn = [not stratum.small for stratum in strata] if leaves_out_strata(report, kind) else [True] * len(strata)
    figure = _figure(height=360)
    for contender in contenders:
        points = [values(contender, number) if drawn[number] else (None, None, None, "") for number in range(len(strata))]
        if all(point[0] is None for point in points):
            continue
        if any(point[0] is not None and point[2] > high for point in points):
            figure.layout.meta = {"cut": True}
        points = [point if point[0] is None else (point[0], max(point[1], low), min(point[2], high), point[3]) for point in points]
        colour, symbol, _ = style[contender.key]
        # Beside each other, or error bars would hide one another; those that are shown at first share the room.
        places = [c.key for c in contenders if (c.key in shown) == (contender.key in shown)]
        shift = 0.5 * ((places.index(contender.key) + 0.5) / len(places) - 0.5)
        symbols = symbol
        if differs is not None:
            plain = symbol.removesuffix("-open")
            symbols = [plain if different else plain + "-open" for different in differs[contender.key]]
        figure.add_scatter(
            x=[stratum + shift for stratum in range(len(strata))],
            y=[point[0] for point in points],
            error_y={
                "type": "data", "symmetric": False, "thickness": 1.5, "width": 3,
                "array": [0 if point[0] is None else point[2] - point[0] for point in points],
                "arrayminus": [0 if point[0] is None else point[0] - point[1] for point in points],
            },
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": "dot" if contender.key.endswith("-bytes") else "solid"},
            marker={"color": colour, "symbol": symbols, "size": 9, "line": {"width": 2, "color": colour}},
            name=_plain(contender.label),
            meta=report.contenders.index(contender),
            visible=contender.key in shown,
            hoverinfo="text",
            hovertext=[
                f"{_plain(contender.label)}, {_plain(stratum.label)}: {_plain(point[3])}"
                for stratum, point in zip(strata, points)
            ],
        )  # fmt: skip
    labels, unit = _without_unit(strata)
    figure.update_xaxes(
        tickvals=list(range(len(strata))),
        ticktext=[
            f"{_wrapped(label, 14)}<br>{_wrapped(words.size_text(stratum), 12)}" for label, stratum in zip(labels, strata)
        ],
        title={"text": unit.removeprefix(" by "), "font": {"size": 12}, "standoff": 6},
        range=[-0.45, len(strata) - 0.55],
        tickangle=0,
        tickfont={"size": 11},
        showgrid=False,
    )
    return figure


def grid_figure(report, metric, subject):
    """Users x items, from cold to warm: a contender against the reference in each cell; its values where it has none."""
    users, items = report.strata.get("users", ()), report.strata.get("items", ())
    relative = report.reference is not None and report.reference.key != subject.key
    smaller = metric in report.smaller_is_better
    place = {stratum.cell: number for number, stratum in enumerate(report.grid)}
    neutral = None if not relative else 0.0 if smaller else 100.0  # of cells about which nothing is said
    colours, texts, hovers = [], [], []
    for row, user in enumerate(users):
        colours.append([])
        texts.append([])
        hovers.append([])
        for column, item in enumerate(items):
            number = place.get((row, column))
            if number is None:
                colours[-1].append(None)
                texts[-1].append("")
                hovers[-1].append("no rows")
                continue
            value = report.value(subject, metric, "grid", number).mean
            against = report.relative(subject, metric, "grid", number) if relative else value
            shown = words.relative_text(report, subject, metric, "grid", number) if relative else words.metric_value(value)
            mark = words.mark(report, subject, metric, "grid", number)
            cell = report.grid[number]
            colours[-1].append(neutral if cell.small or against is None else against)
            number_of = cell.rows if cell.users is None else cell.users
            texts[-1].append(f"{f'{shown} {mark}'.strip() or words.MISSING}<br>{number_of:,}{'*' if cell.small else ''}")
            sure = words.relative_range(report, subject, metric, "grid", number)
            hovers[-1].append(
                _plain(f"{user.label}, {item.label}: {words.metric_value(value)} {shown} {f'({sure})' if sure else ''}")
            )
    figure = _figure(height=120 + 84 * max(len(users), 1))
    known = [value for line in colours for value in line if value is not None]
    if relative:
        reach = max((abs(value - neutral) for value in known), default=1.0)
        reach = min(reach, 100.0) if not smaller else reach
        scale = [(1 - at, colour) for at, colour in reversed(_DIVERGING)] if smaller else list(_DIVERGING)
        ends = {"zmin": neutral - (reach or 1.0), "zmax": neutral + (reach or 1.0)}
    else:
        scale, ends = [(0.0, "#e9e9e9"), (1.0, "#5aa5d1")], {}
    figure.add_heatmap(
        z=colours, text=texts, texttemplate="%{text}", textfont={"color": _INK, "size": 12}, hovertext=hovers,
        hoverinfo="text", colorscale=scale, showscale=False, xgap=3, ygap=3, **ends,
    )  # fmt: skip
    (item_labels, item_unit), (user_labels, user_unit) = map(_without_unit, (items, users))
    figure.update_xaxes(
        tickvals=list(range(len(items))), ticktext=[_wrapped(label, 14) for label in item_labels], showgrid=False,
        title_text=f"items{item_unit}", side="bottom", tickangle=0, tickfont={"size": 11},
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(users))), ticktext=[_wrapped(label, 12) for label in user_labels], showgrid=False,
        title={"text": f"users{user_unit}", "standoff": 12}, autorange="reversed", tickfont={"size": 11}, ticklabelstandoff=4,
    )  # fmt: skip
    return figure


def cost_figure(report, what):
    """Seconds of training, or kilobytes to train on, for each contender, on a logarithmic axis; None where unknown.

    Points, not bars: a logarithmic axis has no zero for bars to begin at.

    Args:
        what: ``seconds`` or ``KB``.
    """
    style = styles(report)
    rows = []
    for contender in report.contenders:
        value = contender.seconds.mean if what == "seconds" else contender.bytes and contender.bytes / 1024
        if value:
            rows.append((contender, value))
    if not rows:
        return None
    figure = _figure(height=62 + 26 * len(rows), right=34)
    low = 10 ** math.floor(math.log10(min(value for _, value in rows)))
    for row, (contender, value) in enumerate(rows):
        text = words.seconds_text(value) if what == "seconds" else words.kilobytes(value * 1024)
        colour, symbol, _ = style[contender.key]
        figure.add_scatter(
            x=[value], y=[row], mode="markers", marker={"color": colour, "symbol": symbol, "size": 11},
            hoverinfo="text", hovertext=f"{_plain(contender.label)}: {text} {what}",
        )  # fmt: skip
        figure.add_scatter(
            x=[value], y=[row], mode="text", text=["\u2002\u2002" + text], textposition="middle right", textfont={"size": 12},
            hoverinfo="skip", cliponaxis=False,
        )  # fmt: skip
    high = max(value for _, value in rows)
    ticks = [tick for tick in _log_ticks(low, max(high, 10 * low), most=5) if tick >= low]
    figure.update_xaxes(
        type="log", tickvals=ticks, ticktext=[_short(tick) for tick in ticks], tickangle=0,
        range=[math.log10(low) - 0.04 * (math.log10(high / low) or 1), math.log10(high) + 0.22 * (math.log10(high / low) or 1)],
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=[_wrapped(contender.label, 30) for contender, _ in rows],
        range=[len(rows) - 0.5, -0.5], showgrid=False, automargin=True, ticklabelstandoff=6,
    )  # fmt: skip
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
        x=steps, y=values, mode="markers", marker={"color": _FAMILIES["start"][0], "size": 3, "opacity": 0.45},
        name="each step", hoverinfo="x+y",
    )  # fmt: skip
    figure.add_scatter(
        x=steps, y=_running_median(values, max(1, len(values) // 40)), mode="lines",
        line={"color": _FAMILIES["summary"][0], "width": 2}, name="running median", hoverinfo="x+y",
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
        x=steps, y=values, mode="lines+markers", line={"color": _FAMILIES["summary"][0], "width": 2},
        marker={"size": 8, "symbol": _FAMILIES["summary"][1][0][0]}, name=words.metric_name(metric), hoverinfo="x+y",
    )  # fmt: skip
    best = distillation.get("best_step")
    if best is not None:
        figure.add_vline(
            x=best, line={"color": "#8c8c8c", "dash": "dot"}, annotation_text=f"kept: step {best}",
            annotation_position="top left" if best > max(steps) / 2 else "top right",
        )  # fmt: skip
    figure.update_xaxes(title_text="outer step")
    return figure


def _figure(height, right=8):
    """An empty figure; ``right`` is its margin in pixels, where numbers stand beyond the ends of bars."""
    figure = go.Figure(layout={
        "height": height, "margin": {"l": 8, "r": right, "t": 12, "b": 8}, "showlegend": False, "hovermode": "closest",
        "font": {"size": 12}, "dragmode": False,
    })  # fmt: skip
    figure.update_xaxes(automargin=True, zeroline=False)
    figure.update_yaxes(automargin=True, zeroline=False)
    return figure


def _ends(value):
    """Where the error bar of a :class:`recbole_farzi.report.aggregate.Statistic` begins and ends."""
    if value.mean is None:
        return None, None
    if value.low is not None:
        return min(value.low, value.mean), max(value.high, value.mean)
    return value.mean - (value.sd or 0), value.mean + (value.sd or 0)


def _error(values):
    """Error bars of the 95% interval, or of one standard deviation; none where no spread is known."""
    known = any(value.sd is not None or value.low is not None for value in values)
    ends = [_ends(value) for value in values]
    return {
        "type": "data", "symmetric": False, "visible": known, "thickness": 1.5, "width": 4,
        "array": [high - value.mean for (_, high), value in zip(ends, values)],
        "arrayminus": [value.mean - low for (low, _), value in zip(ends, values)],
    }  # fmt: skip


def _plain(text):
    """Text that plotly draws as it stands: plotly reads a few HTML tags in labels."""
    return html.escape(str(text), quote=False)


def _without_unit(strata):
    """Labels without the words that all end with, which are the same "occurrences" in each, and those for the axis."""
    labels = [str(stratum.label).split() for stratum in strata]
    shared = 0
    while labels and all(len(label) > shared + 1 for label in labels) and len({label[-shared - 1] for label in labels}) == 1:
        shared += 1
    if len(labels) < 2 or not shared:
        return [" ".join(label) for label in labels], ""
    return [" ".join(label[:-shared]) for label in labels], f" by {' '.join(labels[0][-shared:])}"


def _wrapped(text, width):
    return "<br>".join(_plain(line) for line in textwrap.wrap(str(text), width) or [""])


def _running_median(values, reach):
    """Median of each value with ``reach`` neighbours on either side, fewer at the ends."""
    return [statistics.median(values[max(0, k - reach) : k + reach + 1]) for k in range(len(values))]


def _log_ticks(low, high, most=99):
    """Round numbers across ``low`` to ``high``: 1, 2 and 5 times powers of ten; over 2 decades the powers alone, every
    second or third where there would be more than ``most``."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if high / low < 100 and 3 * (last - first + 1) <= most else (1,)
    every = -(-(last - first + 1) * len(steps) // most) if len(steps) == 1 else 1
    return [step * 10**exponent for exponent in range(first, last + 1, every) for step in steps]


def _short(count):
    """A round number in few letters: 0.1, 5k, 20M."""
    if count < 1:
        return f"{count:g}"
    for size, letter in ((10**9, "G"), (10**6, "M"), (1000, "k")):
        if count >= size:
            return f"{count // size}{letter}"
    return str(count)


def _number(value):
    return isinstance(value, (int, float)) and value == value and abs(value) != float("inf")
