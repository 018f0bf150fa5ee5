"""Popularity and parts of the real data: what they rank, and how much they hold."""

import numpy as np
import pytest
import torch

from recbole_farzi.baselines import (
    Popularity,
    hardest_events,
    hardest_users,
    head_users,
    popular_items,
    random_users,
)
from recbole_farzi.sequences import Sequences
from recbole_farzi.training import RowTrainer


@pytest.fixture
def popularity(make_config, tiny_split):
    config, _ = make_config(metrics=["Hit", "CrossEntropy"])
    return config, Popularity(tiny_split.counts)


def test_popularity_scores_are_a_distribution_in_the_order_of_the_counts(popularity, tiny_split):
    _, model = popularity
    p = model.scores.double().exp()
    assert p[0] == 0 and p.sum().item() == pytest.approx(1)
    counts = torch.as_tensor(tiny_split.counts[1:], dtype=torch.float64)
    torch.testing.assert_close(p[1:], (counts + 0.5) / (counts + 0.5).sum(), rtol=1e-5, atol=0)


def test_an_item_that_never_occurs_has_a_finite_score(make_config, tiny_split):
    config, _ = make_config()
    counts = tiny_split.counts.copy()
    counts[5] = 0
    model = Popularity(counts)
    assert torch.isfinite(model.scores[1:]).all() and model.scores[5] == model.scores[1:].min()


def test_everybody_gets_the_same(popularity, tiny_split):
    _, model = popularity
    scores = model.full_sort_predict(tiny_split.test.dataset.inter_feat)
    assert scores.shape == (40, 31) and (scores == scores[0]).all()


def test_its_evaluation_is_a_direct_computation(popularity, tiny_split):
    config, model = popularity
    trainer = RowTrainer(config, model)
    trainer.eval_collector.data_collect(tiny_split.train)
    result = trainer.evaluate(tiny_split.test)
    targets = tiny_split.test.dataset.inter_feat["item_id"]
    assert result["crossentropy"] == pytest.approx(-model.scores[targets].mean().item(), abs=1e-5)
    best = set(model.scores.topk(5).indices.tolist())
    assert result["hit@5"] == pytest.approx(np.mean([t in best for t in targets.tolist()]), abs=1e-6)


def test_padding_is_never_recommended(popularity):
    assert 0 not in popularity[1].scores.topk(30).indices


# --- random users -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sequences():
    rng = np.random.default_rng(0)
    return Sequences([(user, 100 * user + np.arange(int(rng.integers(2, 20)))) for user in range(1, 31)], 10)


@pytest.mark.parametrize("events", [1, 2, 17, 100])
def test_as_many_events_as_asked_from_the_beginnings_of_different_users(sequences, events):
    sample = random_users(sequences, events, np.random.default_rng(1))
    assert sample.events == events and sample.length == sequences.length
    assert len(set(sample.users)) == len(sample)
    whole = dict(zip(sequences.users, sequences.items))
    for number, (user, items) in enumerate(zip(sample.users, sample.items)):
        assert (items == whole[user][: len(items)]).all()
        assert len(items) == len(whole[user]) or number == len(sample) - 1  # only the last is cut


def test_no_more_than_there_is(sequences):
    sample = random_users(sequences, 10**6, np.random.default_rng(1))
    assert sample.events == sequences.events and sorted(sample.users) == sorted(sequences.users)


def test_samples_depend_on_the_generator_alone(sequences):
    one, same, other = (random_users(sequences, 50, np.random.default_rng(seed)).users.tolist() for seed in (1, 1, 2))
    assert one == same != other


# --- other parts of the data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [1, 17, 100, 10**6])
@pytest.mark.parametrize("part", ["head", "popular", "events", "users"])
def test_parts_hold_exactly_so_many_events_in_their_order(sequences, part, events):
    shared = Sequences([(user, items % 7 + 1) for user, items in zip(sequences.users, sequences.items)], 10)
    importance = [np.random.default_rng(len(items)).random(len(items)) for items in shared.items]
    sample = {
        "head": lambda: head_users(shared, events),
        "popular": lambda: popular_items(shared, events, shared.counts(8)),
        "events": lambda: hardest_events(shared, events, importance),
        "users": lambda: hardest_users(shared, events, importance),
    }[part]()
    assert sample.events == min(events, shared.events) and len(set(sample.users)) == len(sample)
    whole = dict(zip(shared.users, shared.items))
    for user, items in zip(sample.users, sample.items):
        rest = iter(whole[user])
        assert all(item in rest for item in items)  # a subsequence


def test_head_users_have_the_longest_histories(sequences):
    sample = head_users(sequences, 60)
    longest = sorted((len(items) for items in sequences.items), reverse=True)
    assert [len(items) for items in sample.items][:-1] == longest[: len(sample) - 1]


def test_popular_items_are_the_most_popular():
    data = Sequences([(1, [1, 2, 1]), (2, [2, 1, 3]), (3, [3, 4, 1])], 10)
    counts = data.counts(5)
    kept = popular_items(data, 5, counts)  # four of item 1, and the first of two items that occur twice
    assert [(int(u), items.tolist()) for u, items in zip(kept.users, kept.items)] == [(1, [1, 2, 1]), (2, [1]), (3, [1])]


def test_hardest_events_and_users():
    data = Sequences([(1, [1, 2, 3]), (2, [4, 5]), (3, [6])], 10)
    importance = [np.array([0.9, 0.1, 0.8]), np.array([0.5, 0.6]), np.array([0.2])]
    kept = hardest_events(data, 3, importance)
    assert [(int(u), items.tolist()) for u, items in zip(kept.users, kept.items)] == [(1, [1, 3]), (2, [5])]
    kept = hardest_users(data, 4, importance)  # means 0.6, 0.55, 0.2
    assert [(int(u), items.tolist()) for u, items in zip(kept.users, kept.items)] == [(1, [1, 2, 3]), (2, [4])]
