"""Estimates on every stratum: a planted gain is found where it was planted, and nowhere else."""

import numpy as np
import pytest

from recbole_farzi.errors import DataError
from recbole_farzi.report import uncertainty, words
from recbole_farzi.report.aggregate import aggregate
from recbole_farzi.report.resampling import holm

from .invented import averaged, invented, invented_rows

KEYS = ("full", "summary", "random")


def strata():
    """A grid of strata in which none is small."""
    return {
        "users": [{"label": "1-9 training events", "rows": 500}, {"label": "10-99 training events", "rows": 443}],
        "items": [{"label": "1-5 occurrences", "rows": 450}, {"label": "6-90 occurrences", "rows": 493}],
    }


@pytest.fixture(scope="module")
def planted():
    """The summary is far better on cold items; elsewhere it is what full data is."""
    results = invented(keys=KEYS, strata=strata())
    results, rows = invented_rows(results, cold_gain=0.25)
    warm = rows["items/stratum"] > 0
    rows["all/summary"][:, :, warm] = rows["all/full"][:, :, warm]
    averaged(results, rows)
    return aggregate(results, rows)


def test_a_model_that_is_good_on_cold_items_only_is_found_to_be_so(planted):
    summary = planted.find("summary")
    for metric in ("hit@10", "ndcg@10"):
        assert planted.against_reference(summary, metric, "items", 0) == "better"
        assert planted.against_reference(summary, metric, "items", 1) == "level"
        assert planted.against_reference(summary, metric, "tail", 0) == "better"
        assert planted.against_reference(summary, metric, "tail", 1) == "level"
        cells = {stratum.cell: number for number, stratum in enumerate(planted.grid)}
        assert planted.against_reference(summary, metric, "grid", cells[0, 0]) == "better"
        assert planted.against_reference(summary, metric, "grid", cells[0, 1]) == "level"
    (sentence,) = [s for s in words.gain_sentences(planted) if "items by occurrences" in s]
    assert "better for 1-5 occurrences" in sentence and "not shown to differ for 6-90 occurrences" in sentence


def test_less_is_better_for_cross_entropy(planted):
    worse = planted.find("random")
    assert planted.value(worse, "crossentropy").mean > planted.value(planted.reference, "crossentropy").mean
    assert planted.against_reference(worse, "crossentropy") == "worse"
    assert words.mark(planted, worse, "crossentropy", "users", 0) == "▼"


def test_intervals_hold_their_means_and_ratios(planted):
    for contender in planted.contenders:
        for kind, number in ((None, None), ("users", 0), ("items", 1), ("tail", 0)):
            value = planted.value(contender, "hit@100", kind, number)
            assert value.low <= value.mean <= value.high
            found = planted.relative_interval(contender, "hit@100", kind, number)
            if contender.key == "full":
                assert found is None
            else:
                assert found[0] <= planted.relative(contender, "hit@100", kind, number) <= found[1]


def test_the_reference_is_100_per_cent_of_itself_in_every_draw(planted):
    found = planted.estimate(planted.reference, "hit@10")
    ends = (found.ratio_low, found.ratio_high, found.difference_low, found.difference_high)
    assert ends == pytest.approx((100, 100, 0, 0))
    assert found.p is None


def test_small_strata_are_not_tested():
    results, rows = invented_rows(invented(keys=KEYS), cold_gain=0.9)
    report = aggregate(results, rows)
    assert report.strata["items"][2].small
    assert report.estimate(report.find("summary"), "hit@10", "items", 2).p is None
    assert report.against_reference(report.find("summary"), "hit@10", "items", 2) is None


def test_p_values_are_corrected_for_the_number_of_contenders_and_strata(monkeypatch):
    """By hand: one family for a metric and what it is compared with, on all rows and on all strata."""
    results, rows = invented_rows(invented(strata=strata()), cold_gain=0.05)
    corrected = aggregate(results, rows).estimates
    monkeypatch.setattr(uncertainty, "holm", lambda p: np.asarray(p, dtype=float))
    plain = aggregate(results, rows).estimates
    changed = 0
    for name, alone in (("p", "full"), ("p_focus", "summary")):
        for metric in results["metrics"]:
            for whole in (True, False):
                family = [at for at in plain if at[3] == metric and at[2] != alone and (at[0] == "all") == whole]
                assert len(family) == 5 * (1 if whole else 2 + 2 + 2 + 4)
                before, after = ([getattr(estimates[at], name) for at in family] for estimates in (plain, corrected))
                assert after == holm(before).tolist()
                changed += sum(p != q for p, q in zip(before, after))
    assert changed > 100
    assert all(estimates["all", 0, "full", "hit@10"].p is None for estimates in (plain, corrected))


def test_many_contenders_and_strata_leave_room_for_findings():
    """With 1,999 flips the smallest p-value, corrected for 300 tests, would be 0.15."""
    users, keys = 250, [f"c{n}" for n in range(61)]
    rng = np.random.default_rng(22)
    base = rng.normal(size=users)
    arrays = {f"all/{key}": base[None, None] + 0.01 * rng.normal(size=(1, 1, users)) for key in keys}
    arrays["all/c1"] = arrays["all/c1"] + 1
    arrays |= {"all/users": np.arange(users), "users/stratum": np.arange(users) % 5}
    assert uncertainty.estimate(arrays, keys, ["m"], {"users": 5}, "c0", None)["users", 3, "c1", "m"].p <= 0.05


def test_corrected_p_values_are_not_below_those_of_fewer_strata():
    results, rows = invented_rows(invented(keys=KEYS, strata=strata()), cold_gain=0.05)
    every = aggregate(results, rows)
    few = aggregate({**results, "strata": {"users": results["strata"]["users"]}}, rows)
    for metric in results["metrics"]:
        for number in range(2):
            one, other = (r.estimate(r.find("random"), metric, "users", number).p for r in (every, few))
            assert one >= other - 1e-12


def test_the_same_rows_give_the_same_numbers():
    results, rows = invented_rows(invented(keys=KEYS))
    assert aggregate(results, rows).estimates == aggregate(results, rows).estimates


def test_a_ratio_to_nothing_has_no_upper_end():
    results, rows = invented_rows(invented(keys=KEYS, strata=strata()))
    rows["all/full"][:, 0] = 0.0
    report = aggregate(results, rows)
    assert report.relative_interval(report.find("summary"), "hit@10") == (None, None)
    for run in results["contenders"][0]["runs"]:
        run["metrics"]["hit@10"] = 0.0
    assert words.relative_text(aggregate(results, rows), report.find("summary"), "hit@10") == ""


@pytest.mark.parametrize("damage", [
    lambda rows: rows.pop("all/users"), lambda rows: rows.pop("users/stratum"), lambda rows: rows.pop("all/summary"),
    lambda rows: rows.update({"users/stratum": rows["users/stratum"] * 0}),
    lambda rows: rows.update({"all/full": rows["all/full"][:, :2]}),
    lambda rows: rows.update({"users/stratum": np.zeros(3, dtype=int)}),
])  # fmt: skip
def test_rows_of_other_results_are_refused(damage):
    results, rows = invented_rows(invented(keys=KEYS))
    damage(rows)
    with pytest.raises(DataError, match="the rows do not belong to these results"):
        aggregate(results, rows)
