"""Several trained models as one teacher."""

import numpy as np
import pytest
import torch

from recbole_farzi.ensemble import Ensemble
from recbole_farzi.errors import OptionError
from recbole_farzi.models import without_dropout
from recbole_farzi.generation import generate_windows
from recbole_farzi.starts import pick_windows, teacher_start
from recbole_farzi.student import Student
from recbole_farzi.training import teacher_labels


@pytest.fixture
def members(make_config, tiny_split):
    def make(name="SASRec", count=3):
        config, model_class = make_config(name)
        students = []
        for seed in range(count):
            torch.manual_seed(seed)
            model = without_dropout(model_class(config, tiny_split.train.dataset)).double()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(60)  # predictions that are far from uniform, and differ
            students.append(Student(model.eval(), last_only=True))
        return students

    return make


@pytest.mark.parametrize("name", ["SASRec", "STAMP"])  # one that is causal, one that reads prefixes
def test_it_predicts_the_mean_of_its_members(members, tiny_split, name):
    one, two, three = members(name)
    ensemble = Ensemble([one, two, three])
    windows = pick_windows(tiny_split.sequences, 4, 9, np.random.default_rng(0))
    lengths = torch.full((4,), 8)

    def probabilities(scores):
        return torch.softmax(scores[..., 1 : one.vocabulary], dim=-1)

    with torch.no_grad():
        for ask in (lambda m: m.scores(windows[:, :-1]), lambda m: m.row_scores(windows[:, :-1], lengths)):
            mean = (probabilities(ask(one)) + probabilities(ask(two)) + probabilities(ask(three))) / 3
            found = ask(ensemble)
            assert found.shape[-1] == one.vocabulary and (found[..., 0] == -torch.inf).all()
            assert torch.allclose(found[..., 1:].exp(), mean, rtol=1e-12, atol=0)
            assert (mean - probabilities(ask(one))).abs().max() > 1e-3
        mean = (one.predictions(windows) + two.predictions(windows) + three.predictions(windows)) / 3
        assert torch.allclose(ensemble.predictions(windows), mean, rtol=1e-12, atol=0)
        tables = [m.model.item_embedding.weight for m in (one, two, three)]
        similar = sum(table[windows] @ table[1 : one.vocabulary].T for table in tables) / 3
        assert torch.allclose(ensemble.similarities(windows), similar)


def test_one_that_is_always_the_same_is_like_that_one(members, tiny_split):
    one = members(count=1)[0].float()
    ensemble, counts = Ensemble([one, one]), tiny_split.counts
    windows = generate_windows(one, counts, 5, 9, False, seed=1)
    assert torch.equal(generate_windows(ensemble, counts, 5, 9, False, seed=1), windows)
    rank = tiny_split.vocabulary
    starts = [teacher_start(windows, teacher, counts, rank, 1.0, 0.5, seed=0) for teacher in (one, ensemble)]
    logits = [torch.log_softmax((s.latent @ s.decoder + s.bias)[..., 1:], dim=-1) for s in starts]
    assert torch.allclose(*logits, atol=1e-4)
    labels = [teacher_labels(teacher, tiny_split.sequences, 5)[2] for teacher in (one, ensemble)]
    assert torch.equal(*(label.items for label in labels))
    assert torch.allclose(*(label.shares for label in labels), atol=1e-6)


def test_how_many_of_the_pool_teach(make_trainer, tiny_split):
    options = {"farzi_pool_models": 3, "farzi_outer_steps": 2, "epochs": 2}
    starts = {}
    for teachers in (None, 3, 2, 1):
        trainer = make_trainer(**options, farzi_pool_teachers=teachers)
        trainer.fit(tiny_split.train, tiny_split.valid)
        starts[teachers] = trainer.start.latent
        assert trainer.pool.reused == (teachers is not None)  # the pool does not depend on it
        teacher = trainer.teacher()
        assert isinstance(teacher, Student) if teachers == 1 else len(teacher.members) == (teachers or 3)
    assert torch.equal(starts[None], starts[3])
    assert not torch.equal(starts[3], starts[2]) and not torch.equal(starts[2], starts[1])


def test_more_teachers_than_models_are_refused(make_trainer):
    with pytest.raises(OptionError, match="farzi_pool_teachers=3 is more than the pool has models"):
        make_trainer(farzi_pool_models=2, farzi_pool_teachers=3)
