"""What is compared: every contender by name, its size, and what it trains on."""

import numpy as np
import pytest
import torch

from recbole_farzi.contenders import ContenderFactory
from recbole_farzi.data import load_split
from recbole_farzi.errors import DataError, OptionError
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import is_contender, read_options
from recbole_farzi.sequences import Sequences
from recbole_farzi.starts import random_start
from recbole_farzi.student import Student
from recbole_farzi.training import LabelTrainer, WindowLoader, teacher_labels

EVERYTHING = [
    "full", "summary", "summary-passes", "start", "hard", "hard-0", "hard-1", "hard-20", "hard-bytes", "random", "head", "popular-items",
    "svp-cf", "svp-cf-users", "teacher-labels", "random-bytes", "head-bytes", "popular-items-bytes", "svp-cf-bytes",
    "svp-cf-users-bytes", "teacher-labels-bytes", "popularity",
]  # fmt: skip


@pytest.fixture
def make(make_config):
    """Function from names to contenders of a summary that is not distilled, and the split."""

    def make(*names, **overrides):
        config, model_class = make_config(farzi_contenders=list(names), farzi_seeds=1, epochs=1, **overrides)
        split, options = load_split(config), read_options(config)
        factory = ModelFactory(model_class, config, split.train.dataset)
        teacher = Student(factory(5))
        summary, start = (random_start(4, 11, 3, split.vocabulary, 1.0, seed) for seed in (1, 2))
        made = ContenderFactory(
            config, options, split, factory, teacher.traits, summary, start, lambda: teacher, "digest"
        ).contenders()
        return {contender.key: contender for contender in made}, split, summary

    return make


def test_every_contender_trains_and_evaluates(make):
    contenders, split, summary = make(*EVERYTHING)
    assert list(contenders) == EVERYTHING
    for contender in contenders.values():
        trainer, seconds = contender.run(contender.seeds[0], lambda progress: None)
        result = trainer.evaluate(split.test, show_progress=False)
        assert np.isfinite(result["crossentropy"]) and seconds >= 0
    assert len({contender.label for contender in contenders.values()}) == len(EVERYTHING)


def test_equal_events_and_equal_bytes(make):
    contenders, split, summary = make(*EVERYTHING)
    assert summary.events == 44 and summary.nbytes == 1024
    for name, contender in contenders.items():
        if name.endswith("-bytes"):
            assert summary.nbytes - 44 * 8 < contender.bytes <= summary.nbytes, name
        elif not name.startswith("hard") and name not in ("full", "popularity"):
            assert contender.events == 44, name
    assert contenders["hard"].events == 5 * 44 and contenders["hard-20"].events == 20 * 44
    assert contenders["hard-0"].events == contenders["hard-1"].events == 44
    assert contenders["full"].bytes == 4 * split.sequences.events


@pytest.mark.parametrize("name", ["fulls", "full-bytes", "hard-", "hard-99999", "hard-5-bytes", "svp", "", 3, None])
def test_names_that_there_are_not(make_config, name):
    assert not is_contender(name)
    with pytest.raises(OptionError, match="farzi_contenders="):
        read_options(make_config(farzi_contenders=["full", name])[0])


def test_names_given_twice_or_alone(make_config):
    twice = make_config(farzi_contenders=["full", "hard-3", "full"])[0]
    assert read_options(twice).output.contenders == ("full", "hard-3")
    assert read_options(make_config(farzi_contenders="popularity")[0]).output.contenders == ("popularity",)
    with pytest.raises(OptionError):
        read_options(make_config(farzi_contenders=[])[0])


def test_events_without_a_next_one_are_refused(tiny_split):
    with pytest.raises(DataError, match="its 2 events hold no two of the same user"):
        WindowLoader(Sequences([(1, [3]), (2, [4])], 10), tiny_split.train.dataset, 4, 0)


# --- the teacher's labels ---------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(make_config, tiny_split):
    config, model_class = make_config()
    factory = ModelFactory(model_class, config, tiny_split.train.dataset)
    teacher = Student(factory(5, dropout=False))
    sequences = Sequences(list(zip(tiny_split.sequences.users, tiny_split.sequences.items))[:6], 10)
    return config, factory, teacher, sequences


def test_labels_are_what_the_teacher_predicts_from_the_events_before(labelled):
    _, _, teacher, sequences = labelled
    numbered, items, labels = teacher_labels(teacher, sequences, 30, batch_size=7)
    teacher.model.eval()
    seen = []
    for numbers, history in zip(numbered.items, sequences.items):
        assert (items[numbers] == torch.from_numpy(history)).all()
        seen.extend(numbers.tolist())
        for t in range(1, len(history)):
            before = torch.from_numpy(history[max(0, t - 10) : t])
            padded = torch.zeros(1, 10, dtype=torch.long)
            padded[0, : len(before)] = before
            scores = teacher.row_scores(padded, torch.tensor([len(before)])).detach()[0, 1:31]
            torch.testing.assert_close(labels[numbers[t]], torch.softmax(scores, 0), rtol=1e-4, atol=1e-6)
    assert seen == list(range(1, sequences.events + 1))


def test_labels_cut_to_the_likeliest_keep_their_order_and_add_up(labelled):
    _, _, teacher, sequences = labelled
    _, _, whole = teacher_labels(teacher, sequences, 30)
    numbered, _, cut = teacher_labels(teacher, sequences, 4)
    used = np.concatenate([numbers[1:] for numbers in numbered.items])
    assert ((cut[used] > 0).sum(dim=1) == 4).all()
    torch.testing.assert_close(cut[used].sum(dim=1), torch.ones(len(used)))
    assert (cut[used].argmax(dim=1) == whole[used].argmax(dim=1)).all()


def test_labels_of_one_item_are_the_ordinary_loss(labelled):
    """With all of a label's mass on the event itself, distillation is training on real windows."""
    config, factory, teacher, sequences = labelled
    numbered, items, labels = teacher_labels(teacher, sequences, 30)
    certain = torch.zeros_like(labels)
    certain[torch.arange(1, len(items)), items[1:] - 1] = 1.0
    trainer = LabelTrainer(config, factory(1, dropout=False), items, certain)
    windows, numbers = (s.windows(np.random.default_rng(2)) for s in (sequences, numbered))
    torch.testing.assert_close(trainer.label_loss(numbers), trainer.student.real_loss(windows))
