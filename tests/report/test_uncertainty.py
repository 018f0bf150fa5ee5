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
    (sentence,) = [s for s in words.gain_sentences(planted) if "items by occurrences, nDCG@10" in s]
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


def test_p_values_are_corrected_for_what_answers_one_question(monkeypatch):
    """By hand: of strata, those of a kind for one contender; on all rows, the contenders."""
    results, rows = invented_rows(invented(strata=strata()), cold_gain=0.05)
    estimates = aggregate(results, rows).estimates
    changed = 0
    for name, alone in (("p", "full"), ("p_focus", "summary")):
        for metric in results["metrics"]:
            others = [at for at in estimates if at[3] == metric and at[2] != alone]
            families = [[at for at in others if at[0] == "all"]]
            families += [
                [at for at in others if at[0] == kind and at[2] == contender]
                for kind in ("users", "items", "tail", "grid")
                for contender in {at[2] for at in others}
            ]
            assert sorted({len(family) for family in families}) == [2, 4, 5]
            for family in families:
                before = [getattr(estimates[at], f"{name}_alone") for at in family]
                after = [getattr(estimates[at], name) for at in family]
                assert after == holm(before).tolist()
                changed += sum(p != q for p, q in zip(before, after))
    assert changed > 100
    assert estimates["all", 0, "full", "hit@10"].p is None


def test_a_loss_of_three_runs_is_found_however_many_contenders_there_are():
    """What families of all contenders and strata together could not: of Student's t with two degrees of freedom, 0.05 / 150 is out of reach."""
    users, keys, kinds = 720, ["full", "summary", *(f"c{n}" for n in range(6))], {"users": 3, "items": 4, "tail": 3, "grid": 12}
    rng = np.random.default_rng(23)
    base = rng.normal(size=users)
    runs = base + 0.3 * rng.normal(size=(3, users)) + 0.03 * rng.normal(size=(3, 1))
    arrays = {f"all/{key}": (runs + 0.3 * rng.normal(size=(3, users)) + 0.03 * rng.normal(size=(3, 1)))[:, None] for key in keys}
    arrays |= {"all/users": np.arange(users), **{f"{kind}/stratum": np.arange(users) % n for kind, n in kinds.items()}}
    arrays["all/summary"][:, :, arrays["items/stratum"] == 0] -= 1.0
    found = uncertainty.estimate(arrays, keys, ["m"], kinds, "full", "summary")
    assert found["items", 0, "summary", "m"].p < 0.05
    every = holm([e.p_alone for at, e in found.items() if at[0] != "all" and e.p_alone is not None])
    assert len(every) == 7 * 22 and min(every) > 10 * found["items", 0, "summary", "m"].p_alone
    assert all(found["items", n, "summary", "m"].p > 0.05 for n in (1, 2, 3))


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


# --- the edges --------------------------------------------------------------------------------------------------------


def no_hits(report_of, *keys):
    """Invented results and rows where nobody is hit by some contenders."""
    results, rows = invented_rows(invented(keys=(*KEYS, "popularity"), strata=strata()))
    for key in keys:
        rows[f"all/{key}"][:, :4] = 0.0
    averaged(results, rows)
    return report_of(results, rows)


def test_a_contender_that_hits_nobody_may_yet_hit_somebody():
    report = no_hits(aggregate, "random", "popularity")
    for key in ("random", "popularity"):  # of three runs and of one
        found, number = report.estimate(report.find(key), "hit@100", "items", 0), report.strata["items"][0].rows
        assert found.low == 0 and found.high == pytest.approx(3.69 / number, rel=0.25)
        assert found.ratio_low == 0 and 0 < found.ratio_high < 100
        assert found.difference_low < found.difference_high < 0
        assert report.against_reference(report.find(key), "hit@100", "items", 0) == "worse"


def test_where_full_data_hits_nobody_there_is_no_per_cent_and_a_difference():
    report = no_hits(aggregate, "full", "random")
    summary, random = report.find("summary"), report.find("random")
    for key in (summary, random, report.reference):
        assert report.relative(key, "hit@10", "items", 0) is None
        assert report.estimate(key, "hit@10", "items", 0).ratio_high is None
    assert report.against_reference(summary, "hit@10", "items", 1) == "better"
    equal = report.estimate(random, "hit@10", "items", 0)
    assert equal.p == 1 and equal.difference_low < 0 < equal.difference_high
    assert report.against_reference(random, "hit@10", "items", 0) == "level"


def test_rare_hits_in_small_strata_are_covered():
    """One user in fifty is hit, of fifty users: bootstrap draws alone cover that in 64 of 100 strata, since many have no hit."""
    rng, covered, alone = np.random.default_rng(24), 0, 0
    for trial in range(60):
        hits = (rng.random((1, 1, 50)) < 0.02).astype(float)
        arrays = {"all/users": np.arange(50), "all/c": hits}
        found = uncertainty.estimate(arrays, ["c"], ["hit@10"], {}, None, None)["all", 0, "c", "hit@10"]
        other = uncertainty.estimate(arrays, ["c"], ["unheardof@10"], {}, None, None)["all", 0, "c", "unheardof@10"]
        covered += found.low <= 0.02 <= found.high
        alone += other.low <= 0.02 <= other.high
    assert covered >= 55 and alone <= 48


def test_the_share_of_the_gap_has_an_interval():
    results, rows = invented_rows(invented(keys=("full", "summary", "start"), strata=strata()))
    report = aggregate(results, rows)
    low, high = report.gap_closed_interval(report.find("summary"), "crossentropy")
    assert low < report.gap_closed(report.find("summary"), "crossentropy") < high
    assert report.gap_closed_interval(report.find("start"), "crossentropy") == (0, 0)
    assert report.gap_closed_interval(report.reference, "crossentropy") == pytest.approx((100, 100))
    (sentence,) = words.gap_sentences(report)
    assert f"(95% interval {words.percentage(low)} to {words.percentage(high)})." in sentence


def test_no_interval_of_a_gap_that_may_not_be_there():
    results, rows = invented_rows(invented(keys=("full", "summary", "start"), strata=strata()))
    rows["all/start"][:, 4] = rows["all/full"][:, 4] + np.random.default_rng(2).normal(0.001, 1, rows["all/full"][:, 4].shape)
    averaged(results, rows)
    report = aggregate(results, rows)
    assert None in report.gap_closed_interval(report.find("summary"), "crossentropy")


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
