"""Training on a summary in passes, with RecBole's optimiser and early stopping."""

import pytest
import torch

from recbole_farzi.models import ModelFactory
from recbole_farzi.passes import PassLoader, PassTrainer
from recbole_farzi.sequences import batch_order
from recbole_farzi.starts import random_start
from recbole_farzi.student import Student


@pytest.fixture
def summary(tiny_split):
    return random_start(5, 11, 3, tiny_split.vocabulary, 1.0, seed=0)


def test_epochs_go_through_the_summary_pass_after_pass(summary, tiny_split):
    """Batches of 2, 2 and 1 sequences a pass, two to an epoch: passes go on where the epoch before ended."""
    loader = PassLoader(summary, tiny_split.train.dataset, batch_size=2, steps=2, seed=3)
    assert len(loader) == 2
    events = summary.distributions()
    seen = [batch for _ in range(3) for batch in loader]
    for batch, rows in zip(seen, batch_order(5, 2, 6, seed=3), strict=True):
        assert torch.equal(batch, events[rows])
    assert torch.allclose(torch.cat(seen[:3]).sum(dim=0), events.sum(dim=0))


def test_passes_are_plain_training_on_the_soft_loss(make_config, summary, tiny_split):
    """RecBole's loop and optimiser against the same written out, bit for bit."""
    config, model_class = make_config("GRU4Rec", learning_rate=0.02, weight_decay=0.001, dropout_prob=0.0)
    factory = ModelFactory(model_class, config, tiny_split.train.dataset)
    trainer = PassTrainer(config, factory(4), epochs=2)
    trainer.fit(PassLoader(summary, tiny_split.train.dataset, 2, 3, seed=8), None, verbose=False)
    model = factory(4)
    student = Student(model)
    adam = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=0.001)
    for rows in batch_order(5, 2, 6, seed=8):
        adam.zero_grad()
        student.soft_loss(summary.distributions()[rows]).backward()
        adam.step()
    for (name, mine), theirs in zip(trainer.model.named_parameters(), model.parameters()):
        assert torch.equal(mine, theirs), name


def test_the_best_epoch_on_validation_counts(make_config, summary, tiny_split):
    config, model_class = make_config("SASRec", learning_rate=0.05, stopping_step=1)
    factory = ModelFactory(model_class, config, tiny_split.train.dataset)
    trainer = PassTrainer(config, factory(4), epochs=30)
    scores = []
    trainer.fit(
        PassLoader(summary, tiny_split.train.dataset, 2, 3, seed=8), tiny_split.valid, verbose=False,
        callback_fn=lambda epoch, score: scores.append(score),
    )  # fmt: skip
    assert len(scores) < 30  # a random summary teaches nothing for long
    assert scores[trainer.best_epoch - 1] == min(scores)
    assert trainer.evaluate(tiny_split.valid)["crossentropy"] == pytest.approx(min(scores))
