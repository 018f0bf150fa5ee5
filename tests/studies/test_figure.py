"""The figure of a study."""

import re

import pytest

from recbole_farzi.studies import figure


def point(x, mean, low, high, start=None):
    trial = {"final": True, "valid": 1.0 + mean, "start_valid_metrics": {"crossentropy": 2.0}}
    estimates = {"summary": {"hit@10": [mean, low, high]}, "start": {"hit@10": [start or mean, low, high]}}
    return {"x": x, "series": "", "trials": [trial], "bigger": False, "estimates": estimates}


def results(*points, **more):
    said = {"x": "rule", "log": False, "metric": "hit@10", "valid_metric": "crossentropy", "done": 1, "total": 1}
    return {"points": list(points), "title": "T <b>", "dataset": "d", "model": "m", **said, **more}


@pytest.fixture
def rules():
    return results(point("Adam", 0.2, 0.19, 0.21), point("SGD", 0.1, 0.09, 0.11), point("other", 0.15, -4.0, 4.0))


def test_a_contender_has_one_colour_in_both_panels(rules):
    colours = [{line.name: line.colour for line in panel.lines} for panel in figure.panels(rules)]
    shared = set(colours[0]) & set(colours[1])
    assert shared == {"summary", "start, not distilled"}
    assert all(colours[0][name] == colours[1][name] for name in shared)
    assert colours[0]["summary"] != colours[0]["start, not distilled"]


def test_intervals_at_the_same_name_stand_side_by_side(rules):
    test, _ = figure.panels(rules)
    assert test.names == ["Adam", "SGD", "other"]
    assert not {x for x in test.lines[0].x} & {x for x in test.lines[1].x}
    assert [round(x) for line in test.lines for x in line.x] == [0, 1, 2] * 2


def test_one_long_interval_does_not_flatten_the_others(rules):
    low, high = figure.y_range(figure.panels(rules)[0])
    assert low <= 0.09 and 0.21 <= high < 0.3 and low > -0.1
    assert figure.y_range(figure.panels(rules)[1]) is None  # validation has no intervals


def test_numbers_keep_their_place():
    test, _ = figure.panels(results(point(0.01, 0.1, 0.0, 0.2), point(0.1, 0.2, 0.1, 0.3), log=True))
    assert test.log and test.names == [] and all(line.x == [0.01, 0.1] for line in test.lines)


def test_the_page_names_every_line_once_and_needs_no_network(rules):
    page = figure.draw_html(rules)
    assert "<title>T &lt;b&gt;: d, m</title>" in page and "(partial:" not in page
    shown = re.findall(r'"name":"([^"]+)","showlegend":true', page)
    assert sorted(shown) == ["start, not distilled", "summary"]
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=", page)
    assert "(partial: 1 of 3 trials)" in figure.draw_html({**rules, "total": 3})


def test_the_picture_is_the_same_every_time(rules):
    pytest.importorskip("matplotlib", reason="draws the SVG")
    first = figure.draw_svg(rules)
    assert first.startswith(b"<?xml") and first == figure.draw_svg(rules)
