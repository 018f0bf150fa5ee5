"""Training on windows and on summaries through RecBole's own Trainer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recbole_farzi.errors import DivergenceError
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import read_options
from recbole_farzi.sequences import batch_order
from recbole_farzi.soft_events import SoftEvents
from recbole_farzi.starts import random_start
from recbole_farzi.student import Student
from recbole_farzi.training import RowTrainer, SummaryLoader, SummaryTrainer, WindowLoader, WindowTrainer


@pytest.fixture
def config_and_class(make_config):
    return make_config("SASRec")


@pytest.fixture
def factory(config_and_class, tiny_split):
    return ModelFactory(config_and_class[1], config_and_class[0], tiny_split.train.dataset)


@pytest.fixture
def summary(tiny_split):
    return random_start(4, 11, 3, tiny_split.vocabulary, 1.0, seed=0)


def test_window_loader_gives_every_target_once_an_epoch(tiny_split):
    loader = WindowLoader(tiny_split.sequences, tiny_split.train.dataset, batch_size=7, seed=0)
    for _ in range(2):
        announced = len(loader)
        batches = list(loader)
        assert len(batches) == announced
        targets = torch.cat([batch.items[:, 1:].reshape(-1) for batch in batches])
        assert (targets > 0).sum() == tiny_split.sequences.events - len(tiny_split.sequences)


def test_few_events_are_gone_through_more_than_once(tiny_split):
    loader = WindowLoader(tiny_split.sequences, tiny_split.train.dataset, batch_size=1000, seed=0, least_batches=5)
    assert len(loader) == 5


def test_training_on_windows_lowers_validation_loss(config_and_class, factory, tiny_split, make_config):
    config, _ = make_config("SASRec", epochs=8, learning_rate=0.02)
    trainer = WindowTrainer(config, factory(0))
    trainer.eval_collector.data_collect(tiny_split.train)
    before = trainer.evaluate(tiny_split.valid, load_best_model=False)["crossentropy"]
    score, result = trainer.fit(
        WindowLoader(tiny_split.sequences, tiny_split.train.dataset, 8, 0), tiny_split.valid, verbose=False
    )
    assert score < before
    assert trainer.evaluate(tiny_split.valid)["crossentropy"] == pytest.approx(score)
    assert result["crossentropy"] == score


def test_the_best_epoch_is_evaluated_not_the_last(make_config, factory, tiny_split):
    """The model is ruined after its second epoch, and does not recover."""
    config, _ = make_config("SASRec", epochs=4, stopping_step=10)
    trainer = WindowTrainer(config, factory(0))
    scores = []

    def ruin(epoch, score):
        scores.append(score)
        if epoch == 1:
            trainer.model.item_embedding.weight.data.mul_(50.0)

    trainer.fit(
        WindowLoader(tiny_split.sequences, tiny_split.train.dataset, 8, 0), tiny_split.valid, verbose=False, callback_fn=ruin
    )
    assert min(scores) == scores[1] < scores[-1]
    assert trainer.evaluate(tiny_split.valid)["crossentropy"] == pytest.approx(min(scores))


def test_summary_trainer_follows_the_recipe(config_and_class, factory, summary, tiny_split):
    """RecBole's loop with the summary's loader against the recipe written out: bit for bit."""
    config = config_and_class[0]
    inner = read_options(config).inner
    trainer = SummaryTrainer(config, factory(5, dropout=inner.dropout), inner)
    torch.manual_seed(7)  # dropout draws from the global generator
    trainer.fit(SummaryLoader(summary, tiny_split.train.dataset, inner, 5), verbose=False)
    model = factory(5, dropout=inner.dropout)
    student = Student(model)
    model.train()
    torch.manual_seed(7)
    adam = torch.optim.Adam(model.parameters(), inner.learning_rate, inner.betas, inner.eps, fused=True)
    distributions = summary.distributions()
    assert inner.decay > 0.0  # so that the learning rate of this recipe changes from step to step
    for rows, rate in zip(batch_order(4, inner.batch_size, inner.steps, seed=5), inner.rates()):
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        student.soft_loss(distributions[rows]).backward()
        adam.step()
    for (name, mine), theirs in zip(trainer.model.named_parameters(), model.parameters()):
        assert torch.equal(mine, theirs), name


def test_summary_trainer_reads_items_and_predicts_distributions(config_and_class, factory, summary, tiny_split):
    """The same of a summary with inputs, by the loss that distillation differentiates and PyTorch's plain Adam."""
    config = config_and_class[0]
    inner = replace(read_options(config).inner, dropout=False)
    inputs = torch.arange(summary.latent[..., 0].numel()).view(summary.latent.shape[:2]) % (summary.decoder.shape[1] - 1) + 1
    summary = replace(summary, inputs=inputs)
    trainer = SummaryTrainer(config, factory(5, dropout=False), inner)
    assert trainer.optimizer.param_groups[0]["fused"]
    trainer.fit(SummaryLoader(summary, tiny_split.train.dataset, inner, 5), verbose=False)
    model = factory(5, dropout=False).train()
    student, distributions = Student(model), summary.distributions()
    adam = torch.optim.Adam(model.parameters(), inner.learning_rate, inner.betas, inner.eps)
    for rows, rate in zip(batch_order(4, inner.batch_size, inner.steps, seed=5), inner.rates()):
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        student.soft_loss(SoftEvents(distributions[rows], inputs[rows])).backward()
        adam.step()
    for (name, mine), theirs in zip(trainer.model.named_parameters(), model.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, msg=lambda message, name=name: f"{name}: {message}")


def test_recbole_s_own_prefix_training_works_too(config_and_class, factory, tiny_split):
    trainer = RowTrainer(config_and_class[0], factory(0))
    score, _ = trainer.fit(tiny_split.train, tiny_split.valid, verbose=False)
    assert trainer.evaluate(tiny_split.valid)["crossentropy"] == pytest.approx(score)


def test_windows_and_prefixes_are_the_same_loss(config_and_class, factory, tiny_split):
    """The mean over all prefixes of RecBole's training rows is the mean over all positions of short histories."""
    student = Student(factory(0, dropout=False).double())
    model = student.model
    rows = tiny_split.train.dataset.inter_feat
    scores = model.full_sort_predict(rows)[:, 1:]
    prefixes = torch.nn.functional.cross_entropy(scores, rows[model.POS_ITEM_ID] - 1)
    sequences = tiny_split.sequences
    longest = max(len(items) for items in sequences.items)
    short = [n for n, items in enumerate(sequences.items) if len(items) <= sequences.length + 1]
    total, count = 0.0, 0
    for items in sequences.items:
        for end in range(1, len(items)):
            window = np.zeros(sequences.length + 1, dtype=np.int64)
            part = items[max(0, end - sequences.length) : end + 1]
            window[: len(part)] = part
            logits = student.scores(torch.from_numpy(window[None, :-1]))[0, len(part) - 2, 1:]
            total += torch.nn.functional.cross_entropy(logits, torch.tensor(items[end] - 1)).item()
            count += 1
    assert longest > sequences.length + 1 and short  # the tiny dataset has both kinds
    assert prefixes.item() == pytest.approx(total / count, rel=1e-9)


def test_a_loss_that_is_not_finite_stops_with_one_line(make_config, factory, tiny_split):
    config, _ = make_config("SASRec", learning_rate=1e18, epochs=5)
    trainer = WindowTrainer(config, factory(0))
    with pytest.raises(DivergenceError, match="a smaller learning_rate"):
        trainer.fit(WindowLoader(tiny_split.sequences, tiny_split.train.dataset, 8, 0), verbose=False)


def test_the_recipe_is_not_changed_by_options_for_real_events(make_config, tiny_split, summary):
    """Clipping of gradients and mixed precision belong to training on real events; the recipe has neither."""
    weights = []
    for overrides in ({}, {"clip_grad_norm": {"max_norm": 0.01}}, {"enable_amp": True}):
        config, model_class = make_config("SASRec", **overrides)
        inner = read_options(config).inner
        trainer = SummaryTrainer(config, ModelFactory(model_class, config, tiny_split.train.dataset)(5), inner)
        torch.manual_seed(7)  # dropout draws from the global generator
        trainer.fit(SummaryLoader(summary, tiny_split.train.dataset, inner, 5), verbose=False)
        weights.append(list(trainer.model.parameters()))
    for others in weights[1:]:
        assert all(torch.equal(a, b) for a, b in zip(weights[0], others))
