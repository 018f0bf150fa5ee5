"""Where distillation starts."""

import itertools

import numpy as np
import pytest
import torch

from recbole_farzi.errors import DataError
from recbole_farzi.options import read_options
from recbole_farzi.sequences import Sequences
from recbole_farzi.starts import covering_windows, pick_windows, random_start, spectral_start, teacher_start


@pytest.fixture
def windows(tiny_split):
    return pick_windows(tiny_split.sequences, 4, 11, np.random.default_rng(0))


def test_windows_are_stretches_of_different_users():
    sequences = Sequences([(user, user * 100 + np.arange(1, 21)) for user in range(9)], length=10)
    windows = pick_windows(sequences, 5, 8, np.random.default_rng(0))
    assert windows.shape == (5, 8)
    assert len({int(row[0]) // 100 for row in windows}) == 5
    assert (windows.diff(dim=1) == 1).all()


def test_short_histories_are_repeated_and_none_is_refused():
    sequences = Sequences([(1, np.array([3, 4, 5])), (2, np.array([6]))], length=10)
    windows = pick_windows(sequences, 2, 5, np.random.default_rng(0))
    assert windows.tolist() == [[3, 4, 5, 3, 4], [6, 6, 6, 6, 6]]
    with pytest.raises(DataError, match="nothing to distil"):
        pick_windows(Sequences([], length=10), 2, 5, np.random.default_rng(0))


def test_covering_windows_are_the_greedy_choice():
    """Occurrences of items 1 to 6; the last event is not read as history."""
    counts = np.array([99, 10, 8, 5, 4, 2, 1])
    candidates = torch.tensor([[1, 1, 2], [1, 3, 6], [2, 4, 1], [5, 6, 1], [2, 2, 3]])  # worth 10, 15, 12, 3, 8
    assert covering_windows(candidates, counts, 1).tolist() == [[1, 3, 6]]
    assert covering_windows(candidates, counts, 2).tolist() == [[1, 3, 6], [2, 4, 1]]
    # the third covers what is left, 5 and 6; then all is covered, and the rest is chosen anew
    assert covering_windows(candidates, counts, 5).tolist() == candidates[[1, 2, 3, 0, 4]].tolist()


def test_covering_windows_cover_as_much_as_any_choice_could_nearly():
    rng = np.random.default_rng(0)
    counts, candidates = rng.integers(1, 50, 41), torch.from_numpy(rng.integers(1, 41, (12, 6)))

    def share(windows):
        return counts[np.unique(np.asarray(windows)[:, :-1])].sum()

    best = max(share(candidates[list(choice)]) for choice in itertools.combinations(range(12), 3))
    found = covering_windows(candidates, counts, 3)
    assert (1 - 1 / np.e) * best < share(candidates[:3]) < share(found) <= best
    assert {tuple(row) for row in found.tolist()} <= {tuple(row) for row in candidates.tolist()}


def test_covering_windows_take_none_twice_as_long_as_there_are_others():
    counts = np.array([0, 5, 3, 1])
    candidates = torch.tensor([[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 3, 1], [2, 2, 1]])
    assert len({tuple(row) for row in covering_windows(candidates, counts, 3).tolist()}) == 3
    assert covering_windows(candidates, counts, 4).shape == (4, 3)  # of three that differ


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_teacher_start_of_full_rank_is_what_the_teacher_expects(teacher, windows, tiny_split, temperature):
    summary = teacher_start(windows, teacher, tiny_split.counts, tiny_split.vocabulary, temperature, 0.0, seed=0)
    with torch.no_grad():
        expected = torch.softmax(teacher.scores(windows[:, :-1])[..., 1 : tiny_split.vocabulary], dim=-1)
    torch.testing.assert_close(summary.distributions()[:, 1:, 1:], expected, rtol=1e-3, atol=1e-5)
    popularity = (torch.as_tensor(tiny_split.counts).float() + 0.5)[1:]
    first = (popularity / popularity.sum()).expand(4, -1)
    torch.testing.assert_close(summary.distributions()[:, 0, 1:], first, rtol=1e-3, atol=1e-5)


def test_single_items_change_nothing_where_the_rank_suffices(teacher, windows, tiny_split):
    summary = teacher_start(windows, teacher, tiny_split.counts, tiny_split.vocabulary, 1.0, 0.0, seed=0, singles=20)
    with torch.no_grad():
        expected = torch.softmax(teacher.scores(windows[:, :-1])[..., 1 : tiny_split.vocabulary], dim=-1)
    assert summary.latent.shape == (4, 11, tiny_split.vocabulary)
    torch.testing.assert_close(summary.distributions()[:, 1:, 1:], expected, rtol=1e-3, atol=1e-5)


def test_single_items_that_never_occur_do_not_count_and_others_are_read_in_batches(teacher, windows, tiny_split, monkeypatch):
    counts, read, row_scores = tiny_split.counts.copy(), [], teacher.row_scores
    counts[5:] = 0
    monkeypatch.setattr(teacher, "row_scores", lambda ids, lengths: read.append(ids.tolist()) or row_scores(ids, lengths))
    whole = teacher_start(windows, teacher, counts, 3, 1.0, 0.0, seed=0, singles=len(counts))
    assert sorted(read[0]) == [[1], [2], [3], [4]] and len(read) == 1
    monkeypatch.setattr("recbole_farzi.starts.histories_at_once", lambda vocabulary: 3)
    parts = teacher_start(windows, teacher, counts, 3, 1.0, 0.0, seed=0, singles=len(counts))
    assert read[1] + read[2] == read[0] and len(read) == 3
    for one, other in zip(parts.tensors, whole.tensors):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_decoder_fits_what_the_teacher_expects_after_the_most_frequent_single_items(teacher, windows, tiny_split):
    """Better than one that was fitted to the windows alone, which it fits worse."""
    frequent = torch.from_numpy(np.argsort(-tiny_split.counts[1:], kind="stable")[:20] + 1)
    with torch.no_grad():
        after = torch.log_softmax(teacher.row_scores(frequent[:, None], torch.ones(20, dtype=torch.int64))[:, 1:], dim=-1)
        inside = torch.log_softmax(teacher.scores(windows[:, :-1])[..., 1 : tiny_split.vocabulary], dim=-1)

    def divergences(singles):
        """Of the single items, from the best that the decoder can do for them; of the windows."""
        summary = teacher_start(windows, teacher, tiny_split.counts, 3, 1.0, 0.0, seed=0, singles=singles)
        latent = torch.zeros(20, 3, requires_grad=True)
        optimizer = torch.optim.LBFGS([latent], max_iter=200, line_search_fn="strong_wolfe")

        def loss():
            optimizer.zero_grad()
            made = torch.log_softmax(latent @ summary.decoder[:, 1:] + summary.bias[1:], dim=-1)
            value = (after.exp() * (after - made)).sum(dim=-1).mean()
            value.backward()
            return value

        optimizer.step(loss)
        p = summary.distributions()[:, 1:, 1:].clamp_min(1e-30)
        return loss().item(), (inside.exp() * (inside - p.log())).sum(dim=-1).mean().item()

    without, fitted = divergences(0), divergences(20)
    assert fitted[0] < without[0] and fitted[1] > without[1]


def test_teacher_start_in_blocks_is_the_whole(teacher, windows, tiny_split, monkeypatch):
    whole = teacher_start(windows, teacher, tiny_split.counts, 3, 1.0, 0.5, seed=0)
    read, scores = [], teacher.scores
    monkeypatch.setattr(teacher, "scores", lambda batch: read.append(len(batch)) or scores(batch))
    monkeypatch.setattr("recbole_farzi.starts.SCORES_IN_MEMORY", 2 * 11 * tiny_split.vocabulary * 4)
    for one, other in zip(teacher_start(windows, teacher, tiny_split.counts, 3, 1.0, 0.5, seed=0).tensors, whole.tensors):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert read == [2, 2]


def test_more_rank_is_closer_to_the_teacher(teacher, windows, tiny_split):
    with torch.no_grad():
        expected = torch.log_softmax(teacher.scores(windows[:, :-1])[..., 1 : tiny_split.vocabulary], dim=-1)

    def divergence(rank):
        summary = teacher_start(windows, teacher, tiny_split.counts, rank, 1.0, 0.0, seed=0)
        p = summary.distributions()[:, 1:, 1:]
        return (expected.exp() * (expected - p.clamp_min(1e-30).log())).sum(-1).mean().item()

    values = [divergence(rank) for rank in (1, 3, 6, tiny_split.vocabulary)]
    assert values == sorted(values, reverse=True)


def test_own_item_pulls_towards_the_real_event(teacher, windows, tiny_split):
    def share(weight):
        summary = teacher_start(windows, teacher, tiny_split.counts, tiny_split.vocabulary, 1.0, weight, seed=0)
        return summary.distributions().gather(-1, windows.unsqueeze(-1)).mean().item()

    assert share(0.0) < share(1.0) < share(5.0)


def test_as_many_single_items_count_as_there_are_or_as_memory_holds(make_config):
    def singles(vocabulary, **options):
        return read_options(make_config(**options)[0]).summary.singles(vocabulary)

    assert singles(1000) == 999 and singles(1000, farzi_start_singles=10) == 10 and singles(9, farzi_start_singles=10) == 8
    assert singles(1000, farzi_start_singles=0) == singles(1000, farzi_start="spectral") == 0
    assert singles(1000, farzi_latent_dim=44) == 0 < singles(1000, farzi_latent_dim=43)  # of 4 sequences of 11 events
    assert singles(2**20) * 2**20 * 4 == 64 * 2**20 and singles(2**30) == 1


def test_spectral_start_spreads_an_event_over_items_of_the_same_histories():
    """Two groups of users with items of their own: no mass should cross."""
    rng = np.random.default_rng(0)
    histories = [(u, (1 if u % 2 else 11) + rng.permutation(10)) for u in range(40)]
    sequences = Sequences(histories, length=9)
    windows = torch.tensor([[1, 2, 3], [11, 12, 13]])
    summary = spectral_start(windows, sequences.counts(21), sequences, 4, 1.0, seed=0)
    p = summary.distributions()
    assert p.shape == (2, 3, 21)
    assert p[0, :, 1:11].sum(-1).min() > 0.9
    assert p[1, :, 11:].sum(-1).min() > 0.9


def test_random_start_has_logits_of_variance_one_whatever_the_rank():
    for rank in (2, 8, 64):
        summary = random_start(20, 20, rank, 500, 0.5, seed=0)
        logits = (summary.latent @ summary.decoder[:, 1:]) / 0.5
        assert 0.7 < logits.std() < 1.3


def test_starts_depend_on_their_seeds_alone(teacher, windows, tiny_split):
    def make():
        return [
            random_start(2, 4, 3, 9, 1.0, seed=5),
            teacher_start(windows, teacher, tiny_split.counts, 3, 1.0, 1.0, seed=5),
            spectral_start(windows, tiny_split.counts, tiny_split.sequences, 3, 1.0, seed=5),
        ]

    torch.manual_seed(1)
    first = make()
    torch.manual_seed(2)
    for one, other in zip(first, make()):
        assert all(torch.equal(a, b) for a, b in zip(one.tensors, other.tensors))
