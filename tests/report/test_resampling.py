"""Intervals that cover as often as they say, tests that reject as rarely as they say, against enumeration and by simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from recbole_farzi.report.resampling import (
    Sample,
    bootstrap_means,
    holm,
    interval,
    sample_of_rows,
    sign_flip_p_values,
    unanimous,
    unanimous_draws,
)


def simulated(rng, runs, users, of_user, of_run, of_both):
    """A sample whose true mean is 0, one row a user."""
    values = rng.normal(size=users) * of_user + rng.normal(size=(runs, 1)) * of_run + rng.normal(size=(runs, users)) * of_both
    return sample_of_rows(values[:, None], np.arange(users))


@pytest.mark.parametrize("of_run", [0.0, 0.2], ids=["alike", "runs-differ"])
def test_95_per_cent_intervals_cover_about_95_times_in_100(of_run):
    """Binomial error of 200 trials: 0.015; where the runs are alike, the interval errs on the wide side."""
    rng, covered = np.random.default_rng(5), 0
    for trial in range(200):
        low, high = interval(bootstrap_means([simulated(rng, 3, 120, 1.0, of_run, 0.7)], trial, draws=400))
        covered += low[0, 0] <= 0 <= high[0, 0]
    assert 0.90 <= covered / 200 <= 0.995


def test_intervals_of_a_single_run_cover_the_users_alone():
    rng, covered = np.random.default_rng(6), 0
    for trial in range(200):
        low, high = interval(bootstrap_means([simulated(rng, 1, 120, 1.0, 0.0, 0.7)], trial, draws=400))
        covered += low[0, 0] <= 0 <= high[0, 0]
    assert 0.90 <= covered / 200 <= 0.985


def test_resampling_the_runs_alone_would_not_cover():
    """What the t distribution is for: with three runs that differ, users' resampling alone covers far too rarely."""
    rng, covered = np.random.default_rng(7), 0
    for trial in range(100):
        sample = simulated(rng, 3, 120, 0.2, 0.5, 0.2)
        users_alone = Sample(sample.sums.mean(axis=0, keepdims=True), sample.counts)
        low, high = interval(bootstrap_means([users_alone], trial, draws=400))
        covered += low[0, 0] <= 0 <= high[0, 0]
    assert covered / 100 < 0.5


def test_tests_of_equal_contenders_reject_rarely():
    rng, rejected = np.random.default_rng(8), 0
    for trial in range(150):
        common = rng.normal(size=80)
        first, second = (
            sample_of_rows((common + rng.normal(size=(3, 1)) * 0.1 + rng.normal(size=(3, 80)))[:, None], np.arange(80))
            for _ in range(2)
        )
        rejected += sign_flip_p_values([first, second], [(0, 1)], trial, flips=499)[0, 0] < 0.05
    assert rejected / 150 <= 0.08


def test_p_values_are_those_of_all_flips():
    """Against enumeration: single runs, so that nothing but the signs is random."""
    rng = np.random.default_rng(9)
    first, second = rng.normal(0.4, 1, size=10), rng.normal(0, 1, size=10)
    difference = first - second
    flips = np.array(list(itertools.product([-1, 1], repeat=10)))
    exact = (np.abs(flips @ difference) >= abs(difference.sum()) - 1e-12).mean()
    samples = [sample_of_rows(values[None, None], np.arange(10)) for values in (first, second)]
    found = sign_flip_p_values(samples, [(0, 1), (1, 0)], 1, flips=9999)[:, 0]
    assert found == pytest.approx([exact, exact], abs=4 * np.sqrt(exact * (1 - exact) / 9999))


def test_a_large_difference_is_found_and_none_is_not():
    rng = np.random.default_rng(10)
    base = rng.normal(size=100)
    samples = [sample_of_rows(values[None, None], np.arange(100)) for values in (base, base + 1, base)]
    found = sign_flip_p_values(samples, [(0, 1), (0, 2)], 2, flips=999)
    assert found[0, 0] == 1 / 1000 and found[1, 0] == 1.0


def test_a_difference_that_another_seed_would_undo_is_not_significant():
    """Every user agrees, and the runs of one contender scatter more than the contenders differ."""
    base = np.random.default_rng(11).normal(size=200)
    steady = sample_of_rows(np.stack([base, base, base])[:, None], np.arange(200))
    moody = sample_of_rows(np.stack([base - 0.6, base + 0.2, base + 0.7])[:, None], np.arange(200))
    one_run = sample_of_rows((base + 0.1)[None, None], np.arange(200))
    p = sign_flip_p_values([steady, moody, one_run], [(1, 0), (2, 0)], 3, flips=999)[:, 0]
    assert p[0] > 0.3 and p[1] < 0.01


def test_rows_of_a_user_stay_together():
    users = np.array([5, 2, 5, 9, 2, 5])
    sample = sample_of_rows(np.arange(12.0).reshape(1, 2, 6), users)
    assert sample.counts.tolist() == [2, 3, 1]
    assert sample.sums.tolist() == [[[5.0, 7.0, 3.0], [17.0, 25.0, 9.0]]]
    assert sample.means.tolist() == [[2.5, 8.5]]
    drawn = bootstrap_means([sample], 0, draws=200)[:, 0, 0]
    possible = {
        sum(w * s for w, s in zip(weights, (5, 7, 3))) / sum(w * n for w, n in zip(weights, (2, 3, 1)))
        for weights in itertools.product(range(4), repeat=3)
        if sum(weights) == 3
    }
    assert all(min(abs(value - p) for p in possible) < 1e-12 for value in drawn)


def test_differences_of_draws_are_paired():
    base = np.random.default_rng(12).normal(size=50)
    samples = [sample_of_rows(values[None, None], np.arange(50)) for values in (base, base + 0.25)]
    draws = bootstrap_means(samples, 1, draws=100)
    assert draws[:, 1, 0] - draws[:, 0, 0] == pytest.approx(np.full(100, 0.25))


def test_runs_that_differ_by_their_users_alone_have_no_spread_of_their_own():
    rng = np.random.default_rng(13)
    scales = [simulated(rng, 5, 400, 1.0, 0.0, 1.0).seed_scale[0] for _ in range(20)]
    assert min(scales) == 0 and np.mean(scales) < 0.5 * 1 / np.sqrt(400)
    wide = [simulated(rng, 5, 400, 1.0, 0.5, 1.0).seed_scale[0] for _ in range(20)]
    assert np.sqrt(np.mean(np.square(wide))) == pytest.approx(0.5 / np.sqrt(5), rel=0.3)


def test_ends_that_are_not_finite_are_nan():
    low, high = interval(np.concatenate([np.arange(90.0), np.full(10, np.inf)]))
    assert low == 2 and np.isnan(high)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, np.nan, 0.04])[[0, 2]] == pytest.approx([0.5, 0.08]) and np.isnan(holm([0.5, np.nan])[1])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0] and holm([]).size == 0


def test_with_holm_a_family_of_tests_is_rarely_wrong_anywhere():
    """Ten contenders that are as good as an eleventh: without the correction, one of them would often seem to differ."""
    rng, wrong, uncorrected = np.random.default_rng(21), 0, 0
    for trial in range(100):
        common = rng.normal(size=40)
        samples = [sample_of_rows((common + rng.normal(size=40))[None, None], np.arange(40)) for _ in range(11)]
        p_values = sign_flip_p_values(samples, [(n, 0) for n in range(1, 11)], trial, flips=399)[:, 0]
        uncorrected += min(p_values) < 0.05
        wrong += min(holm(p_values)) < 0.05
    assert wrong <= 6 and uncorrected >= 10  # of 5 that are expected, and of about 15


# --- against scipy ----------------------------------------------------------------------------------------------------


def test_intervals_of_means_and_ratios_are_scipys():
    """Single runs, one row a user; the ends of two bootstraps of 4,000 draws differ by their own noise."""
    rng = np.random.default_rng(31)
    base = rng.random(150) < 0.3
    other = np.where(rng.random(150) < 0.7, base, rng.random(150) < 0.2)
    first, second = base.astype(float), other.astype(float)
    draws = bootstrap_means([sample_of_rows(x[None, None], np.arange(150)) for x in (first, second)], 1, draws=4000)[:, :, 0]
    common = {"n_resamples": 4000, "method": "percentile", "vectorized": True, "paired": True, "rng": np.random.default_rng(2)}
    for own, statistic in (
        (draws[:, 0], lambda x, y, axis: x.mean(axis)),
        (draws[:, 1] - draws[:, 0], lambda x, y, axis: y.mean(axis) - x.mean(axis)),
        (draws[:, 1] / draws[:, 0], lambda x, y, axis: y.mean(axis) / x.mean(axis)),
    ):
        theirs = stats.bootstrap((first, second), statistic, **common)
        assert interval(own) == pytest.approx(tuple(theirs.confidence_interval), abs=0.4 * own.std())


def test_p_values_are_scipys_with_ties():
    """Most users are hit by both or by neither, so that most differences are zero."""
    rng = np.random.default_rng(32)
    first = (rng.random(200) < 0.15).astype(float)
    second = np.where(rng.random(200) < 0.1, 1 - first, first)
    samples = [sample_of_rows(x[None, None], np.arange(200)) for x in (first, second)]
    own = sign_flip_p_values(samples, [(0, 1)], 3, flips=9999)[0, 0]
    theirs = stats.permutation_test(
        (first, second), lambda x, y, axis: x.mean(axis) - y.mean(axis), permutation_type="samples", vectorized=True,
        n_resamples=9999, rng=np.random.default_rng(4),
    ).pvalue  # fmt: skip
    discordant, more = int((first != second).sum()), int((first > second).sum())
    exact = stats.binomtest(more, discordant).pvalue  # McNemar's exact test: only who differs has a say
    assert own == pytest.approx(exact, abs=0.02) and theirs == pytest.approx(exact, abs=0.02)


def test_holm_leaves_what_a_closed_test_leaves():
    """Holm's method is Bonferroni's in a closed test: a hypothesis falls where every set that holds it does."""
    p_values = np.random.default_rng(33).random(6) ** 3
    closed = [
        max(
            min(1.0, len(members) * p_values[list(members)].min())
            for size in range(1, 7)
            for members in itertools.combinations(range(6), size)
            if number in members
        )
        for number in range(6)
    ]
    assert holm(p_values) == pytest.approx(closed)


# --- nobody was hit, or everybody -------------------------------------------------------------------------------------


@pytest.mark.parametrize("users", [3, 50, 300])
def test_where_nobody_was_hit_the_end_is_the_exact_binomial_one(users):
    exact = stats.binomtest(0, users).proportion_ci(method="exact").high
    assert interval(unanimous_draws(users, 1, draws=20_000))[1] == pytest.approx(exact, rel=0.05)


def test_who_is_unanimous():
    sums = np.zeros((2, 3, 4))
    sums[:, 1], sums[1, 2, 3] = [1, 2, 1, 1], 1
    sample = Sample(sums, np.array([1, 2, 1, 1]))
    assert unanimous(sample, 0).tolist() == [True, False, False] and unanimous(sample, 1).tolist() == [False, True, False]
