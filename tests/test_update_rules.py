"""The recipe's update rule: what is differentiated is what trains on the summary."""

import dataclasses

import pytest
import torch

from recbole_farzi.adjoint import unroll
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import InnerOptions, read_options
from recbole_farzi.sequences import batch_order
from recbole_farzi.starts import random_start
from recbole_farzi.student import Student
from recbole_farzi.trainer import FarziTrainer
from recbole_farzi.training import recipe_optimizer
from recbole_farzi.update_rules import RULES, differentiable_rule, torch_optimizer


@pytest.fixture
def inner():
    return InnerOptions(
        steps=7, batch_size=2, learning_rate=0.02, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.01, dropout=False, decay=0.5
    )


def test_recipes_from_before_there_was_a_choice_are_adam_s(inner):
    assert inner.optimizer == "adam"
    assert isinstance(torch_optimizer([torch.nn.Parameter(torch.zeros(1))], inner, 0.1), torch.optim.Adam)


@pytest.mark.parametrize("rule", RULES)
def test_the_inner_loop_and_training_on_the_summary_take_the_same_steps(make_config, tiny_split, inner, rule):
    """T steps of the differentiable rule and of PyTorch's, falling learning rate and weight decay included."""
    inner = dataclasses.replace(inner, optimizer=rule)
    config, model_class = make_config()
    model = ModelFactory(model_class, config, tiny_split.train.dataset)(3, dropout=False).double()
    student = Student(model)
    data = random_start(4, 6, 3, tiny_split.vocabulary, 1.0, 0).distributions().double()
    order = batch_order(4, inner.batch_size, inner.steps, 5)
    start = student.parameter_dict()
    rates = torch.tensor(inner.rates(), dtype=torch.float64)
    final = unroll(
        lambda params, rows, step: student.soft_loss(rows, params), start, data,
        optimizer=differentiable_rule(inner, rates), steps=inner.steps, batches=order,
    )  # fmt: skip
    optimizer = recipe_optimizer(model, inner)
    for rows in order:
        optimizer.zero_grad()
        student.soft_loss(data[rows]).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, start[name]), name
        torch.testing.assert_close(final[name], parameter, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "adam"])
def test_distillation_by_another_rule_ships_it_in_the_recipe(make_config, tiny_split, rule):
    """The meta-gradient goes through that rule, students of the validation train by it, and the summary moves."""
    config, model_class = make_config(farzi_inner_optimizer=rule, farzi_outer_steps=2, farzi_pool_snapshots=[0], epochs=1)
    assert read_options(config).inner.optimizer == rule
    trainer = FarziTrainer(config, ModelFactory(model_class, config, tiny_split.train.dataset)(0))
    trainer.fit(tiny_split.train, tiny_split.valid, verbose=False, saved=False)
    assert trainer.inner.optimizer == rule
    assert trainer.history["skipped"] == 0
    assert not torch.equal(trainer.summary.latent, trainer.start.latent) or trainer.history["best_step"] == 0
