"""Fixtures that all tests share: a tiny dataset, options with which every stage takes a moment, a place to work in."""

import contextlib
import functools
import logging
import sys

import numpy as np
import pytest

import recbole_farzi  # noqa: F401  (repairs RecBole before anything imports it)

USERS, ITEMS = 40, 30


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Every test sees the same random numbers, whatever ran before it."""
    from recbole_farzi.models import seeded

    with seeded(0):
        yield


@contextlib.contextmanager
def _working_in(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "stdout", sys.stdout)  # RecBole's logger has colorama replace both
        patch.setattr(sys, "stderr", sys.stderr)
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        yield folder
        for handler in [h for h in root.handlers if h not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)


@pytest.fixture
def workplace(tmp_path):
    """The test runs in its own folder, where RecBole leaves ``log/``, ``saved/``, ...; logging is as before afterwards."""
    with _working_in(tmp_path):
        yield tmp_path


@pytest.fixture(scope="session")
def work_in():
    """Context manager of a folder that makes it what ``workplace`` is, for fixtures that many tests share."""
    return _working_in


@pytest.fixture(scope="session")
def tiny_events():
    """``(user, item, time)`` in no particular order: 40 users of 6 to 25 events; most items lead to one certain next."""
    rng = np.random.default_rng(20)
    follows = rng.permutation(ITEMS)
    events = []
    for user in range(USERS):
        item, time = int(rng.integers(ITEMS)), int(rng.integers(1000))
        for _ in range(int(rng.integers(6, 26))):
            events.append((f"u{user}", f"i{item}", time))
            item = int(follows[item]) if rng.random() < 0.7 else int(rng.integers(ITEMS))
            time += int(rng.integers(1, 50))
    return [events[i] for i in rng.permutation(len(events))]


def _write_inter(folder, events, name="tiny", header="user_id:token\titem_id:token\ttimestamp:float"):
    folder = folder / "datasets" / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = [header, *("\t".join(map(str, event)) for event in events)]
    (folder / f"{name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder.parent


@pytest.fixture
def write_inter(tmp_path):
    """Function that writes ``NAME/NAME.inter`` and returns the folder above it, RecBole's ``data_path``."""
    return functools.partial(_write_inter, tmp_path)


@pytest.fixture
def tiny_dataset(write_inter, tiny_events):
    """RecBole's ``data_path``; the folder holds ``tiny/tiny.inter``."""
    return write_inter(tiny_events)


@pytest.fixture(scope="session")
def shared_dataset(tmp_path_factory, tiny_events):
    """The same in one folder for the session, for fixtures that many tests share."""
    return _write_inter(tmp_path_factory.mktemp("shared"), tiny_events)


@pytest.fixture(scope="session")
def tiny_options():
    """Overrides that make every stage tiny; to be copied, not changed."""
    return {
        "MAX_ITEM_LIST_LENGTH": 10,
        "hidden_size": 8,
        "inner_size": 16,
        "n_layers": 1,
        "embedding_size": 8,
        "epochs": 3,
        "eval_batch_size": 64,
        "topk": [5, 10],
        "show_progress": False,
        "state": "ERROR",
        "use_gpu": False,
        "farzi_pool_models": 1,
        "farzi_pool_chain": False,  # tests/test_markov.py has it
        "farzi_sequences": 4,
        "farzi_latent_dim": 3,
        "farzi_start_draws": 2,
        "farzi_start_covering": 0,
        "farzi_inner_steps": 6,
        "farzi_inner_batch_size": 2,
        "farzi_unroll": "windows",
        "farzi_window": 3,
        "farzi_trajectories": 2,
        "farzi_outer_steps": 4,
        "farzi_outer_batch_size": 16,
        "farzi_eval_step": 2,
        "farzi_eval_students": 1,
        "farzi_pool_snapshots": [1],
        "farzi_student_learning_rates": [0.01, 0.03],
        "farzi_student_steps": 9,
        "farzi_student_eval_step": 3,
        "farzi_seeds": 2,
        "farzi_contenders": ["full", "summary", "start", "hard", "random", "random-bytes", "popularity"],
        "farzi_user_strata": 2,
        "farzi_item_strata": 2,
        "farzi_report_metrics": [],
    }


@pytest.fixture
def make_config(workplace, tiny_dataset, tiny_options):
    """Function from a model and overrides to ``(config, model_class)`` on the tiny dataset."""
    from recbole_farzi.configuration import build_config

    def make(model="SASRec", dataset="tiny", config_files=(), **overrides):
        return build_config(model, dataset, config_files, {**tiny_options, "data_path": str(tiny_dataset), **overrides})

    return make


@pytest.fixture
def tiny_split(make_config):
    """:class:`recbole_farzi.data.Split` of the tiny dataset."""
    from recbole_farzi.data import load_split

    return load_split(make_config()[0])


@pytest.fixture
def make_trainer(make_config, tiny_split):
    """Function from a model and overrides to a :class:`recbole_farzi.trainer.FarziTrainer` on the tiny dataset."""
    from recbole_farzi.models import ModelFactory
    from recbole_farzi.trainer import FarziTrainer

    def make(model="SASRec", **overrides):
        config, model_class = make_config(model, **overrides)
        return FarziTrainer(config, ModelFactory(model_class, config, tiny_split.train.dataset)(config["seed"]))

    return make


@pytest.fixture
def teacher(make_config, tiny_split):
    """A SASRec that was not trained and yet predicts some items far more than others."""
    import torch

    from recbole_farzi.models import without_dropout
    from recbole_farzi.student import Student

    config, model_class = make_config("SASRec")
    torch.manual_seed(0)
    model = without_dropout(model_class(config, tiny_split.train.dataset))
    with torch.no_grad():
        model.item_embedding.weight.mul_(20)  # predictions that are far from uniform
    return Student(model.eval())
