"""The proxy of SVP-CF: what is hard for a matrix factorisation, counted exactly."""

import numpy as np
import pytest
import torch

from recbole_farzi.proxy import _share_above, proxy_importance
from recbole_farzi.sequences import Sequences


@pytest.fixture
def sequences():
    """Two groups of users who meet the items of their own group alone, but for one user and item."""
    rng = np.random.default_rng(1)
    histories = [(user, rng.choice(np.arange(1, 11) + 10 * (user % 2), size=6, replace=False)) for user in range(60)]
    user, items = histories[0]
    histories[0] = (user, np.append(items, 15))
    return Sequences(histories, 10)


def test_one_number_an_event_from_0_to_1(sequences):
    importance = proxy_importance(sequences, 21, seed=1, epochs=3)
    assert [len(values) for values in importance] == [len(items) for items in sequences.items]
    assert all(((values >= 0) & (values <= 1)).all() for values in importance)


def test_the_odd_event_is_the_hardest(sequences):
    importance = proxy_importance(sequences, 21, seed=1, epochs=200)
    assert importance[0].argmax() == 6
    assert importance[0][6] > 2 * importance[0][:6].mean()


def test_the_seed_decides(sequences):
    one, same, other = (np.concatenate(proxy_importance(sequences, 21, seed, epochs=2)) for seed in (1, 1, 2))
    assert (one == same).all() and (one != other).any()


def test_shares_are_counted(monkeypatch):
    """By hand, for users in several blocks, one of whom has met everything."""
    monkeypatch.setattr("recbole_farzi.proxy._USERS_AT_ONCE", 2)
    generator = torch.Generator().manual_seed(0)
    of_users, of_items = torch.randn(5, 3, generator=generator), torch.randn(9, 3, generator=generator)
    bias = torch.randn(9, generator=generator)
    histories = [[1, 2], [3], list(range(1, 9)), [8, 1, 4], [5, 5]]
    users = torch.tensor([user for user, items in enumerate(histories) for _ in items])
    items = torch.tensor([item for items in histories for item in items])
    met = torch.zeros(5, 9, dtype=torch.bool)
    met[users, items] = True
    met[:, 0] = True
    scores = of_users @ of_items.T + bias
    expected = []
    for user, item in zip(users.tolist(), items.tolist()):
        others = [j for j in range(1, 9) if not met[user, j]]
        expected.append(sum(bool(scores[user, j] > scores[user, item]) for j in others) / max(len(others), 1))
    found = _share_above(of_users, of_items, bias, users, items, met)
    assert found.tolist() == pytest.approx(expected)
