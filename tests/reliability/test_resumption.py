"""Killed and started again: the same weights, the same random streams, the same results."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_farzi import training
from recbole_farzi.errors import Interrupted, StorageError
from recbole_farzi.models import ModelFactory, seeded
from recbole_farzi.resumption import Pace, interruptible, random_streams, restore_random_streams
from recbole_farzi.storage import load_tensors
from recbole_farzi.student import inspect_model
from recbole_farzi.training import RowTrainer, WindowLoader, WindowTrainer


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def save_whenever_possible(monkeypatch):
    monkeypatch.setattr(training, "Pace", lambda: Pace(share=1.0))


@pytest.fixture
def train(make_config, tiny_split, tmp_path):
    """Function that trains a model on the tiny dataset, killed at the n-th validation, or not; returns the trainer."""

    def run(kind="windows", killed_at=None, keep=True, valid=True, **overrides):
        config, model_class = make_config(**{"epochs": 5, "stopping_step": 2, "train_batch_size": 16, **overrides})
        factory, seed = ModelFactory(model_class, config, tiny_split.train.dataset), 5
        model = factory(seed)
        if kind == "windows":
            trainer = WindowTrainer(config, model, inspect_model(factory(0)))
            loader = WindowLoader(tiny_split.sequences, tiny_split.train.dataset, 16, seed)
        else:
            trainer = RowTrainer(config, model)
            loader = tiny_split.train
            loader.generator.manual_seed(seed)
        trainer.state_file = tmp_path / "state.pt" if keep else None
        epochs = []

        def killing(original):
            def train_epoch(*args, **kwargs):
                total = original(*args, **kwargs)
                epochs.append(args[1])
                if len(epochs) == killed_at:
                    raise Killed
                return total

            return train_epoch

        trainer._train_epoch = killing(trainer._train_epoch)
        with seeded(seed):
            trainer.fit(loader, tiny_split.valid if valid else None, verbose=False)
        trainer.epochs_trained = epochs
        return trainer

    return run


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("kind, learner, dropout", [("windows", "adam", 0.5), ("prefixes", "rmsprop", 0.5)])
def test_a_training_that_was_killed_twice_ends_as_one_that_was_not(train, kind, learner, dropout):
    options = {"learner": learner, "hidden_dropout_prob": dropout, "attn_dropout_prob": dropout, "train_batch_size": 256}
    options["epochs"] = 5
    whole = train(kind, keep=False, **options)
    for moment in (3, 2):
        with pytest.raises(Killed):
            train(kind, moment, **options)
        torch.manual_seed(99)  # another process has other random numbers
    resumed = train(kind, **options)
    assert resumed.epochs_trained[0] == 3  # of epochs 0 to 3 the last was not whole
    assert same(resumed.model.state_dict(), whole.model.state_dict())
    assert same(resumed._best_state, whole._best_state)
    assert resumed.best_valid_score == whole.best_valid_score and resumed.best_valid_result == dict(whole.best_valid_result)
    assert resumed.train_loss_dict == whole.train_loss_dict
    assert resumed.epochs_trained[-1] == whole.epochs_trained[-1]


def test_early_stopping_goes_on_counting(train):
    """A learning rate that ruins the model at once: the run stops when the whole one does."""
    options = {"learning_rate": 0.5, "stopping_step": 1, "epochs": 20}
    whole = train(keep=False, **options)
    assert len(whole.epochs_trained) < 20
    with pytest.raises(Killed):
        train(killed_at=len(whole.epochs_trained), **options)
    resumed = train(**options)
    assert resumed.epochs_trained == whole.epochs_trained[-1:]
    assert same(resumed.model.state_dict(), whole.model.state_dict())


def test_without_validation_too(train):
    whole = train(keep=False, valid=False)
    with pytest.raises(Killed):
        train(killed_at=4, valid=False)
    assert same(train(valid=False).model.state_dict(), whole.model.state_dict())


def test_the_time_of_all_processes_is_counted(train, tmp_path):
    with pytest.raises(Killed):
        train(killed_at=3)
    before = load_tensors(tmp_path / "state.pt")["seconds"]
    assert 0 < before < train().seconds


def test_a_state_that_is_foreign_is_one_line(train, tmp_path):
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(StorageError, match="cannot be continued from .*state.pt .*; remove it") as caught:
        train()
    assert "\n" not in str(caught.value)
    torch.save({"epoch": 1}, tmp_path / "state.pt")
    with pytest.raises(StorageError, match="cannot be continued"):
        train()


def test_a_state_of_another_model_is_one_line(train):
    with pytest.raises(Killed):
        train(killed_at=3)
    with pytest.raises(StorageError, match="cannot be continued") as caught:
        train(hidden_size=16)
    assert "\n" not in str(caught.value)


def test_random_streams_come_back():
    device = torch.device("cpu")
    random.seed(3), np.random.seed(4), torch.manual_seed(5)
    np.random.normal()  # leaves the second of a pair for the next draw
    state = random_streams(device)
    drawn = [random.random(), np.random.normal(), np.random.random(), torch.rand(3).tolist()]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    restore_random_streams(state, device)
    assert [random.random(), np.random.normal(), np.random.random(), torch.rand(3).tolist()] == drawn


def test_saving_takes_its_share_of_the_time_and_no_more():
    now = [0.0]
    pace, saved = Pace(share=0.1, clock=lambda: now[0]), []
    assert pace.due
    for step in range(1000):
        now[0] += 1.0  # of work
        if pace.due:
            with pace.saving():
                now[0] += 4.0
            saved.append(step)
    assert 0.08 < 4.0 * (len(saved) - 1) / now[0] <= 0.1  # what a save costs is not known before the first
    assert max(b - a for a, b in zip(saved, saved[1:])) == 36  # work that a kill can cost, of saves that take 4


def test_an_interrupt_says_where_it_came_and_the_inner_place_wins():
    with pytest.raises(Interrupted, match="^while sleeping$"):
        with interruptible(lambda: "while working"), interruptible(lambda: "while sleeping"):
            raise KeyboardInterrupt
    with pytest.raises(ValueError), interruptible(lambda: "while working"):
        raise ValueError


def test_killed_jobs_end_as_undisturbed_ones():
    """A handful of SIGKILLs over whole jobs; the same script with ``--kills 60`` is the test of record."""
    script = Path(__file__).with_name("kills.py")
    command = [sys.executable, str(script), "--kills", "4", "--each", "4", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"kills": 4' in done.stdout
