"""Figures show the numbers and no others."""

import math

import pytest

from recbole_farzi.report import figures
from recbole_farzi.report.aggregate import aggregate

from .invented import LEVELS, averaged, invented, invented_rows


def test_contenders_have_means_error_bars_and_their_colours():
    report = aggregate(invented())
    figure = figures.contender_figure(report, "hit@10")
    style = figures.styles(report)
    for contender, bar in zip(report.contenders, figure.data):
        value = report.value(contender, "hit@10")
        assert bar.x == (value.mean,)
        assert bar.error_x.visible is (value.sd is not None)
        assert bar.error_x.array == pytest.approx((value.sd or 0,))
        assert bar.marker.color == style[contender.key].colour
    assert {trace.type for trace in figure.data} == {"bar", "scatter"}


def test_metrics_without_a_zero_are_points():
    figure = figures.contender_figure(aggregate(invented()), "crossentropy")
    assert {trace.type for trace in figure.data} == {"scatter"}
    assert figure.layout.xaxis.range[0] > 5


def test_styles_differ_and_do_not_depend_on_who_else_is_there():
    every = figures.styles(aggregate(invented()))
    assert len({style.colour for style in every.values()}) == len(LEVELS)
    assert len({style.symbol for style in every.values()}) == len(LEVELS)
    few = figures.styles(aggregate(invented(keys=("random", "summary"))))
    assert few == {key: every[key] for key in few}


def test_unknown_contenders_get_spare_styles():
    results = invented()
    for number in range(4):
        results["contenders"].append({**results["contenders"][0], "key": f"other {number}"})
    found = figures.styles(aggregate(results)).values()
    assert len({(style.colour, style.symbol) for style in found}) == len(LEVELS) + 4


def test_variants_share_a_colour_and_differ_by_mark():
    results = invented(keys=("full",))
    keys = ("hard-1", "hard-5", "hard-20", "random", "random-bytes", "svp-cf", "svp-cf-users", "svp-cf-users-bytes")
    for key in keys:
        results["contenders"].append({**results["contenders"][0], "key": key})
    style = figures.styles(aggregate(results))
    assert style["hard-1"].colour == style["hard-5"].colour == style["hard-20"].colour != style["random"].colour
    assert len({style[key].symbol for key in keys}) == len({style[key].glyph for key in keys}) == len(keys)
    assert style["random-bytes"].symbol == style["random"].symbol + "-open"


def test_size_is_on_a_logarithmic_axis_that_holds_every_point():
    figure = figures.size_figure(aggregate(invented()), "hit@10")
    low, high = figure.layout.xaxis.range
    assert figure.layout.xaxis.type == "log"
    sizes = [98114, 2550, 2550, 2550, 2550, 98114]
    places = [trace.x[0] for trace in figure.data]
    assert places == pytest.approx(sizes, rel=0.3) and len(set(places)) == 6  # of one size beside each other
    assert math.prod(places[1:5]) == pytest.approx(2550**4)
    assert all(low < math.log10(trace.x[0]) < high for trace in figure.data)


@pytest.mark.parametrize("low, high", [(2550, 98114), (1, 1), (1, 20_000_000), (999, 1001)])
def test_log_ticks_enclose_the_numbers(low, high):
    ticks = figures._log_ticks(low, high)
    assert ticks == sorted(ticks) and ticks[0] <= low and ticks[-1] >= high
    assert len(ticks) <= 12


def test_strata_run_from_cold_to_warm_with_their_rows():
    report = aggregate(invented())
    figure = figures.strata_figure(report, "items", "ndcg@10")
    assert figure.layout.xaxis.ticktext[2] == "169-583<br>43 rows<br>(small)"
    assert figure.layout.xaxis.title.text == "occurrences"
    summary = figure.data[1]
    values = [report.value(report.find("summary"), "ndcg@10", "items", number).mean for number in range(3)]
    assert summary.y == (*values[:2], None)  # of 43 rows nothing is said
    assert [round(x) for x in summary.x] == [0, 1, 2]


def test_strata_that_are_all_small_are_drawn():
    results = invented()
    for stratum in results["strata"]["items"]:
        stratum["rows"] = 40
    report = aggregate(results)
    assert not figures.leaves_out_strata(report, "items")
    assert None not in figures.strata_figure(report, "items", "ndcg@10").data[1].y


def test_intervals_that_go_on_beyond_a_figure_are_said_to():
    results, rows = invented_rows(invented(keys=("full", "summary")))
    report = aggregate(results, rows)
    plain = figures.gain_figure(report, "items", "hit@100")
    assert not figures.is_cut(plain)
    rows["all/full"][:, 0] = 0.0
    rows["all/full"][0, 0, :30] = 1.0  # of three runs one hits somebody: per cent of it have no upper end
    averaged(results, rows)
    report = aggregate(results, rows)
    summary = report.find("summary")
    assert report.relative_interval(summary, "hit@10", "tail", 1)[1] is None
    figure = figures.gain_figure(report, "tail", "hit@10")
    (trace,) = [trace for trace in figure.data if trace.meta is not None]
    top = figure.layout.yaxis.range[1]
    assert figures.is_cut(figure) and trace.y[1] + trace.error_y.array[1] == pytest.approx(top)
    assert all(y is None or y < top for y in trace.y)  # every mean is in the figure, whatever its size


def test_costs_on_a_logarithmic_axis_are_points():
    for what in ("seconds", "KB"):
        figure = figures.cost_figure(aggregate(invented()), what)
        assert figure.layout.xaxis.type == "log" and {trace.type for trace in figure.data} == {"scatter"}
        assert len(figure.layout.xaxis.tickvals) <= 6


def test_cells_of_which_nothing_is_said_have_no_colour_of_better_or_worse():
    results, rows = invented_rows(invented(keys=("full", "summary")))
    report = aggregate(results, rows)
    (heat,) = figures.grid_figure(report, "crossentropy", report.find("summary")).data
    small = [stratum.cell for stratum in report.grid if stratum.small]
    assert small and all(heat.z[row][column] == 0.0 for row, column in small)
    assert all(heat.text[row][column].endswith("*") for row, column in small)


def test_what_labels_share_stands_at_the_axis_once():
    figure = figures.grid_figure(report := aggregate(*invented_rows(invented())), "hit@10", report.find("summary"))
    assert figure.layout.xaxis.ticktext == ("0-55", "56-168", "169-583")
    assert figure.layout.xaxis.title.text == "items by occurrences"
    assert figure.layout.yaxis.title.text == "users by training events"


def test_empty_strata_are_gaps():
    results = invented(keys=("full",))
    for run in results["contenders"][0]["runs"]:
        run["strata"]["users"][1] = None
    figure = figures.strata_figure(aggregate(results), "users", "hit@10")
    assert [value is None for value in figure.data[0].y] == [False, True, False]


def test_skipped_steps_are_left_out_of_the_loss():
    figure = figures.loss_figure(aggregate(invented(distillation={"losses": [3.0, None, 1.0, math.nan, 2.0]})))
    assert (figure.data[0].x, figure.data[0].y) == ((1, 3, 5), (3.0, 1.0, 2.0))


def test_running_median_at_the_ends_and_in_the_middle():
    assert figures._running_median([5, 1, 3, 9, 2], 1) == [3, 3, 3, 3, 5.5]


@pytest.mark.parametrize("distillation", [None, {}, {"losses": [], "validations": []}, {"losses": [None, None]}])
def test_nothing_is_drawn_of_no_distillation(distillation):
    report = aggregate(invented(distillation=distillation))
    assert figures.loss_figure(report) is None
    assert figures.validation_figure(report) is None


def test_validation_marks_the_step_that_was_kept():
    results = invented()
    figure = figures.validation_figure(aggregate(results))
    assert figure.data[0].x == tuple(range(0, 301, 50))
    assert figure.data[0].y == tuple(one["metrics"]["crossentropy"] for one in results["distillation"]["validations"])
    assert [shape.x0 for shape in figure.layout.shapes] == [250]
