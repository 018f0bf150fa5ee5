"""The picture of the cross-architecture table: what each trained model keeps of its own full-data quality."""

import html
import statistics

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from recbole_farzi.report import words

__all__ = ["html_document", "relative_figure"]

# Okabe and Ito's, as in the report; the marks tell distilling models apart without colours
_STYLES = (("#d55e00", "diamond"), ("#0072b2", "circle"), ("#009e73", "square"), ("#cc79a7", "triangle-up"), ("#e69f00", "star"))
_APART = 0.3  # of a row's height: how far the marks of a row are from one another


def relative_figure(results, metrics):
    """A panel for each metric, a row for each trained model, a mark for each distilling one, with 95% intervals.

    Args:
        results: the dict that ``architectures.json`` holds.
        metrics: which of its metrics; those of which less is better are drawn as differences.
    """
    names, students = [summary["model"] for summary in results["summaries"]], results["students"]
    lower = {metric: metric in results["smaller_is_better"] for metric in metrics}
    titles = [words.metric_name(m) + (", nats above full data" if lower[m] else ", % of full data") for m in metrics]
    figure = make_subplots(rows=1, cols=len(metrics), shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=titles)
    for column, metric in enumerate(metrics, start=1):
        for number, name in enumerate(names):
            colour, symbol = _STYLES[number % len(_STYLES)]
            middles, lows, highs = zip(*(_point(student, name, metric, lower[metric]) for student in students))
            shift = _APART * ((number + 0.5) / len(names) - 0.5) * 2
            figure.add_trace(
                go.Scatter(
                    x=middles, y=[row + shift for row in range(len(students))], mode="markers", name=f"summary of {name}",
                    legendgroup=name, showlegend=column == 1, marker={"color": colour, "symbol": symbol, "size": 10},
                    error_x={"type": "data", "symmetric": False, "thickness": 1.5, "width": 3, "array": highs, "arrayminus": lows},
                    hovertext=[f"{student['model']} on {name}'s summary" for student in students],
                ),
                row=1, col=column,
            )  # fmt: skip
        figure.add_vline(x=0 if lower[metric] else 100, line={"color": "#8c8c8c", "dash": "dot"}, row=1, col=column)
        figure.update_xaxes(rangemode="tozero", zeroline=False, row=1, col=column)
    figure.update_yaxes(
        tickvals=list(range(len(students))), ticktext=[html.escape(student["model"]) for student in students], range=[len(students) - 0.4, -0.6],
        zeroline=False,
    )  # fmt: skip
    figure.update_layout(
        template="plotly_white", height=190 + 46 * len(students), font={"size": 13}, margin={"l": 8, "r": 16, "t": 84, "b": 60},
        title={"text": f"Trained on a summary, against the same model on all of {html.escape(results['dataset'])} (test, 95% intervals)"},
        legend={"orientation": "h", "y": -0.08, "yanchor": "top"},
    )  # fmt: skip
    return figure


def html_document(results, metrics):
    """The picture as a page, which needs no network."""
    body = relative_figure(results, metrics).to_html(include_plotlyjs=False, full_html=False, config={"displayModeBar": False})
    title = html.escape(f"Models trained on each other's summaries, {results['dataset']}")
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{title}</title><script>{get_plotlyjs()}</script></head><body>{body}</body></html>\n"
    )


def _point(student, name, metric, lower):
    """Where a mark stands, and how far its interval reaches to the left and to the right (None: not known)."""
    mean, whole = (statistics.mean(run["metrics"][metric] for run in runs) for runs in (student["on"][name], student["full"]))
    ends = student["relative"][name].get(metric, {}).get("difference" if lower else "per_cent", (None, None))
    if not lower and whole == 0:
        return None, None, None
    middle = mean - whole if lower else 100 * mean / whole
    low, high = ends
    return middle, None if low is None else max(middle - low, 0.0), None if high is None else max(high - middle, 0.0)
