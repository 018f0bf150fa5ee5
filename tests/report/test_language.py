"""Quality against size: ratios and intervals from sums over sentences that are known."""

import math

import numpy as np
import pytest

from recbole_farzi.errors import DataError
from recbole_farzi.report.language import curve, markdown_table, points

EVENTS = [10, 5, 20, 1] * 25


def run(cross_entropy, right, seed=0):
    """A run with the same cross-entropy at every word, or one given for each sentence."""
    rates = np.broadcast_to(cross_entropy, len(EVENTS))
    sums = {
        "cross_entropy": [float(rate * count) for rate, count in zip(rates, EVENTS)],
        "first": [right * count for count in EVENTS],
        "events": EVENTS,
    }
    mean = sum(sums["cross_entropy"]) / sum(EVENTS)
    return {"seed": seed, "seconds": 2.0, "metrics": {"perplexity": math.exp(mean), "accuracy": right}, "by_user": sums}


def contender(key, events, runs):
    return {"key": key, "label": key, "events": events, "bytes": 4 * events, "runs": runs}


def result(*contenders):
    return {"data": {"training_events": 1000}, "contenders": list(contenders)}


@pytest.fixture
def results():
    full = contender("full", 1000, [run(math.log(100), 0.2)])
    sample = contender("random", 10, [run(math.log(900), 0.1)])
    unigram = contender("popularity", 1000, [run(math.log(700), 0.05)])
    return [
        result(full, contender("summary", 50, [run(math.log(200), 0.1), run(math.log(300), 0.1, 1)]), unigram),
        result(full, contender("summary", 10, [run(math.log(400), 0.1)]), sample, unigram),
    ]


def test_each_contender_stands_once_the_small_before_the_large(results):
    table = points(results)
    assert [(point.key, point.tokens) for point in table] == [
        ("full", 1000), ("popularity", 1000), ("summary", 10), ("random", 10), ("summary", 50),
    ]  # fmt: skip
    assert [point.share for point in table] == [1, 1, 0.01, 0.01, 0.05]


def test_per_cents_are_those_of_the_definitions(results):
    full, unigram, small, _, large = points(results)
    assert full.perplexity_of_full is None and full.perplexity[0] == pytest.approx(100) and full.perplexity[1] is None
    assert unigram.perplexity_of_full[0] == pytest.approx(100 / 700)
    assert small.perplexity_of_full == pytest.approx((0.25, 0.25, 0.25))  # every sentence alike: nothing is uncertain
    assert small.accuracy_of_full == pytest.approx((0.5, 0.5, 0.5))
    assert large.perplexity_of_full[0] == pytest.approx(100 / math.sqrt(200 * 300))  # of mean cross-entropies
    assert large.perplexity[0] == pytest.approx(250) and large.perplexity[1] == pytest.approx(math.sqrt(5000))


def test_intervals_are_about_as_wide_as_theory_says():
    """Sentences of one word each, the difference from full data normal with sd 1: +-1.96 / sqrt(100) nats."""
    noise = np.random.default_rng(3).standard_normal(100)
    noise = (noise - noise.mean()) / noise.std()
    runs = {key: run(0.0, 0.1) for key in ("full", "summary")}
    for key, values in (("full", np.zeros(100)), ("summary", noise)):
        runs[key]["by_user"] = {"cross_entropy": values.tolist(), "first": [1] * 100, "events": [1] * 100}
    table = points([result(*(contender(key, 5, [one]) for key, one in runs.items()))])
    value, low, high = table[1].perplexity_of_full
    assert value == pytest.approx(1.0)
    assert math.log(high) == pytest.approx(0.196, abs=0.02) and math.log(low) == pytest.approx(-0.196, abs=0.02)


def test_table_and_curve_show_the_same(results):
    table = points(results)
    text = markdown_table(table)
    assert text.count("\n") == 6
    assert "| summary | 10 | 1% | 0.0391 | 1 | 400.0 | 25% (25–25) | 10.00% | 50% (50–50) | 2 |" in text
    figure = curve(table, [("trigram", 50.0)])
    drawn = {(trace.name, trace.yaxis): list(trace.y) for trace in figure.data}
    assert drawn["summary", "y"] == pytest.approx([25, 10000 / math.sqrt(60000)])
    assert drawn["random", "y"] == pytest.approx([100 / 9]) and drawn["random", "y2"] == pytest.approx([50])
    lines = [(shape.yref, shape.y0) for shape in figure.layout.shapes]
    assert lines == [("y", pytest.approx(100 / 7)), ("y", 100), ("y2", 25), ("y2", 100), ("y", pytest.approx(200))]


def test_distillations_of_the_same_size_are_pooled(results):
    """Another seed's runs join; those that are in several results count once."""
    other = result(contender("summary", 10, [run(math.log(900), 0.3, 7)]))
    other["seed"] = 7
    table = {(point.key, point.tokens): point for point in points([*results, other])}
    assert table["full", 1000].runs == 1
    pooled = table["summary", 10]
    assert pooled.runs == 2 and pooled.perplexity[0] == pytest.approx(650)
    assert pooled.perplexity_of_full[0] == pytest.approx(100 / 600) and pooled.accuracy[0] == pytest.approx(0.2)


def test_results_that_do_not_belong_together_are_refused(results):
    results[1]["data"]["training_events"] = 999
    with pytest.raises(DataError, match="of different texts"):
        points(results)
    del results[0]["contenders"][0]["runs"][0]["by_user"]
    with pytest.raises(DataError, match="not made with farzi_positions=every"):
        points(results)
