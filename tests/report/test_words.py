"""Names, numbers and sentences."""

import pytest

from recbole_farzi.report import words
from recbole_farzi.report.aggregate import Statistic, aggregate

from .invented import invented


@pytest.mark.parametrize(
    "metric, name",
    [
        ("hit@10", "HR@10"),
        ("ndcg@100", "nDCG@100"),
        ("crossentropy", "cross-entropy"),
        ("itemcoverage@5", "item coverage@5"),
        ("unheardof@3", "unheardof@3"),
    ],
)
def test_metric_names(metric, name):
    assert words.metric_name(metric) == name


def test_numbers():
    assert words.mean_and_spread(Statistic(0.12345, 0.00211, 3)) == "0.1235 ± 0.0021"
    assert words.mean_and_spread(Statistic(0.12345, None, 1)) == "0.1235"
    assert words.mean_and_spread(Statistic(None, None, 0)) == words.MISSING
    assert [words.percentage(value) for value in (2.599, 9.96, 93.4, None)] == ["2.6%", "10%", "93%", words.MISSING]
    assert words.kilobytes(141456) == "138"
    assert words.big_number(98114) == "98,114"


def with_hits(full, summary):
    """Invented results where both contenders have the one value of every metric that is given."""
    results = invented(keys=("full", "summary"))
    for contender, value in zip(results["contenders"], (full, summary)):
        for run in contender["runs"]:
            run["metrics"] = {metric: value for metric in run["metrics"]}
    return aggregate(results)


@pytest.mark.parametrize("full, summary, share", [(0.2, 0.1, "50%"), (0.1, 0.2, "200%"), (0.1, 0.0, "0.0%")])
def test_headline_is_what_the_numbers_say(full, summary, share):
    assert words.headline(with_hits(full, summary)) == (
        "A model trained on 2,550 synthetic events (2.6% of the 98,114 real ones, 138 KB, 36% of their size) reaches "
        f"{share} of the HR@10 of full data and {share} of its nDCG@10"
    )


def test_headline_without_full_data_shares_or_runs():
    assert "reaches HR@10 0." in words.headline(aggregate(invented(keys=("summary",))))
    assert words.headline(aggregate(invented(keys=("full", "random")))) == (
        "2 ways of training SASRec on invented-100k, from cold to warm"
    )
    results = invented(keys=("full", "summary"))
    results["contenders"][1]["runs"] = []
    assert words.headline(aggregate(results)).endswith("has no valid run")


def test_verdicts_respect_the_direction_of_the_metric():
    report = with_hits(0.2, 0.1)
    full, summary = report.contenders
    # Equal runs have a known spread, of 0.
    assert words.verdict(report, full, "hit@10") == "worse"
    assert words.verdict(report, full, "crossentropy") == "better"
    other = with_hits(0.1, 0.2)
    assert words.verdict(other, other.find("full"), "hit@10") == "better"
    assert words.verdict(report, summary, "hit@10") == "level"


def test_verdict_of_single_runs_is_unclear():
    report = aggregate(invented(keys=("full", "summary"), seeds=1))
    assert words.verdict(report, report.find("full"), "hit@10") == "unclear"


def test_no_gap_is_claimed_where_the_start_is_better_than_full_data():
    results = invented(keys=("full", "summary", "start"))
    assert len(words.gap_sentences(aggregate(results))) == 1
    for run in results["contenders"][2]["runs"]:
        run["metrics"]["crossentropy"] = 5.0
    assert words.gap_sentences(aggregate(results)) == []


def test_metrics_shown_by_stratum():
    assert words.strata_metrics(aggregate(invented())) == ["ndcg@10", "hit@100", "crossentropy"]
    results = invented(metrics=["mrr@5", "recall@5"])
    assert words.strata_metrics(aggregate(results)) == ["mrr@5"]


def test_standard_error_of_the_hit_ratio_is_binomial():
    # 0.2 on 943 rows: sqrt(0.2 * 0.8 / 943) = 0.01303
    assert any("HR@10 is 0.013." in note for note in words.notes(with_hits(0.2, 0.1)))
