"""Distributions of low rank in their logits."""

import pytest
import torch

from recbole_farzi.factorisation import _gradient, divergence, factorise, factorise_within
from recbole_farzi.memory import PeakBytes


@pytest.fixture
def logs():
    generator = torch.Generator().manual_seed(0)
    logits = 2.0 * torch.randn(40, 6, generator=generator) @ torch.randn(6, 30, generator=generator)
    return torch.log_softmax(logits + torch.randn(30, generator=generator), dim=1)


def test_gradient_is_autograds(logs):
    logs = torch.log_softmax(logs.double(), dim=1)
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(n, *d, generator=generator, dtype=torch.float64) for n, d in ((40, (3,)), (30, (3,)), (30, ()))]
    leaves = [value.clone().requires_grad_(True) for value in values]
    divergence(logs, *leaves).backward()
    for found, leaf in zip(_gradient(logs, *values), leaves):
        torch.testing.assert_close(found, leaf.grad, rtol=1e-10, atol=1e-12)


def test_gradient_in_blocks_is_the_whole(logs, monkeypatch):
    values = factorise(logs, 2, seed=0, steps=0)
    whole = _gradient(logs, *values)
    monkeypatch.setattr("recbole_farzi.factorisation._ROWS", 7)
    for one, other in zip(_gradient(logs, *values), whole):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_over_many_items_one_more_copy_is_held_and_some_blocks(monkeypatch):
    logs = torch.log_softmax(torch.randn(300, 4000, generator=torch.Generator().manual_seed(0)), dim=1)
    block = 64 * 1024
    monkeypatch.setattr("recbole_farzi.factorisation.SCORES_IN_MEMORY", block)
    with PeakBytes() as counted:
        factorise(logs, 2, seed=0, steps=3)
    assert counted.peak < 1.4 * logs.numel() * 4 + 4 * block


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_closer_than_the_largest_singular_values(logs, rank):
    assert divergence(logs, *factorise(logs, rank, seed=0)) < 0.8 * divergence(logs, *factorise(logs, rank, seed=0, steps=0))


def test_exact_where_the_rank_suffices_and_padded_where_it_is_more_than_there_is(logs):
    for rank in (6, 50):
        left, right, bias = factorise(logs, rank, seed=0)
        assert left.shape == (40, rank) and right.shape == (30, rank) and bias.shape == (30,)
        assert divergence(logs, left, right, bias) < 1e-6
    assert left[:, 30:].abs().max() == 0


def test_the_first_rank_that_loses_little_enough_is_taken_or_the_last(logs):
    lost = {rank: divergence(logs[:10], *(value[:10] if n == 0 else value for n, value in enumerate(factorise(logs, rank, seed=0)))).item() for rank in (2, 4, 6)}
    assert lost[2] > lost[4] > lost[6]

    def found(most_lost, *ranks):
        left, right, bias = factorise_within(logs, ranks, most_lost, 10, seed=0)
        assert all(torch.equal(a, b) for a, b in zip((left, right, bias), factorise(logs, left.shape[1], seed=0)))
        return left.shape[1]

    assert found(lost[2], 2, 4, 6) == 2 and found(lost[4], 2, 4, 6) == 4  # no more than so much
    assert found(lost[4] / 2, 2, 4, 6) == 6 and found(0.0, 2, 4) == 4 and found(0.0, 2) == 2


def test_depends_on_its_arguments_alone(logs):
    torch.manual_seed(1)
    first = factorise(logs, 3, seed=0)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, factorise(logs, 3, seed=0)))
