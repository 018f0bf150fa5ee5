"""How sure a mean over test users and seeds is: bootstrap intervals, paired tests, and a correction for many of them.

Plain NumPy; knows nothing of recommendation. Throughout, a *sample* is what some runs (one a seed) scored on the same
users: sums ``x[s, m, u]`` of run ``s``, metric ``m`` and user ``u`` over the user's rows, of which there are ``n[u]``. Its
mean is ``sum_su x / (S sum_u n)``.

Two things vary, and both count: which users are in the test split, and how a training run turns out. In

    x[s, u] = mean + a[u] + b[s] + e[s, u]

users are resampled as they are; there are hundreds. Seeds are few: of three runs, resampling would give two thirds of
their variance and next to nothing of its uncertainty. So the runs' part is drawn from Student's t with ``S - 1``
degrees of freedom, scaled by the runs' own variance ``V / S``, where

    V = max(0, var_s(mean_u x) - MSE / U)

with the residual mean square MSE of the two-way table, because resampling users has counted ``e`` already. A contender
of a single run has no such part, so that its intervals say nothing of other seeds.
"""

from typing import NamedTuple

import numpy as np

__all__ = [
    "FLIPS",
    "Sample",
    "bootstrap_means",
    "holm",
    "interval",
    "sample_of_rows",
    "sign_flip_p_values",
    "unanimous",
    "unanimous_draws",
]

DRAWS = 2000
"""Of the bootstrap: the ends of a 95% interval are then the 50th draws from either side."""

FLIPS = 9999
"""Of a test, at least: the smallest p-value is 1e-4, small enough to survive a correction for a few hundred tests."""

_AT_ONCE = 500


class Sample(NamedTuple):
    """Runs on the same users.

    Attributes:
        sums: shape [S, M, U].
        counts: rows of each user, shape [U].
    """

    sums: np.ndarray
    counts: np.ndarray

    @property
    def means(self):
        """Mean of each run and metric over rows, shape [S, M]."""
        return self.sums.sum(axis=2) / self.counts.sum()

    @property
    def seed_scale(self):
        """Standard error of the mean over runs that is due to the runs, ``sqrt(V / S)``, shape [M]; zeros for one run."""
        runs, metrics, users = self.sums.shape
        if runs < 2 or users < 2:
            return np.zeros(metrics)
        means = self.means
        values = (self.sums - means[:, :, None] * self.counts) * (users / self.counts.sum()) + means[:, :, None]
        residuals = values - values.mean(axis=0) - means[:, :, None] + means.mean(axis=0)[:, None]
        mean_square = (residuals**2).sum(axis=(0, 2)) / ((users - 1) * (runs - 1))
        return np.sqrt(np.maximum(0.0, means.var(axis=0, ddof=1) - mean_square / users) / runs)


def sample_of_rows(values, users):
    """The :class:`Sample` of runs whose values are known row by row.

    Args:
        values: shape [S, M, n].
        users: user of each row, shape [n]; a user's rows stay together in what follows.
    """
    _, number, counts = np.unique(users, return_inverse=True, return_counts=True)
    order = np.argsort(number, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return Sample(np.add.reduceat(np.asarray(values, dtype=np.float64)[:, :, order], starts, axis=2), counts)


def bootstrap_means(samples, seed, draws=DRAWS):
    """Draws of the means of several contenders on the same users: differences and ratios of theirs are paired.

    Args:
        samples: :class:`Sample` of each of C contenders, with the same users and M metrics.
        seed: of the draws.
        draws: B.

    Returns:
        Shape [B, C, M].
    """
    rng = np.random.default_rng(seed)
    counts = samples[0].counts
    mean_sums = np.stack([sample.sums.mean(axis=0) for sample in samples])  # [C, M, U]
    flat = mean_sums.reshape(-1, len(counts)).T
    out = np.empty((draws, *mean_sums.shape[:2]))
    for first in range(0, draws, _AT_ONCE):
        size = min(_AT_ONCE, draws - first)
        weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=size).astype(np.float64)
        out[first : first + size] = (weights @ flat / (weights @ counts)[:, None]).reshape(size, *mean_sums.shape[:2])
    return out + _seed_parts(samples, draws, rng)


def unanimous(sample, value):
    """Whether every user has one and the same mean in every run, which leaves a bootstrap nothing to vary; shape [M].

    Args:
        sample: :class:`Sample`.
        value: that mean.
    """
    return (sample.sums == value * sample.counts).all(axis=(0, 2))


def unanimous_draws(users, seed, draws=DRAWS):
    """Draws of a share of which none was seen among some users, shape [B].

    Resampling users of whom none was hit finds the interval 0 to 0, however few they are. These draws end where the exact
    binomial interval does (Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of
    the binomial", Biometrika 1934), at ``1 - 0.025^(1/n)``, about 3.7 / n: they are of the beta distribution (1, n). For
    any number between 0 and 1 that was 0 for everyone this is an upper bound as well.

    Args:
        users: n.
        seed: of the draws.
        draws: B.
    """
    return np.random.default_rng(seed).beta(1, users, size=draws)


def interval(draws, level=0.95):
    """Percentile interval of draws along their first axis.

    Returns:
        ``(low, high)``, each of the shape of one draw; nan where an end is not finite, as that of a ratio to zero.
    """
    ends = np.sort(draws, axis=0)  # nan and inf come last
    tail = (1 - level) / 2
    low, high = int(np.floor(tail * (len(ends) - 1))), int(np.ceil((1 - tail) * (len(ends) - 1)))
    return tuple(np.where(np.isfinite(end), end, np.nan) for end in (ends[low], ends[high]))


def sign_flip_p_values(samples, pairs, seed, flips=FLIPS):
    """Two-sided p-values of paired randomisation tests of equal means.

    If two contenders were alike, each user's difference could as well have had the other sign: the observed mean
    difference is compared with those after random flips (Fisher's randomisation test, which Smucker, Allan and
    Carterette, "A Comparison of Statistical Significance Tests for Information Retrieval Evaluation", CIKM 2007,
    recommend for retrieval metrics). To each, both contenders' runs add their part as in :func:`bootstrap_means`, so
    that a difference that another seed would undo is not found significant.

    Args:
        samples: :class:`Sample` of each contender, with the same users and M metrics.
        pairs: pairs of their numbers.
        seed: of the flips.
        flips: how many.

    Returns:
        Shape [pairs, M]; ``(1 + as extreme) / (1 + flips)``.
    """
    rng = np.random.default_rng(seed)
    counts = samples[0].counts
    mean_sums = np.stack([sample.sums.mean(axis=0) for sample in samples])
    contenders, metrics, users = mean_sums.shape
    flat = mean_sums.reshape(-1, users).T / counts.sum()
    first, second = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    observed = flat.sum(axis=0).reshape(contenders, metrics)
    observed = np.abs(observed[first] - observed[second])
    size = np.abs(flat).sum(axis=0).reshape(contenders, metrics)
    observed -= 1e-12 * (size[first] + size[second])  # equal sums may differ in their last digits
    extreme = np.zeros(observed.shape, dtype=np.int64)
    parts = _seed_parts(samples, flips, rng)
    for start in range(0, flips, _AT_ONCE):
        part = parts[start : start + _AT_ONCE]
        signs = rng.integers(0, 2, size=(len(part), users)).astype(np.float64) * 2 - 1
        flipped = (signs @ flat).reshape(len(part), contenders, metrics) + part
        extreme += (np.abs(flipped[:, first] - flipped[:, second]) >= observed).sum(axis=0)
    return (1 + extreme) / (1 + flips)


def holm(p_values):
    """p-values corrected for their number: those below 0.05 hold together with probability 0.95 (Holm 1979).

    Of the usual corrections Holm's asks least of the tests: nothing. Strata share the runs that were trained, and contenders
    what they are compared with, so their tests depend on each other in ways for which the Benjamini-Hochberg procedure
    promises nothing; and a report that says where somebody loses should rather be wrong nowhere than in one place of twenty.

    Args:
        p_values: shape [n]; nan where there was no test.

    Returns:
        Shape [n].
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    out = np.full(p_values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    steps = p_values[order] * (len(order) - np.arange(len(order)))
    out[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return out


def _seed_parts(samples, draws, rng):
    """What the runs add to each draw of each contender's mean, shape [draws, C, M]."""
    parts = np.zeros((draws, len(samples), samples[0].sums.shape[1]))
    for number, sample in enumerate(samples):
        runs = len(sample.sums)
        if runs > 1:
            parts[:, number] = rng.standard_t(runs - 1, size=draws)[:, None] * sample.seed_scale
    return parts
