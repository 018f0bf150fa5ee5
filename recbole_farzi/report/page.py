"""The report as one HTML page that needs no network: plotly's script is inside it once."""

import json
import re

from plotly.offline import get_plotlyjs

from recbole_farzi.report import figures, tables, words
from recbole_farzi.report.tables import escape

__all__ = ["html_page"]


def html_page(report):
    """The page, as text. Everything that comes from the results is escaped; nothing is fetched."""
    canvas = _Canvas()
    sections = [
        _gains(report),
        _findings(report),
        _contenders(report, canvas),
        *_strata(report, canvas),
        _grid(report, canvas),
        _unseen(report),
        _size(report, canvas),
        _extra(report),
        _distillation(report, canvas),
        _again(report),
        _glossary(report),
    ]
    results = report.results
    line = [results.get(name) for name in ("dataset", "model", "date")]
    title = " · ".join(str(part) for part in line if part) or "report"
    return _PAGE.format(
        title=escape(title),
        style=_STYLE,
        headline=escape(words.headline(report)) + ".",
        tiles=_tiles(report),
        body="\n".join(section for section in sections if section),
        plotly=get_plotlyjs(),
        figures=canvas.script(),
        draw=_DRAW,
    )


class _Canvas:
    """Collects figures and hands out the places where the page draws them."""

    def __init__(self):
        self.drawn = []

    def place(self, figure, title, says):
        """A card with the figure; ``says`` tells in one sentence what it shows. Empty for no figure."""
        if figure is None:
            return ""
        self.drawn.append(figure)
        height = int(figure.layout.height)
        return (
            f'<figure class="card"><figcaption><b>{escape(title)}</b><span>{escape(says)}</span></figcaption>'
            f'<div class="plot" style="height:{height}px" role="img" aria-label="{escape(f"{title}. {says}")}"></div></figure>'
        )

    def script(self):
        """The figures as a JavaScript value that cannot end the script it stands in."""
        values = []
        for figure in self.drawn:
            value = json.loads(figure.to_json())
            value["layout"].pop("template", None)  # colours come from the page
            values.append({"data": value["data"], "layout": value["layout"]})
        text = json.dumps(values, allow_nan=False)
        for letter in "<>&\u2028\u2029":
            text = text.replace(letter, f"\\u{ord(letter):04x}")
        return text


# ---- sections


def _tiles(report):
    summary, full = report.find("summary"), report.find("full")
    tiles = []
    if summary is not None:
        share = report.share_of_events(summary)
        tiles.append((words.big_number(summary.events), "synthetic events",
                      "" if share is None else f"{words.percentage(share)} of the training events"))  # fmt: skip
        tiles.append((f"{words.kilobytes(summary.bytes)} KB", "to store",
                      "" if full is None else f"full data: {words.kilobytes(full.bytes)} KB"))  # fmt: skip
        for metric in words.headline_metrics(report):
            value = words.mean_and_spread(report.value(summary, metric))
            relative = words.relative_text(report, summary, metric)
            name = f" of {words.contender_name(report.reference)}" if relative else ""
            sure = words.relative_range(report, summary, metric)
            more = (f"95% interval {sure}; " if sure else "") + f"mean {words.metric_value(report.value(summary, metric).mean)}"
            tiles.append((relative or value, f"{words.metric_name(metric)}{name}", more if relative else ""))
        for metric in words.main_metrics(report):
            if metric not in report.smaller_is_better:
                continue
            relative = words.relative_text(report, summary, metric)
            value = words.mean_and_spread(report.value(summary, metric))
            name = f"{_named(metric)}, difference to full data; less is better" if relative else _named(metric)
            sure = words.relative_range(report, summary, metric)
            tiles.append((relative or value, name, f"95% interval {sure}" if sure else ""))
    cells = [
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span><small>{escape(more)}</small></div>'
        for value, name, more in tiles
    ]
    return f'<div class="tiles">{"".join(cells)}</div>' if cells else ""


def _gains(report):
    sentences = words.gain_sentences(report)
    if not sentences:
        return ""
    return _section("Who gains, who loses", words.strata_notes(report), _items(sentences))


def _findings(report):
    table = tables.findings_table(report)
    if not table.rows:
        return ""
    style = figures.styles(report)
    colours = [style[contender.key].colour for contender in report.contenders if contender.key != report.focus.key]
    lead = " ".join([*words.gap_sentences(report), words.verdict_note(report)])
    return _section(f"{table.title} …", lead, tables.to_html(table, colours))


def _contenders(report, canvas):
    spread = "the 95% interval over test users and seeds" if report.estimates else "one standard deviation over seeds"
    cards = [
        canvas.place(
            figures.contender_figure(report, metric),
            _named(metric),
            f"Mean on test of each contender; whiskers show {spread}; {_better(report, metric)}.",
        )
        for metric in _most(report)
    ]
    style = figures.styles(report)
    colours = [style[contender.key].colour for contender in report.contenders]
    return _section(
        "Contenders on test",
        "All on the same split, the same seeds, by RecBole's evaluator.",
        f'<div class="grid">{"".join(cards)}</div>'
        + tables.to_html(tables.contenders_table(report), colours)
        + _items(words.notes(report)),
    )


def _size(report, canvas):
    cards = []
    if sum(bool(contender.events) for contender in report.contenders) > 1:
        cards = [
            canvas.place(
                figures.size_figure(report, metric),
                f"{_named(metric)} against events",
                f"Nearer the {'lower' if metric in report.smaller_is_better else 'upper'} left: more from less data. "
                "Contenders of one size stand beside each other, not on it.",
            )
            for metric in _two(report)
        ]
    cards.append(canvas.place(
        figures.cost_figure(report, "seconds"), "Seconds of one training run",
        "Mean over seeds, on a logarithmic axis; validations that early stopping takes are counted.",
    ))  # fmt: skip
    cards.append(canvas.place(
        figures.cost_figure(report, "KB"), "KB of training data", "What has to be stored to train so, on a logarithmic axis.",
    ))  # fmt: skip
    if not any(cards):
        return ""
    return _section("Quality against size and time", "", _legend(report) + f'<div class="grid pair">{"".join(cards)}</div>')


def _strata(report, canvas):
    style = figures.styles(report)
    colours = [style[contender.key].colour for contender in report.contenders]
    name = words.contender_name(report.reference)
    for kind, by_metric in tables.strata_tables(report).items():
        if not by_metric:
            continue
        title, _, lead = words.kind_title(kind)
        if figures.leaves_out_strata(report, kind):
            lead = f"{lead} Strata marked small are in the tables alone.".strip()
        spread = " with its 95% interval" if report.estimates else ""
        cards = [
            canvas.place(
                figures.strata_figure(report, kind, metric),
                _named(metric),
                f"Mean of each contender{spread}, from the coldest stratum to the warmest; {_better(report, metric)}.",
            )
            for metric in by_metric
        ] + [_gain_card(report, canvas, kind, metric) for metric in by_metric]
        folded = "".join(
            f"<h3>{escape(table.title)}</h3>{tables.to_html(table, colours)}" for table in by_metric.values()
        )
        yield _section(
            title,
            lead if report.estimates else f"{lead} {words.strata_notes(report)}".strip(),
            f'{_legend(report, switches=True)}<div class="grid">{"".join(cards)}</div>'
            f"<details><summary>Tables, with per cent of {escape(name)}</summary>{folded}</details>",
        )


def _gain_card(report, canvas, kind, metric):
    figure = figures.gain_figure(report, kind, metric)
    if figure is None:
        return ""
    name = words.contender_name(report.reference)
    smaller = metric in report.smaller_is_better
    says = (
        f"Each contender against {name} (the line) with its 95% interval; {'below' if smaller else 'above'} it is better; full "
        "marks differ from it by the corrected test, open ones are not shown to."
    )
    if figures.is_cut(figure):
        says += " Intervals that reach the upper edge go on beyond it."
    return canvas.place(figure, f"{_named(metric)}, {'difference to' if smaller else 'per cent of'} {name}", says)


def _grid(report, canvas):
    subject = tables.grid_subject(report)
    if subject is None:
        return ""
    name = words.contender_name(report.reference)
    alone = report.reference is None or report.reference.key == subject.key
    counted = "rows" if any(stratum.users is None for stratum in report.grid) else "users"
    lead = "From cold users, above, to warm ones; from cold items, left, to warm ones. Where nothing is drawn, there is no row."
    if any(stratum.small for stratum in report.grid):
        lead += " * marks cells that are too small for a statement; they are grey."
    if not alone:
        lead += f" A dash: nothing to compare with, {name} has 0 there. Intervals are in the tables."
    cards, folded = [], []
    for metric, table in tables.grid_tables(report).items():
        if alone:
            title, says = _named(metric), f"Mean of {subject.label} in each cell, and below it the number of {counted}."
        elif metric in report.smaller_is_better:
            title = f"{_named(metric)}, difference to {name}"
            says = f"{subject.label} minus {name}: below zero, blue, it is better. Under it the number of {counted}."
        else:
            title = f"{_named(metric)}, per cent of {name}"
            says = f"{subject.label} against {name}: above 100%, blue, it is better. Under it the number of {counted}."
        cards.append(canvas.place(figures.grid_figure(report, metric, subject), title, says))
        folded.append(f"<h3>{escape(table.title)}</h3>{tables.to_html(table)}")
    return _section(
        "Users by items",
        lead,
        f'<div class="grid">{"".join(cards)}</div><details><summary>Tables</summary>{"".join(folded)}</details>',
    )


def _unseen(report):
    sentences = words.unseen_sentences(report)
    return _section("Never seen in training", "", _items(sentences)) if sentences else ""


def _extra(report):
    table = tables.extra_table(report)
    if table is None:
        return ""
    style = figures.styles(report)
    colours = [style[contender.key].colour for contender in report.contenders]
    return _section(table.title, "What is recommended beside whether it is right, by RecBole's evaluator.",
                    tables.to_html(table, colours))  # fmt: skip


def _distillation(report, canvas):
    metric = report.results.get("valid_metric") or ""
    better = "less" if metric in report.smaller_is_better else "more"
    cards = canvas.place(
        figures.loss_figure(report),
        "Outer loss",
        "What distillation lowers, by default a loss in nats after training on the summary: dots, each outer step; line, their running median.",
    ) + canvas.place(
        figures.validation_figure(report),
        f"{_named(metric)} on validation",
        f"A model trained on the summary as it stood at each step; {better} is better.",
    )
    if not cards:
        return ""
    history, pool, summary = report.part("distillation"), report.part("pool"), report.part("summary")
    facts = []
    if summary.get("sequences") is not None:
        shape = [summary.get(name, words.MISSING) for name in ("sequences", "length", "latent_dim")]
        facts.append("{} sequences of {} events, latent dimension {}".format(*shape))
    if history.get("outer_steps") is not None:
        facts.append(f"{history['outer_steps']} outer steps in {words.seconds_text(history.get('seconds'))} seconds")
    if history.get("skipped"):
        facts.append(f"{history['skipped']} steps skipped, because their gradient was not finite")
    if history.get("stopped_early"):
        facts.append("stopped early")
    if pool.get("seconds") is not None:
        made = "reused" if pool.get("reused") else f"{words.seconds_text(pool['seconds'])} seconds"
        facts.append(f"pool of teachers: {made}")
    chain = history.get("interpolation")
    if isinstance(chain, dict) and isinstance(chain.get("weight"), float):
        facts.append(f"{chain['weight']:.0%} of what taught is a Markov chain")
    text = "; ".join(facts)
    lead = text[:1].upper() + text[1:] + "." if text else ""
    return _section("Distillation", lead, f'<div class="grid pair">{cards}</div>')


def _again(report):
    blocks = []
    if report.results.get("command"):
        blocks.append(f"<pre><code>{escape(report.results['command'])}</code></pre>")
    for table in (tables.settings_table(report), tables.environment_table(report)):
        if table.rows:
            blocks.append(f"<details><summary>{escape(table.title)}</summary>{tables.to_html(table)}</details>")
    sha = report.part("summary").get("sha256")
    if sha:
        blocks.append(f'<p class="lead">SHA-256 of the summary: <code>{escape(sha)}</code></p>')
    blocks.append("<p>The page alone, from what was saved beside it, without training:</p>")
    blocks.append("<pre><code>python run_farzi.py --report THIS_FOLDER</code></pre>")
    lead = (
        "The command that made these numbers. They stand in strata.csv, comparisons.csv and results.json beside this page, "
        "the rows behind them in rows.npz."
    )
    return _section("To make it again", lead, "".join(blocks)) if blocks else ""


def _glossary(report):
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in words.glossary(report))
    return _section("What the words mean", "", f"<dl>{terms}</dl>")


def _two(report):
    smaller = [metric for metric in words.main_metrics(report) if metric in report.smaller_is_better]
    return [*words.headline_metrics(report)[:1], *smaller[:1]]


def _most(report):
    """The metrics that have a figure: all, or those of headline and strata where all were too many to look at."""
    metrics = words.main_metrics(report)
    if len(metrics) <= 6:
        return metrics
    chosen = {*words.headline_metrics(report), *words.strata_metrics(report)}
    return [metric for metric in metrics if metric in chosen]


def _better(report, metric):
    return f"{'less' if metric in report.smaller_is_better else 'more'} is better"


def _named(metric):
    return words.metric_name(metric) + (f" ({words.unit(metric)})" if words.unit(metric) else "")


def _legend(report, switches=False):
    """The contenders' marks; as switches they show and hide a contender in the figures of strata."""
    style, shown = figures.styles(report), figures.in_front(report)
    chips = []
    for number, contender in enumerate(report.contenders):
        colour, glyph = escape(style[contender.key].colour), escape(style[contender.key].glyph)
        inside = f'<i style="color:{colour}">{glyph}</i> {escape(contender.label)}'
        if switches:
            pressed = "true" if contender.key in shown else "false"
            chips.append(
                f'<button type="button" data-number="{number}" aria-pressed="{pressed}">{inside}</button>'
            )
        else:
            chips.append(f"<span>{inside}</span>")
    hint = '<small class="hint">A name shows or hides its line.</small>' if switches else ""
    return f'<p class="legend">{"".join(chips)}{hint}</p>'


def _section(title, lead, body):
    lead = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    name = "-".join(re.findall(r"[a-z]+", title.lower()))
    return f'<section id="{name}"><h2>{escape(title)}</h2>{lead}{body}</section>'


def _items(sentences):
    return f'<ul>{"".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)}</ul>' if sentences else ""


# ---- the page itself

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">{title}</p>
<h1>{headline}</h1>
{tiles}
</header>
{body}
</main>
<script>{plotly}</script>
<script>const FIGURES = {figures};
{draw}</script>
</body>
</html>
"""

_STYLE = """
:root { --page: #f6f7f9; --card: #ffffff; --text: #1c2430; --soft: #5a6675; --line: #dfe3e8; --grid: #e6e9ed;
  --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --page: #12161c; --card: #1a2028; --text: #e8ebef; --soft: #9aa6b4; --line: #2c3540; --grid: #2a323c;
    --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); overflow-wrap: anywhere;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: clamp(1.35rem, 1rem + 1.6vw, 2rem); line-height: 1.25; margin: .2em 0 .8em; max-width: 34em;
  letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 0 0 .3em; }
h3 { font-size: 1rem; margin: 1.3em 0 .4em; }
section { margin-top: 44px; }
ul { padding-left: 1.2em; margin: .9em 0 0; color: var(--soft); font-size: .93rem; }
.eyebrow { color: var(--accent); font-weight: 600; margin: 0; }
.lead { color: var(--soft); margin: 0 0 1em; max-width: 52em; font-size: .95rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 1.55rem; line-height: 1.2; overflow-wrap: normal; }
.tile span { display: block; font-size: .9rem; }
.tile small { display: block; color: var(--soft); line-height: 1.4; margin-top: 2px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 14px;
  margin-bottom: 18px; }
.pair { grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }
.card { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; min-width: 0;
  padding: 12px 12px 8px; }
figcaption b { display: block; }
figcaption span { display: block; color: var(--soft); font-size: .85rem; line-height: 1.4; }
.plot { width: 100%; overflow: hidden; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; overflow-wrap: normal;
  font-variant-numeric: tabular-nums; }
th, td { padding: 7px 8px; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
th:first-child { text-align: left; }
th:first-child { position: sticky; left: 0; background: var(--card); }
tbody th { font-weight: 500; white-space: normal; min-width: 8em; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; }
td small, thead small { display: block; color: var(--soft); font-weight: 400; }
.mark { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 8px; }
.legend { margin: 0 0 10px; font-size: .9rem; }
.legend span { display: inline-block; margin-right: 18px; }
.legend button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); cursor: pointer;
  border-radius: 999px; padding: 2px 11px; margin: 0 6px 6px 0; }
.legend button[aria-pressed="false"] { opacity: .7; border-style: dashed; }
.legend .hint { color: var(--soft); white-space: nowrap; }
.legend i { font-style: normal; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--accent); font-weight: 600; padding: 4px 0; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 0;
  padding: 12px 16px; overflow-x: auto; }
code { font-size: .9em; }
dl { display: grid; grid-template-columns: minmax(8em, max-content) 1fr; gap: 8px 20px; margin: 0; font-size: .95rem; }
dt { font-weight: 600; }
dd { margin: 0; color: var(--soft); }
@media (max-width: 600px) {
  main { padding: 20px 12px 40px; }
  dl { grid-template-columns: 1fr; gap: 2px; }
  dd { margin-bottom: 10px; }
  .tiles { grid-template-columns: 1fr 1fr; }
}
@media print {
  :root { --page: #ffffff; --card: #ffffff; --text: #1c2430; --soft: #5a6675; --line: #dfe3e8; --grid: #e6e9ed; }
  .card, .tile, tr, .lead, li { break-inside: avoid; }
  h2, h3, .lead, .legend, summary { break-after: avoid; }
  .legend button[aria-pressed="false"], .legend .hint { display: none; }
  main { max-width: none; padding: 0; }
  .legend { break-inside: avoid; }
  .grid, .pair { display: block; }
  .card { display: inline-block; vertical-align: top; width: 48.5%; margin: 0 1% 10px 0; }
  .plot { display: flex; justify-content: center; }
  .scroll { overflow: visible; }
  table { font-size: .7rem; }
  table.wide { font-size: .56rem; }
  th, td { padding: 3px; white-space: normal; }
  tbody th { min-width: 0; }
  th:first-child { position: static; }
  pre { overflow: visible; white-space: pre-wrap; }
}
"""

# The colours of text and grid are read from the page's style, again when the reader's scheme changes.
_DRAW = """
const places = document.querySelectorAll(".plot");
let printing = false;
function draw() {
  const size = printing ? { width: 305 } : {};  // two beside each other on A4 and Letter
  const style = getComputedStyle(document.documentElement);
  const colour = name => style.getPropertyValue("--" + name).trim();
  const axis = { gridcolor: colour("grid"), linecolor: colour("line"), tickcolor: colour("line"), zeroline: false };
  const theme = { layout: { font: { color: colour("text"), family: getComputedStyle(document.body).fontFamily },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis,
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("text") } } } };
  FIGURES.forEach((figure, number) => Plotly.react(places[number], figure.data,
    { ...figure.layout, ...size, template: theme }, { responsive: !printing, displayModeBar: false }));
}
draw();
for (const query of ["(prefers-color-scheme: dark)", "print"]) {
  const media = matchMedia(query);
  if (media.addEventListener) media.addEventListener("change", draw);
}
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach(part => { part.open = true; });
  printing = true;
  draw();
});
addEventListener("afterprint", () => { printing = false; draw(); });
document.querySelectorAll(".legend button").forEach(button => button.addEventListener("click", () => {
  const number = button.dataset.number, shown = button.getAttribute("aria-pressed") !== "true";
  document.querySelectorAll(".legend button").forEach(other => {
    if (other.dataset.number === number) other.setAttribute("aria-pressed", shown);
  });
  FIGURES.forEach(figure => figure.data.forEach(trace => { if (trace.meta === +number) trace.visible = shown; }));
  draw();
}));
"""
