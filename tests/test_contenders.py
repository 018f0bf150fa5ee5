"""What is compared: every contender by name, its size, and what it trains on."""

import functools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.utils import get_model, get_trainer

from recbole_farzi.contenders import ContenderFactory, round_labels
from recbole_farzi.data import load_loaders, load_split
from recbole_farzi.errors import DataError, OptionError, StorageError
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import is_contender, read_options
from recbole_farzi.run import run_farzi
from recbole_farzi.sequences import Sequences
from recbole_farzi.starts import random_start
from recbole_farzi.student import Student
from recbole_farzi.training import DrawnTrainer, Labels, LabelTrainer, WindowLoader, WindowTrainer, teacher_labels

EVERYTHING = [
    "full", "summary", "summary-passes", "start", "hard", "hard-0", "hard-1", "hard-20", "hard-bytes", "random", "head", "popular-items",
    "svp-cf", "svp-cf-users", "teacher-labels", "random-bytes", "head-bytes", "popular-items-bytes", "svp-cf-bytes",
    "svp-cf-users-bytes", "teacher-labels-bytes", "popularity",
]  # fmt: skip


@pytest.fixture
def make(make_config):
    """Function from names to contenders of a summary that is not distilled, and the split."""

    def make(*names, inputs=False, **overrides):
        config, model_class = make_config(farzi_contenders=list(names), farzi_seeds=1, epochs=1, **overrides)
        split, options = load_split(config), read_options(config)
        factory = ModelFactory(model_class, config, split.train.dataset)
        teacher = Student(factory(5))
        summary, start = (random_start(4, 11, 3, split.vocabulary, 1.0, seed) for seed in (1, 2))
        if inputs:
            summary = replace(summary, inputs=torch.randint(1, split.vocabulary, (4, 11)))
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


@pytest.mark.parametrize("model", ["SASRec", "STAMP", "BERT4Rec"])
def test_hard_events_are_targets_after_items(make_config, tiny_split, model):
    """Of a summary whose histories are items: the loss of the rows (items before, hard event)."""
    config, model_class = make_config(model)
    factory = ModelFactory(model_class, config, tiny_split.train.dataset)
    student = Student(factory(3, dropout=False).double(), config=config)
    summary = random_start(4, 11, 3, tiny_split.vocabulary, 1.0, 1)
    summary = replace(summary, inputs=torch.randint(1, tiny_split.vocabulary, (4, 11)))
    hard = summary.hard(2, 0)
    histories = summary.inputs.repeat_interleave(2, dim=0)
    numbers = torch.arange(1, hard.numel() + 1).view(hard.shape)
    pad = torch.nn.functional.pad
    if student.traits.objective == "sequence":
        made = ContenderFactory(
            config, read_options(config), tiny_split, factory, student.traits, summary, summary, None, None
        )._hard("hard-2")
        trainer, _ = made.run(made.seeds[0], lambda progress: None)
        assert type(trainer) is WindowTrainer and made.bytes == 2 * hard.numel()
        return
    trainer = DrawnTrainer(
        config, student.model, pad(histories.reshape(-1), (1, 0)), pad(hard.reshape(-1), (1, 0)), student.traits
    )
    mine = trainer.drawn_loss(numbers)
    rows = [
        (history[:end], target[end])
        for history, target in zip(histories.tolist(), hard.tolist())
        for end in range(1, 11)
    ]  # fmt: skip
    if student.traits.by_rows:  # a window of a model that reads prefixes counts its last event
        rows = rows[9::10]
    read = torch.zeros(len(rows), student.length, dtype=torch.long)
    for row, (history, _) in zip(read, rows):
        row[: len(history)] = torch.tensor(history)
    batch = {
        student.model.ITEM_SEQ: read,
        student.model.ITEM_SEQ_LEN: torch.tensor([len(history) for history, _ in rows]),
        student.model.POS_ITEM_ID: torch.tensor([target for _, target in rows]),
    }
    if student.traits.objective == "cross-entropy":  # RecBole's has the padding item among the classes
        scores = student.model.full_sort_predict(Interaction(batch))[:, 1:]
        expected = torch.nn.functional.cross_entropy(scores, batch[student.model.POS_ITEM_ID] - 1)
    else:
        expected = student.model.calculate_loss(Interaction(batch))
    torch.testing.assert_close(mine, expected)


def test_hard_contenders_of_histories_of_items_are_sized_and_train(make):
    contenders, split, summary = make("summary", "hard-2", "hard-0", "hard-bytes", inputs=True)
    assert contenders["hard-2"].events == 2 * 44 and contenders["hard-2"].bytes == 2 * 3 * 44
    assert contenders["hard-bytes"].bytes <= summary.nbytes == 1024 + 2 * 44
    for contender in contenders.values():
        trainer, _ = contender.run(contender.seeds[0], lambda progress: None)
        assert np.isfinite(trainer.evaluate(split.test, show_progress=False)["crossentropy"])


def test_equal_events_and_equal_bytes(make):
    contenders, split, summary = make(*EVERYTHING)
    assert summary.events == 44 and summary.nbytes == 1024
    for name, contender in contenders.items():
        if name.endswith("-bytes"):
            assert summary.nbytes - 44 * 4 < contender.bytes <= summary.nbytes, name
        elif not name.startswith("hard") and name not in ("full", "popularity"):
            assert contender.events == 44, name
    assert contenders["hard"].events == 5 * 44 and contenders["hard-20"].events == 20 * 44
    assert contenders["hard-0"].events == contenders["hard-1"].events == 44
    assert contenders["full"].bytes == 2 * split.sequences.events


def test_labels_fit_in_16_bits_a_share_and_sum_to_one():
    torch.manual_seed(3)
    near = 1e-6 * (1 + 0.01 * torch.rand(3, 100_000))
    near /= near.sum(dim=1, keepdim=True)
    sharp = torch.softmax(30 * torch.randn(2, 100_000), dim=1)
    labels = torch.cat([torch.zeros(1, 100_000), near, sharp])
    before = labels.clone()
    round_labels(labels)
    assert (labels[0] == 0).all() and not torch.equal(labels, before)
    torch.testing.assert_close(labels[1:].sum(dim=1), torch.ones(5), rtol=1e-5, atol=0)
    torch.testing.assert_close(labels, before, rtol=2e-3, atol=1e-7)
    for label in labels[1:]:
        stored = label / label.max()
        torch.testing.assert_close(stored.half().float(), stored, rtol=1e-6, atol=1e-7)


def test_labels_of_the_same_bytes_are_whole_where_that_is_shorter(make, monkeypatch):
    """30 items whole take 60 bytes, as 15 with their ids do."""
    contenders, _, summary = make("teacher-labels-bytes")
    assert (summary.nbytes - 44 * 2) // (44 * 4) == 5
    assert "cut to the 5 likeliest" in contenders["teacher-labels-bytes"].note
    large = functools.partial(random_start, 4, 11, 14)
    monkeypatch.setattr(sys.modules[__name__], "random_start", lambda mu, xi, d, *rest: large(*rest))
    contenders, split, summary = make("teacher-labels-bytes")
    assert 44 * 2 * 31 < summary.nbytes < 44 * 4 * 30
    labels = contenders["teacher-labels-bytes"]
    assert "cut" not in labels.note and labels.bytes == 44 * (2 + 2 * 30)


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
            torch.testing.assert_close(labels.shares[numbers[t]], torch.softmax(scores, 0), rtol=1e-4, atol=1e-6)
    assert seen == list(range(1, sequences.events + 1))


def test_labels_cut_to_the_likeliest_keep_their_order_and_add_up(labelled):
    _, _, teacher, sequences = labelled
    _, _, whole = teacher_labels(teacher, sequences, 30)
    numbered, _, cut = teacher_labels(teacher, sequences, 4)
    used = np.concatenate([numbers[1:] for numbers in numbered.items])
    assert whole.items is None and cut.shares.shape == cut.items.shape == (len(whole.shares), 4)
    torch.testing.assert_close(cut.shares[used].sum(dim=1), torch.ones(len(used)))
    likeliest = whole.shares[used].gather(1, cut.items[used])
    torch.testing.assert_close(cut.shares[used], likeliest / likeliest.sum(dim=1, keepdim=True))
    assert (likeliest.amin(dim=1) >= whole.shares[used].scatter(1, cut.items[used], 0.0).amax(dim=1)).all()


def test_the_loss_against_cut_labels_is_that_against_the_same_ones_with_zeros(labelled):
    config, factory, teacher, sequences = labelled
    numbered, items, cut = teacher_labels(teacher, sequences, 4)
    whole = Labels(torch.zeros(len(items), 30).scatter(1, cut.items, cut.shares))
    windows = numbered.windows(np.random.default_rng(2))
    losses = [LabelTrainer(config, factory(1, dropout=False), items, labels).label_loss(windows) for labels in (cut, whole)]
    torch.testing.assert_close(*losses)


def test_labels_of_one_item_are_the_ordinary_loss(labelled):
    """With all of a label's mass on the event itself, distillation is training on real windows."""
    config, factory, teacher, sequences = labelled
    numbered, items, labels = teacher_labels(teacher, sequences, 30)
    certain = torch.zeros_like(labels.shares)
    certain[torch.arange(1, len(items)), items[1:] - 1] = 1.0
    trainer = LabelTrainer(config, factory(1, dropout=False), items, Labels(certain))
    windows, numbers = (s.windows(np.random.default_rng(2)) for s in (sequences, numbered))
    torch.testing.assert_close(trainer.label_loss(numbers), trainer.student.real_loss(windows))


# --- models that RecBole has trained ----------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(workplace, tiny_dataset, tiny_options):
    """Function that trains a model as a user of RecBole does; gives its file and what RecBole's trainer finds on test."""

    def make(model, name, **overrides):
        settings = {
            "data_path": str(tiny_dataset), "MAX_ITEM_LIST_LENGTH": tiny_options["MAX_ITEM_LIST_LENGTH"], "hidden_size": 8,
            "embedding_size": 8, "epochs": 1, "train_neg_sample_args": None, "topk": tiny_options["topk"], "use_gpu": False,
            "metrics": ["Hit", "NDCG"], "valid_metric": "NDCG@5", "state": "ERROR", "show_progress": False, "metric_decimal_place": 6,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, **overrides,
        }  # fmt: skip
        config = Config(model, "tiny", None, {k: repr(v) if isinstance(v, str) else v for k, v in settings.items()})
        train, valid, test = load_loaders(config)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, get_model(model)(config, train.dataset))
        trainer.saved_model_file = f"saved/{name}.pth"
        trainer.fit(train, valid, verbose=False, saved=True, show_progress=False)
        return trainer.saved_model_file, trainer.evaluate(test, load_best_model=False)

    return make


def test_a_checkpoint_of_recboles_is_a_contender(make, checkpoint):
    file, expected = checkpoint("GRU4Rec", "mine, of today")
    contenders, split, _ = make("full", file)
    mine = contenders["GRU4Rec-mine-of-today"]
    assert (mine.label, mine.events, mine.bytes, mine.seeded) == ("GRU4Rec (mine, of today)", None, None, False)
    trainer, seconds = mine.run(mine.seeds[0], lambda progress: None)
    found = trainer.evaluate(split.test, show_progress=False)
    assert seconds is None and {name: found[name] for name in expected} == dict(expected)


def test_a_whole_job_reports_a_checkpoint_beside_the_summary(checkpoint, tiny_dataset, tiny_options):
    file, expected = checkpoint("GRU4Rec", "mine")
    options = {**tiny_options, "data_path": str(tiny_dataset), "farzi_contenders": ["full", "summary", file], "farzi_outer_steps": 1}
    results = run_farzi("SASRec", "tiny", config_dict=options)["results"]
    mine = results["contenders"][2]
    assert [c["key"] for c in results["contenders"]] == ["full", "summary", "GRU4Rec-mine"] and mine["events"] is None
    assert {name: mine["runs"][0]["metrics"][name] for name in expected} == {k: float(v) for k, v in expected.items()}
    assert (mine["runs"][0]["seed"], mine["runs"][0]["seconds"]) == (None, None)


@pytest.mark.parametrize("model, name, overrides, error, message", [
    ("GRU4Rec", "cut", {"MAX_ITEM_LIST_LENGTH": 5}, DataError, "MAX_ITEM_LIST_LENGTH is 5, not 1"),
    ("BPR", "BPR", {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}, DataError, "eval_args is"),
    (None, "nosuch", {}, StorageError, "nosuch.pth: No such file"),
])  # fmt: skip
def test_a_checkpoint_that_cannot_be_compared_is_refused_before_the_work(
    checkpoint, tiny_dataset, tiny_options, model, name, overrides, error, message
):
    file = checkpoint(model, name, **overrides)[0] if model else f"saved/{name}.pth"
    options = {**tiny_options, "data_path": str(tiny_dataset), "farzi_contenders": ["full", file]}
    with pytest.raises(error, match=message) as caught:
        run_farzi("SASRec", "tiny", config_dict=options)
    assert "\n" not in str(caught.value) and not Path("saved/farzi/runs").exists()
