"""The pool of trained models: built, kept, used again only while nothing that matters has changed."""

import json
import shutil

import pytest
import torch

from recbole_farzi.contenders import ContenderFactory
from recbole_farzi.inspection import inspect_model
from recbole_farzi.models import ModelFactory, seeded
from recbole_farzi.options import read_options
from recbole_farzi.pool import build_pool
from recbole_farzi.training import WindowTrainer


@pytest.fixture
def build(make_config, tiny_split, tmp_path):
    def make(checksum="data", model="SASRec", **overrides):
        config, model_class = make_config(model, **overrides)
        factory = ModelFactory(model_class, config, tiny_split.train.dataset)
        traits = inspect_model(factory(0))
        return build_pool(
            config, read_options(config).pool, factory, traits, tiny_split.sequences, checksum, tiny_split.valid, tmp_path / "pool"
        )  # fmt: skip

    return make


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_pool_is_built_once(build):
    first, second = build(farzi_pool_snapshots=[0, 1, 2]), build(farzi_pool_snapshots=[0, 1, 2])
    assert not first.reused and second.reused
    assert same(first.models[0], second.models[0])
    assert len(first.snapshots) == len(second.snapshots) == 3
    assert all(same(one, other) for one, other in zip(first.snapshots, second.snapshots))
    assert not same(first.snapshots[0], first.snapshots[1])


@pytest.mark.parametrize("batch", [1, 1000], ids=["alike", "too few batches to be alike"])
def test_full_data_is_the_pool(build, make_config, tiny_split, batch):
    """What is taken from the pool is what training again gives; where it would not be, it is trained."""
    given = {"farzi_pool_models": 2, "farzi_seeds": 3, "train_batch_size": batch, "epochs": 2}
    pool = build(**given)
    config, model_class = make_config(**given, farzi_contenders=["full"])
    factory = ModelFactory(model_class, config, tiny_split.train.dataset)
    outcomes = []
    for offered in (pool, None):
        (full,) = ContenderFactory(
            config, read_options(config), tiny_split, factory, inspect_model(factory(0)), None, None, None, None, offered
        ).contenders()
        assert full.seeds == tuple(config["seed"] + number for number in range(3))
        outcomes.append([])
        for seed in full.seeds:
            with seeded(seed):
                trainer, seconds = full.run(seed, lambda progress: None)
            outcomes[-1].append(trainer.evaluate(tiny_split.test, load_best_model=False))
            taken = offered is not None and batch == 1 and seed < full.seeds[2]
            assert (seconds in [entry[2] for entry in pool.trained]) == taken
    assert outcomes[0] == outcomes[1]


def test_what_does_not_matter_does_not_rebuild(build):
    build()
    assert build(farzi_outer_steps=7, farzi_latent_dim=5, show_progress=False, farzi_report_path="elsewhere").reused


@pytest.mark.parametrize(
    "change",
    [
        {"checksum": "other data"},
        {"model": "GRU4Rec"},
        {"learning_rate": 0.0123},
        {"hidden_size": 12},
        {"seed": 7},
        {"farzi_pool_snapshots": [2]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_matters_does(build, change):
    build()
    assert not build(**change).reused


def test_the_best_of_several_comes_first(build):
    pool = build(farzi_pool_models=2, epochs=2)
    alone = [build(farzi_pool_models=1, epochs=2, seed=seed) for seed in (2020, 2021)]
    alone.sort(key=lambda single: single.score)
    assert pool.score == pytest.approx(alone[0].score)
    assert len(pool.models) == 2
    assert len(build(farzi_pool_models=2, farzi_pool_teachers=1, epochs=2).models) == 1
    assert all(same(model, single.models[0]) for model, single in zip(pool.models, alone))


def test_a_damaged_pool_is_built_anew(build, tmp_path):
    first = build()
    (damaged,) = (tmp_path / "pool").glob("pool-*/model0.pt")
    damaged.write_bytes(damaged.read_bytes()[:100])
    second = build()
    assert not second.reused
    assert same(first.models[0], second.models[0])
    (manifest,) = (tmp_path / "pool").glob("pool-*/pool.json")
    manifest.write_text("{}")
    assert not build().reused
    emptied = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**emptied, "models": []}))
    third = build()
    assert not third.reused and same(first.models[0], third.models[0])


def flip(path):
    """One bit of a number: PyTorch reads the file without a word."""
    content = bytearray(path.read_bytes())
    state = torch.load(path, weights_only=True)
    tensor = next(value for value in state.values() if torch.is_tensor(value) and value.is_floating_point() and value.any())
    at = content.find(tensor.numpy().tobytes())
    assert at > 0
    content[at] ^= 1
    path.write_bytes(content)


HARMS = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a bit": flip,
    "of another epoch": lambda path: shutil.copy(path.with_name(f"model0-epoch{2 - (path.name == 'model0.pt')}.pt"), path),
    "of the other model": lambda path: shutil.copy(path.with_name(path.name.replace("model0", "model1")), path),
}


@pytest.mark.parametrize("killed", [False, True], ids=["whole", "killed in the second model"])
@pytest.mark.parametrize("file", ["model0.pt", "model0-epoch1.pt"])
@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_file_costs_its_own_model_and_changes_nothing(build, tmp_path, monkeypatch, harm, file, killed):
    options = {"farzi_pool_models": 2, "farzi_pool_snapshots": [1, 2], "epochs": 2}
    first = build(**options)
    models, snapshots = first.models, first.snapshots
    (place,) = (tmp_path / "pool").glob("pool-*")
    HARMS[harm](place / file)
    if killed:
        (place / "pool.json").unlink()
        (place / "model1.json").unlink()
    trained, fit = [], WindowTrainer.fit

    def counted(self, *args, **kwargs):
        trained.append(self.state_file.name)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(WindowTrainer, "fit", counted)
    second = build(**options)
    assert trained == ["model0.state.pt"] + ["model1.state.pt"] * killed
    assert all(same(one, other) for one, other in zip(models, second.models, strict=True))
    assert all(same(one, other) for one, other in zip(snapshots, second.snapshots, strict=True))
    assert build(**options).reused


@pytest.mark.parametrize("file", ["model0.state.pt", "model0-epoch1.pt"])
@pytest.mark.parametrize("harm", ["gone", "empty", "half"])
def test_a_training_that_cannot_go_on_begins_anew(build, tmp_path, monkeypatch, harm, file):
    """Killed in the first model's third epoch, of which a file is harmed before the next start."""
    options = {"farzi_pool_snapshots": [1, 2, 3], "epochs": 3}
    first = build(seed=7, **options)
    with monkeypatch.context() as patch:
        train = WindowTrainer._train_epoch

        def killed(self, train_data, epoch, *args, **kwargs):
            patch.setattr(type(self._pace), "due", True)
            if epoch == 2:
                raise KeyboardInterrupt
            return train(self, train_data, epoch, *args, **kwargs)

        patch.setattr(WindowTrainer, "_train_epoch", killed)
        shutil.rmtree(tmp_path / "pool")
        with pytest.raises(KeyboardInterrupt):
            build(seed=7, **options)
    (path,) = (tmp_path / "pool").glob(f"pool-*/{file}")
    HARMS[harm](path)
    second = build(seed=7, **options)
    assert same(first.models[0], second.models[0])
    assert all(same(one, other) for one, other in zip(first.snapshots, second.snapshots, strict=True))


def test_a_pool_without_its_manifest_is_not_finished(build, tmp_path):
    build()
    (manifest,) = (tmp_path / "pool").glob("pool-*/pool.json")
    manifest.unlink()
    assert not build().reused


def test_snapshots_are_taken_without_validation_too(build):
    assert len(build(farzi_pool_snapshots=[1, 2, 3], epochs=3, eval_step=3).snapshots) == 3


def test_editing_the_model_rebuilds(build, tmp_path, monkeypatch):
    """A model of one's own: the pool depends on its source, not on its name."""
    monkeypatch.syspath_prepend(tmp_path)
    source = "from recbole.model.sequential_recommender import SASRec\n\n\nclass Mine(SASRec):\n    scale = {}\n"
    for name, scale in (("mine_a", 1), ("mine_b", 2)):
        (tmp_path / f"{name}.py").write_text(source.format(scale))
    size = {"n_layers": 1, "n_heads": 2, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1, "hidden_act": "gelu"}
    size |= {"layer_norm_eps": 1e-12, "initializer_range": 0.02}
    assert not build(model="mine_a:Mine", **size).reused
    assert build(model="mine_a:Mine", **size).reused
    assert not build(model="mine_b:Mine", **size).reused
