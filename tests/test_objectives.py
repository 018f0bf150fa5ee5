"""Distances that a summary is distilled for beside the meta-loss, and their derivatives."""

import pytest
import torch

from recbole_farzi.objectives import gradient_distance, summary_gradient, trajectory_distance


@pytest.fixture
def problem():
    """A small net, its loss on rows of data, and the two gradients, in float64."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    params = {"table": draw(4, 3), "bias": draw(3), "out": draw(2, 3)}
    data = draw(6, 4).softmax(dim=1)

    def loss(params, rows, step):
        hidden = torch.tanh(rows @ params["table"] + params["bias"])
        return (hidden @ params["out"].T).logsumexp(dim=1).mean()

    return params, data, loss, draw


def test_gradients_that_point_the_same_way_have_no_distance(problem):
    params, *_ = problem
    assert gradient_distance(params, {name: 3.0 * value for name, value in params.items()}) < 1e-9
    opposite = gradient_distance(params, {name: -value for name, value in params.items()})
    torch.testing.assert_close(opposite, torch.tensor(2.0 * (4 + 2), dtype=torch.float64))  # rows of the matrices; no bias


def test_a_row_without_a_gradient_counts_as_one_and_has_a_derivative(problem):
    params, _, _, draw = problem
    mine = {"table": torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)}
    value = gradient_distance(mine, {"table": draw(4, 3)})
    assert value.item() == 4.0
    value.backward()
    assert torch.isfinite(mine["table"].grad).all() and mine["table"].grad.norm() > 0


@pytest.mark.parametrize("size", [6, 4, 1])
def test_the_gradient_of_a_summary_and_its_derivative_are_those_of_autograd(problem, size):
    """Batch by batch, against one double backward through everything: equal to rounding in float64."""
    params, data, loss, draw = problem
    target = {name: draw(*value.shape) for name, value in params.items()}
    leaf, reference = data.clone().requires_grad_(True), data.clone().requires_grad_(True)
    mine = summary_gradient(loss, params, leaf, torch.arange(6).split(size), seed=1)
    free = {name: value.clone().requires_grad_(True) for name, value in params.items()}
    theirs = dict(zip(free, torch.autograd.grad(loss(free, reference, 0), list(free.values()), create_graph=True)))
    for name in params:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-12, atol=1e-15)
    gradient_distance(mine, target).backward()
    gradient_distance(theirs, target).backward()
    assert reference.grad.norm() > 0
    assert (leaf.grad - reference.grad).norm() <= 1e-11 * reference.grad.norm()


def test_the_distance_to_a_goal_is_in_units_of_the_way(problem):
    params, _, _, draw = problem
    start = {name: draw(*value.shape) for name, value in params.items()}
    halfway = {name: (value + start[name]) / 2 for name, value in params.items()}
    assert trajectory_distance(params, start, params) == 0.0
    assert trajectory_distance(start, start, params) == 1.0
    assert trajectory_distance(halfway, start, params).item() == pytest.approx(0.25)
