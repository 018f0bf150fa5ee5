"""Histories, windows and batches."""

import numpy as np
import pytest
import torch

from recbole_farzi.sequences import Sequences, batch_order, histories_from_prefixes


def prefixes_of(histories, maximum):
    """RecBole's rows for some histories: every prefix, cut to its last ``maximum`` events, and the next item."""
    users, rows, lengths, targets = [], [], [], []
    for user, items in histories:
        for end in range(1, len(items)):
            prefix = items[max(0, end - maximum) : end]
            users.append(user)
            rows.append(np.pad(prefix, (0, maximum - len(prefix))))
            lengths.append(len(prefix))
            targets.append(items[end])
    return np.array(users), np.array(rows), np.array(lengths), np.array(targets)


@pytest.mark.parametrize("maximum", [2, 3, 5, 50])
def test_histories_come_back_from_prefixes(maximum):
    rng = np.random.default_rng(0)
    histories = [(user, rng.integers(1, 6, size=rng.integers(2, 12))) for user in range(1, 30)]
    found = histories_from_prefixes(*prefixes_of(histories, maximum))
    assert [user for user, _ in found] == [user for user, _ in histories]
    for (_, mine), (_, theirs) in zip(found, histories):
        assert np.array_equal(mine, theirs)


def test_rows_that_do_not_continue_each_other_stay_apart():
    users = np.array([1, 1])
    rows, lengths, targets = np.array([[4, 0, 0], [5, 6, 0]]), np.array([1, 2]), np.array([7, 8])
    found = histories_from_prefixes(users, rows, lengths, targets)
    assert [items.tolist() for _, items in found] == [[4, 7], [5, 6, 8]]


def test_no_rows_no_histories():
    empty = np.zeros(0, dtype=np.int64)
    assert histories_from_prefixes(empty, np.zeros((0, 3)), empty, empty) == []


@pytest.fixture
def sequences():
    rng = np.random.default_rng(1)
    sizes = [1, 2, 6, 7, 8, 13, 40, 61]
    return Sequences([(user, rng.permutation(1000)[:size] + 1) for user, size in enumerate(sizes)], length=6)


@pytest.mark.parametrize("seed", range(5))
def test_every_event_but_the_first_is_a_target_once_an_epoch(sequences, seed):
    windows = sequences.windows(np.random.default_rng(seed)).items.numpy()
    assert windows.shape[1] == 7
    targets = sorted(windows[:, 1:][windows[:, 1:] > 0].tolist())
    expected = sorted(np.concatenate([items[1:] for items in sequences.items]).tolist())
    assert targets == expected


def test_windows_are_stretches_of_histories_padded_on_the_right(sequences):
    stretches = {tuple(items[i : i + n]) for items in sequences.items for n in range(2, 8) for i in range(len(items))}
    for windows in (sequences.windows(np.random.default_rng(3)).items, sequences.sample(50, np.random.default_rng(4)).items):
        for row in windows.numpy():
            filled = row[row > 0]
            assert tuple(filled) in stretches
            assert (row[: len(filled)] > 0).all()


def test_cuts_move_from_epoch_to_epoch(sequences):
    def starts(seed):
        return set(sequences.windows(np.random.default_rng(seed)).items[:, 0].tolist())

    assert starts(0) != starts(1)
    assert starts(0) == starts(0)


def test_sampled_windows_end_at_every_target_equally_often():
    sequences = Sequences([(1, np.arange(1, 4)), (2, np.arange(10, 20))], length=3)
    rng = np.random.default_rng(0)
    last = [row[row > 0][-1].item() for row in sequences.sample(11000, rng).items]
    counts = np.array([last.count(item) for item in [2, 3, *range(11, 20)]])
    assert counts.sum() == 11000
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)  # five standard deviations of a Poisson count


def test_counts_and_events(sequences):
    assert sequences.events == 138
    assert sequences.counts(1001).sum() == 138
    assert sequences.counts(1001)[0] == 0


@pytest.mark.parametrize("sequences, batch, steps", [(10, 10, 3), (10, 4, 7), (7, 2, 20), (1, 1, 2)])
def test_batch_order_goes_through_all_sequences_before_repeating_any(sequences, batch, steps):
    order = batch_order(sequences, batch, steps, seed=5)
    assert len(order) == steps
    assert all(0 < len(rows) <= batch for rows in order)
    flat = torch.cat(order)
    for start in range(0, len(flat) - sequences + 1, sequences):
        assert sorted(flat[start : start + sequences].tolist()) == list(range(sequences))


def test_batch_order_depends_on_its_seed_alone():
    torch.manual_seed(1)
    first = batch_order(10, 4, 9, seed=3)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, batch_order(10, 4, 9, seed=3)))
    assert not all(torch.equal(a, b) for a, b in zip(first, batch_order(10, 4, 9, seed=4)))
