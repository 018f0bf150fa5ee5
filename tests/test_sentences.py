"""Whole sentences: every word and end is a target exactly once, padded to the longest in the batch."""

from collections import Counter

import numpy as np
import pytest
import torch

from recbole_farzi.baselines import random_users
from recbole_farzi.sentences import Sentences, following

END = 1


@pytest.fixture
def sentences():
    rng = np.random.default_rng(4)
    text = [[END, *rng.integers(2, 30, size=int(rng.integers(1, 18))), END] for _ in range(53)]
    return Sentences(list(enumerate(map(np.array, text))), 20)


def targets(batches):
    return Counter(int(i) for batch in batches for i in batch[:, 1:].flatten() if i)


def test_an_epoch_predicts_every_event_but_the_given_ones_once(sentences):
    expected = Counter(int(i) for items in sentences.items for i in items[1:])
    batches = sentences.batches(8, np.random.default_rng(0))
    assert targets(batches) == expected and sum(expected.values()) == sentences.events
    assert {item: int(n) for item, n in enumerate(sentences.counts(30)) if n} == dict(expected)
    assert sorted(map(len, batches)) == [5, 8, 8, 8, 8, 8, 8]


def test_batches_hold_sentences_of_like_length_in_another_order_each_epoch(sentences):
    first, second = (sentences.batches(8, np.random.default_rng(seed)) for seed in (0, 1))
    again = sentences.batches(8, np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert [b.shape for b in first] != [b.shape for b in second]
    padding = sum(int(b.eq(0).sum()) for b in first) / sum(b.numel() for b in first)
    assert padding < 0.1
    assert all(bool(batch[:, -1].any()) for batch in first)  # no longer than its longest


def test_samples_are_whole_sentences(sentences):
    whole = {tuple(items.tolist()) for items in sentences.items}
    for row in sentences.sample(40, np.random.default_rng(2)).tolist():
        assert tuple(i for i in row if i) in whole


def test_the_running_text_has_each_mark_once(sentences):
    (text,) = sentences.running().items
    assert text.tolist() == [END, *(int(i) for items in sentences.items for i in items[1:])]


@pytest.mark.parametrize("events", [1, 7, 100, 10_000])
def test_random_sentences_have_as_many_predicted_events_as_asked(sentences, events):
    part = random_users(sentences, events, np.random.default_rng(3))
    assert isinstance(part, Sentences) and part.events == min(events, sentences.events)
    assert all(items[0] == END and len(items) > 1 for items in part.items)


def test_what_follows():
    histories = torch.tensor([[1, 5, 6, 7], [1, 8, 0, 0], [1, 0, 0, 0]])
    assert following(histories, torch.tensor([1, 9, 2])).tolist() == [[5, 6, 7, 1], [8, 9, 0, 0], [2, 0, 0, 0]]
