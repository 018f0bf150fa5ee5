"""Quality against size of the data where sentences are read: a table and a curve from the results of several runs.

Reads the results of :class:`recbole_farzi.experiment.Experiment` (``results.json``) for summaries of several sizes of the
same text, whose runs hold sums over each test sentence (``by_user``).
"""

import math
import statistics
from dataclasses import dataclass
from typing import Optional

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from recbole_farzi.errors import DataError

__all__ = ["Point", "curve", "markdown_table", "points"]

_DRAWS = 2000
_COLOURS = {"summary": "#d55e00", "start": "#e69f00", "random": "#009e73"}
_SYMBOLS = {"summary": "diamond", "start": "square", "random": "triangle-down"}


@dataclass(frozen=True)
class Point:
    """A contender at a size of the data.

    Attributes:
        key, label: which contender.
        tokens: that it trains on.
        share: of the training text's tokens.
        bytes: that they take.
        runs: how many seeds.
        seconds: that a training took, on average.
        perplexity: on test, over seeds: ``(mean, sd)``, the sd None for one seed.
        accuracy: of the next word, likewise.
        perplexity_of_full: ``(value, low, high)``: full data's perplexity as a share of this one's.
        accuracy_of_full: ``(value, low, high)``: this accuracy as a share of full data's.
    """

    key: str
    label: str
    tokens: int
    share: float
    bytes: int
    runs: int
    seconds: float
    perplexity: tuple
    accuracy: tuple
    perplexity_of_full: Optional[tuple]
    accuracy_of_full: Optional[tuple]


def points(results, seed=0):
    """The contenders of several runs, each once; those that do not depend on the summary's size come first. Runs of
    several distillations of the same size (from other seeds) are pooled.

    Intervals hold 95% of a bootstrap over test sentences, the same sentences drawn for a contender and for full data
    (Koehn, "Statistical significance tests for machine translation evaluation", 2004, section 3, draws sentences in pairs
    likewise). A sentence's sums are averaged over seeds first, so the choice of the seed is not in the interval; the
    standard deviation over seeds stands beside it. With ``c`` the mean cross-entropy of a word, perplexities are compared
    as ``exp(c_full - c)``, accuracies as ``a / a_full``.

    Args:
        results: list of results.
        seed: of the draws.

    Raises:
        DataError: the results are of different texts, or have no sums over sentences.
    """
    contenders = _pooled(results)
    whole = {result["data"]["training_events"] for result in results}
    sizes = {tuple(run["by_user"]["events"]) for contender in contenders.values() for run in contender["runs"]}
    if len(whole) != 1 or len(sizes) != 1:
        raise DataError("these results are of different texts")
    events = np.array(sizes.pop(), dtype=float)
    draws = np.random.default_rng(seed).multinomial(len(events), np.full(len(events), 1 / len(events)), size=_DRAWS)
    draws = np.vstack([np.ones(len(events)), draws])  # the first is the sample itself
    means = {
        place: {name: draws @ _over_seeds(contender, name) / (draws @ events) for name in ("cross_entropy", "first")}
        for place, contender in contenders.items()
    }
    full = next((place for place in contenders if place[0] == "full"), None)
    fixed = {"full": 0, "popularity": 1}
    order = sorted(contenders, key=lambda place: (fixed.get(place[0], 2), place[1], place[0] != "summary"))
    return [_point(contenders[place], means[place], means[full] if full else None, max(whole)) for place in order]


def _pooled(results):
    """The contenders of all results by key and size, with the runs of all of them; each run once."""
    contenders = {}
    for result in results:
        for contender in result["contenders"]:
            if any("by_user" not in run for run in contender["runs"]):
                raise DataError(
                    "these results hold no sums over sentences: they were not made with farzi_positions=every"
                )
            runs = contenders.setdefault((contender["key"], contender["events"]), (contender, {}))[1]
            runs.update(((result.get("seed"), run["seed"]), run) for run in contender["runs"])
    return {place: {**contender, "runs": list(runs.values())} for place, (contender, runs) in contenders.items()}


def _over_seeds(contender, name):
    return np.mean([run["by_user"][name] for run in contender["runs"]], axis=0)


def _point(contender, own, full, whole):
    runs = contender["runs"]

    def spread(metric):
        values = [run["metrics"][metric] for run in runs]
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None

    def interval(values):
        low, high = np.quantile(values[1:], [0.025, 0.975])
        return float(values[0]), float(low), float(high)

    compared = full is not None and contender["key"] != "full"
    return Point(
        contender["key"], contender["label"], contender["events"], contender["events"] / whole, contender["bytes"],
        len(runs), statistics.fmean(run["seconds"] for run in runs), spread("perplexity"), spread("accuracy"),
        interval(np.exp(full["cross_entropy"] - own["cross_entropy"])) if compared else None,
        interval(own["first"] / full["first"]) if compared else None,
    )  # fmt: skip


def markdown_table(table):
    """The points as a Markdown table."""
    lines = [
        "| trained on | tokens | share | KB | seeds | perplexity | of full data | accuracy | of full data | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for point in table:
        cells = [
            point.label, f"{point.tokens:,}", f"{100 * point.share:.2g}%" if point.share < 1 else "100%",
            f"{point.bytes / 1024:.3g}", str(point.runs),
            _spread(point.perplexity, 1, 1), _interval(point.perplexity_of_full),
            _spread(point.accuracy, 100, 2) + "%", _interval(point.accuracy_of_full), f"{point.seconds:.3g}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(value, factor, decimals):
    mean, sd = value
    return f"{factor * mean:.{decimals}f}" + ("" if sd is None else f" ± {factor * sd:.{decimals}f}")


def _interval(value):
    if value is None:
        return "–"
    return "{:.0f}% ({:.0f}–{:.0f})".format(*(100 * number for number in value))


_PANELS = {"perplexity_of_full": "perplexity", "accuracy_of_full": "next-word accuracy"}


def curve(table, references=()):
    """Per cent of full-data quality against the share of the tokens, a panel for perplexity and one for accuracy; bars
    are the intervals.

    Args:
        table: what :func:`points` gives.
        references: ``(label, perplexity)`` of other models of all of the text, lines in the first panel.

    Returns:
        A plotly figure.
    """
    figure = make_subplots(1, 2, subplot_titles=list(_PANELS.values()), horizontal_spacing=0.09)
    figure.update_layout(
        width=1200, height=460, template="plotly_white", font={"size": 13}, margin={"l": 60, "r": 20, "t": 40, "b": 90},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.16, "yanchor": "top"},
    )  # fmt: skip
    full = next((point for point in table if point.key == "full"), None)
    for column, name in enumerate(_PANELS, start=1):
        for key in _COLOURS:
            chosen = [point for point in table if point.key == key and getattr(point, name) is not None]
            if chosen:
                values = [getattr(point, name) for point in chosen]
                figure.add_trace(_trace(key, chosen, values, named=column == 1), 1, column)
        unigram = next((point for point in table if point.key == "popularity" and getattr(point, name)), None)
        if unigram is not None:
            _line(figure, column, unigram.label, 100 * getattr(unigram, name)[0], "dot")
        if full is not None:
            _line(figure, column, full.label, 100.0, "dash")
    for label, perplexity in references if full is not None else ():
        height = 100 * full.perplexity[0] / perplexity
        _line(figure, 1, label, height, "dashdot", "top right" if height > 100 else "bottom right")
    shares = [point.share for point in table if point.key in _COLOURS]
    figure.update_xaxes(title_text="share of the training tokens, per cent (log scale)", type="log")
    if shares:
        figure.update_xaxes(range=[math.log10(100 * min(shares)) - 0.2, math.log10(100 * max(shares)) + 0.2])
        figure.update_xaxes(tickvals=sorted({float(f"{100 * share:.2g}") for share in shares}))
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="per cent of full-data quality", col=1)
    return figure


def _trace(key, chosen, values, named):
    return go.Scatter(
        x=[100 * point.share for point in chosen],
        y=[100 * value for value, _, _ in values],
        error_y={
            "type": "data",
            "array": [100 * (high - value) for value, _, high in values],
            "arrayminus": [100 * (value - low) for value, low, _ in values],
        },
        mode="lines+markers",
        marker={"color": _COLOURS[key], "symbol": _SYMBOLS[key], "size": 10},
        name=chosen[0].label,
        showlegend=named,
    )


def _line(figure, column, label, height, dash, position="bottom right"):
    figure.add_hline(
        y=height, line_dash=dash, line_width=1, annotation_text=label, annotation_position=position,
        row=1, col=column,
    )  # fmt: skip
