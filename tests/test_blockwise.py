"""A loss in blocks is the loss: equal value and equal gradients, whatever the blocks."""

import pytest
import torch

from recbole_farzi.blockwise import blockwise_mean, rows_in_memory

CLASSES, WIDTH = 50, 6


def cross_entropy(params, rows):
    """Of the next id after each: a bigram model of rank 6; 0 is padding."""
    scores = params["table"][rows[:, :-1]] @ params["out"].T
    return torch.nn.functional.cross_entropy(scores.flatten(0, 1), rows[:, 1:].flatten(), ignore_index=0)


def terms(rows):
    return int(rows[:, 1:].ne(0).sum())


@pytest.fixture
def problem():
    """Parameters in float64, one of which the loss does not read, and rows of very different lengths."""
    params = {
        "table": torch.randn(CLASSES, WIDTH, dtype=torch.float64),
        "out": torch.randn(CLASSES, WIDTH, dtype=torch.float64),
        "unread": torch.randn(3, dtype=torch.float64),
    }
    rows = torch.randint(1, CLASSES, (11, 9))
    for number, row in enumerate(rows):
        row[1 + (number * 5) % 9 :] = 0
    return {name: value.requires_grad_(True) for name, value in params.items()}, rows


@pytest.mark.parametrize("block", [1, 2, 3, 4, 10, 11, 100])
def test_value_and_gradients_are_those_of_the_whole(problem, block):
    params, rows = problem
    whole = cross_entropy(params, rows)
    expected = torch.autograd.grad(whole, [params["table"], params["out"]])
    value = blockwise_mean(cross_entropy, params, rows, block, terms)
    found = torch.autograd.grad(3.0 * value, [params["table"], params["out"]])
    torch.testing.assert_close(value, whole, rtol=1e-13, atol=0)
    for mine, theirs in zip(found, expected):
        torch.testing.assert_close(mine, 3.0 * theirs, rtol=1e-12, atol=1e-15)


def test_gradients_go_on_through_what_the_parameters_were_made_from(problem):
    """As in distillation, where the parameters are the end of an inner loop."""
    params, rows = problem
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    grads = []
    for block in (2, 100):
        made = {name: value.detach() * scale for name, value in params.items()}
        grads.append(torch.autograd.grad(blockwise_mean(cross_entropy, made, rows, block, terms), scale)[0])
    torch.testing.assert_close(*grads, rtol=1e-12, atol=0)


def test_the_scores_of_a_block_are_all_that_exists_at_a_time(problem):
    params, rows = problem
    seen = []

    def loss(params, part):
        seen.append(len(part))
        return cross_entropy(params, part)

    blockwise_mean(loss, params, rows, 4, terms)
    assert seen == [4, 4, 3]


def test_rows_without_a_term_count_for_nothing(problem):
    params, rows = problem
    with_empty = torch.cat([rows, torch.zeros(3, 9, dtype=torch.long)])
    with_empty[-3:, 0] = 1
    value = blockwise_mean(cross_entropy, params, with_empty, 2, terms)
    torch.testing.assert_close(value, cross_entropy(params, rows), rtol=1e-13, atol=0)


def test_rows_in_memory():
    batch = torch.zeros(128, 25)
    assert rows_in_memory(batch, 10_000, 2**28) == 2**28 // (25 * 10_000 * 4) == 268
    assert rows_in_memory(batch, 10_000, 1000) == 1
