"""RecBole on today's stack: every patch is needed where it is made, does what it says, and is absent elsewhere."""

import os
import pickle
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from recbole_farzi import compat
from recbole_farzi.errors import StorageError

compat.apply()

import recbole.data.dataset.dataset as dataset_module  # noqa: E402
import recbole.data.dataset.sequential_dataset as sequential_dataset_module  # noqa: E402
import recbole.trainer.trainer as trainer_module  # noqa: E402
from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.data.interaction import Interaction  # noqa: E402
from recbole.model.sequential_recommender import GRU4Rec, SASRec  # noqa: E402
from recbole.trainer import Trainer  # noqa: E402
from recbole.utils import ModelType, init_seed  # noqa: E402

PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3
TORCH_2_6 = torch.__version__ >= (2, 6)


# --- a dataset with something missing in every type of column --------------------------------------------------------

INTER = """user_id:token\titem_id:token\trating:float\ttimestamp:float\tdevice:token\ttags:token_seq
u1\ti1\t5\t1\tphone\ta b
u1\ti2\t\t2\t\t
u1\ti3\t3\t3\ttv\tc
u1\ti4\t1\t4\ttv\ta
u2\ti1\t4\t1\tphone\tb c
u2\ti3\t2\t2\tphone\ta
u2\ti2\t1\t3\ttv\td
u2\ti4\t5\t4\t\t
\ti4\t5\t9\ttv\ta
"""
ITEM = """item_id:token\tgenre:token\tyear:float\twords:token_seq\tvector:float_seq
i1\tdrama\t2000\tx y z\t0.5 1.5
i2\t\t\t\t
i3\tcomedy\t2002\ty\t2.5
i5\tdrama\t2010\tz\t3.5 4.5
"""
USER = """user_id:token\tage:float\tjob:token
u1\t30\twriter
u2\t\t
"""


def write_dataset(folder, **files):
    folder = folder / "tiny"
    folder.mkdir()
    for suffix, text in files.items():
        (folder / f"tiny.{suffix.replace('_', '.')}").write_text(text)
    return folder.parent


def make_config(data_path, model="GRU4Rec", **settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["test"])  # RecBole reads the command line of whoever builds a Config
        return Config(
            model=model,
            dataset="tiny",
            config_dict={
                "data_path": str(data_path),
                "checkpoint_dir": str(data_path / "saved"),
                "load_col": None,
                "filter_inter_by_user_or_item": False,
                "train_neg_sample_args": None,
                "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
                "metrics": ["NDCG", "Hit"],
                "valid_metric": "NDCG@3",
                "topk": [3],
                "embedding_size": 4,
                "hidden_size": 4,
                "inner_size": 4,
                "n_heads": 1,
                "n_layers": 1,
                "num_layers": 1,
                "MAX_ITEM_LIST_LENGTH": 3,
                "loss_type": "CE",
                "dropout_prob": 0.0,
                "hidden_dropout_prob": 0.0,
                "attn_dropout_prob": 0.0,
                "hidden_act": "gelu",
                "layer_norm_eps": 1e-12,
                "initializer_range": 0.02,
                "epochs": 1,
                "stopping_step": 1,
                "learner": "adam",
                "gpu_id": "",
                "show_progress": False,
                **settings,
            },
        )


@pytest.fixture
def incomplete(tmp_path):
    return write_dataset(tmp_path, inter=INTER, item=ITEM, user=USER)


def test_missing_values_are_filled_as_recbole_documents(incomplete):
    dataset = create_dataset(make_config(incomplete, model="BPR", eval_args={"order": "TO"}))
    inter, item, user = dataset.inter_feat, dataset.item_feat, dataset.user_feat
    assert not any(frame[c].isna().any() for frame in (inter, item, user) for c in frame)
    assert len(inter) == 8  # the row without a user is dropped, not read as a user called "" or "nan"
    assert dataset.user_num == 3 and dataset.item_num == 6
    for field in dataset.token_like_fields:
        assert not {"", "nan", "None"} & set(map(str, dataset.field2id_token[field])), field

    assert dataset.id2token("device", inter["device"].astype(int).values).tolist() == (
        ["phone", "[PAD]", "tv", "tv", "phone", "phone", "tv", "[PAD]"]
    )
    assert inter["rating"].tolist() == [5, 3, 3, 1, 4, 2, 1, 5]  # 3 is the mean of the others
    assert [dataset.id2token("tags", ids).tolist() for ids in inter["tags"]] == (
        [["a", "b"], [], ["c"], ["a"], ["b", "c"], ["a"], ["d"], []]
    )

    i = {token: row for row, token in enumerate(dataset.field2id_token["item_id"])}
    assert dataset.id2token("genre", item["genre"].astype(int).values).tolist() == [
        {i["i1"]: "drama", i["i3"]: "comedy", i["i5"]: "drama"}.get(row, "[PAD]") for row in range(6)
    ]
    assert item["year"].tolist() == [
        {i["i1"]: 2000, i["i3"]: 2002, i["i5"]: 2010}.get(row, 2004) for row in range(6)
    ]
    assert [len(words) for words in item["words"]] == [
        {i["i1"]: 3, i["i3"]: 1, i["i5"]: 1}.get(row, 0) for row in range(6)
    ]
    assert [list(vector) for vector in item["vector"]] == [
        {i["i1"]: [0.5, 1.5], i["i3"]: [2.5], i["i5"]: [3.5, 4.5]}.get(row, []) for row in range(6)
    ]
    assert user["age"].tolist() == [30, 30, 30]
    assert dataset.id2token("job", user["job"].astype(int).values).tolist() == ["[PAD]", "writer", "[PAD]"]


def test_missing_values_reach_the_model_as_numbers(incomplete):
    config = make_config(incomplete)
    train, valid, test = data_preparation(config, create_dataset(config))
    for data in (train, valid, test):
        feats = data.dataset if hasattr(data, "dataset") else data._dataset
        for feat in (feats.inter_feat, feats.item_feat, feats.user_feat):
            for field, values in feat.interaction.items():
                assert torch.isfinite(values.float()).all(), field
                assert (values >= 0).all(), field


@pytest.mark.skipif(not PANDAS_3, reason="pandas before 3 fills them")
def test_without_the_patch_missing_values_stay(incomplete, monkeypatch):
    monkeypatch.setattr(dataset_module.Dataset, "_fill_nan", dataset_module.Dataset._fill_nan.__wrapped__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = create_dataset(make_config(incomplete, model="BPR", eval_args={"order": "TO"}))
        assert dataset.inter_feat["rating"].isna().any() and dataset.item_feat["genre"].isna().any()
        monkeypatch.setattr(dataset_module, "pd", pd)
        with pytest.raises(AttributeError, match="split"):
            create_dataset(make_config(incomplete, model="BPR", eval_args={"order": "TO"}))


@pytest.mark.skipif(not PANDAS_3, reason="Series.agg(len) is that of each element before pandas 3")
def test_without_the_patch_sequences_cannot_be_read(incomplete, monkeypatch):
    monkeypatch.delattr(dataset_module, "len")
    with pytest.raises(ValueError):
        create_dataset(make_config(incomplete, model="BPR", eval_args={"order": "TO"}))


def test_normalised_and_discretised_sequences_keep_their_lengths(incomplete):
    config = make_config(
        incomplete,
        model="FM",
        eval_args={"order": "RO", "mode": "labeled"},
        load_col={"inter": ["user_id", "item_id", "rating"], "item": ["item_id", "vector"]},
        normalize_field=["vector"],
        numerical_features=["vector"],
        discretization={"vector": {"method": "ED", "bucket": 4}},
        threshold={"rating": 3},
        train_neg_sample_args={"distribution": "uniform", "sample_num": 1},
        metrics=["AUC"],
        valid_metric="AUC",
    )
    item = create_dataset(config).item_feat
    assert [len(index) for _, index in item["vector"]] == [0, 2, 0, 1, 0, 2]
    assert np.concatenate([index for _, index in item["vector"]]).tolist() == [1, 1, 2, 3, 4]


def test_benchmark_files_of_sequences(tmp_path, monkeypatch):
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    folder = write_dataset(
        tmp_path,
        train_inter=head + "u1\ti1\ti2\nu1\ti1 i2\ti3\nu2\ti3\ti1\n",
        valid_inter=head + "u1\ti1 i2 i3\ti4\n",
        test_inter=head + "u2\ti3 i1\ti4\n",
    )
    settings = {"benchmark_filename": ["train", "valid", "test"], "alias_of_item_id": ["item_id_list"]}
    dataset = create_dataset(make_config(folder, **settings))
    assert dataset.inter_feat[dataset.item_list_length_field].tolist() == [1, 2, 1, 3, 2]
    assert [dataset.id2token("item_id", ids).tolist() for ids in dataset.inter_feat["item_id_list"]] == (
        [["i1"], ["i1", "i2"], ["i3"], ["i1", "i2", "i3"], ["i3", "i1"]]
    )
    assert [len(part) for part in dataset.build()] == [3, 1, 1]
    if PANDAS_3:
        monkeypatch.delattr(sequential_dataset_module, "len")
        wrong = create_dataset(make_config(folder, **settings))
        assert wrong.inter_feat[wrong.item_list_length_field].tolist() == [5] * 5  # and no error


# --- NumPy -----------------------------------------------------------------------------------------------------------


def test_config_needs_the_numpy_names_that_are_gone(incomplete, monkeypatch):
    gone = [name for name in ("float_", "complex_", "unicode_") if f"numpy.{name}" in compat.patched()]
    assert bool(gone) == (int(np.__version__.split(".")[0]) >= 2)
    for name in gone:
        monkeypatch.delattr(np, name)
    if gone:
        with pytest.raises(AttributeError, match="removed"):
            make_config(incomplete)
        compat._restore_numpy_names()
    make_config(incomplete)
    assert np.float_ is np.float64 and np.dtype(np.float) == np.float64


def test_interactions_need_no_config(monkeypatch):
    monkeypatch.delattr(np, "float", raising=False)
    with pytest.raises(AttributeError):
        Interaction({"x": np.array([1.0, 2.0])})
    compat._restore_numpy_names()
    assert Interaction({"x": np.array([1.0, 2.0])})["x"].tolist() == [1.0, 2.0]


def test_existing_numpy_names_are_left_alone(monkeypatch):
    for name in compat._NUMPY_NAMES:
        monkeypatch.setattr(np, name, name, raising=False)
    before = compat.patched()
    compat._restore_numpy_names()
    assert all(getattr(np, name) == name for name in compat._NUMPY_NAMES)
    assert compat.patched() == before


# --- SciPy -----------------------------------------------------------------------------------------------------------


def test_graphs_are_built(monkeypatch):
    matrix = scipy.sparse.dok_matrix((2, 3), dtype=np.float32)
    matrix._update({(0, 1): 1, (1, 2): 2})
    assert matrix.toarray().tolist() == [[0, 1, 0], [0, 0, 2]]
    if "scipy.sparse.dok_matrix._update" in compat.patched():
        monkeypatch.delattr(scipy.sparse.dok_matrix, "_update")
        assert not hasattr(scipy.sparse.dok_matrix((2, 3)), "_update")


# --- checkpoints -----------------------------------------------------------------------------------------------------


class OwnModel(GRU4Rec):
    """A user's model: RecBole knows it by nothing but the class that its Config was given."""


class KeepsMore(SASRec):
    """A model that keeps a layer, an array and a sparse matrix beside its weights, as FDSA, EASE and ItemKNN do."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.array = np.arange(3.0)
        self.matrix = scipy.sparse.csr_matrix(np.eye(2))
        self.lists = scipy.sparse.lil_matrix(np.eye(2))
        self.dense = np.asmatrix(np.eye(2))
        self.other_parameter_name = ["LayerNorm", "array", "matrix", "lists", "dense"]


@pytest.fixture
def trained(incomplete):
    return train(incomplete, GRU4Rec)


def train(folder, model_class):
    known = model_class in (GRU4Rec, SASRec)
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    config = make_config(folder, model=model_class.__name__ if known else model_class, load_col=columns)
    if not known:
        config["MODEL_TYPE"] = ModelType.SEQUENTIAL
    init_seed(config["seed"], True)
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    trainer = Trainer(config, model_class(config, train_data.dataset).to(config["device"]))
    trainer.fit(train_data, valid_data, saved=True, verbose=False)
    return trainer, test_data, config


def same_state(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("model_class", [GRU4Rec, OwnModel, KeepsMore])
def test_best_model_is_loaded_and_training_resumed(incomplete, model_class):
    trainer, test_data, config = train(incomplete, model_class)
    with pytest.MonkeyPatch.context() as patch:
        # the trainer's weights are spoilt: what is evaluated must come from the file
        kept = {k: v.clone() for k, v in trainer.model.state_dict().items()}
        for parameter in trainer.model.parameters():
            parameter.data.fill_(7.0)
        result = trainer.evaluate(test_data, load_best_model=True)
        assert result["ndcg@3"] >= 0 and same_state(trainer.model.state_dict(), kept)
        patch.setattr(trainer, "start_epoch", 0)
        trainer.resume_checkpoint(trainer.saved_model_file)
        assert trainer.start_epoch == 1
    if model_class is KeepsMore:
        trainer.model.array = trainer.model.matrix = trainer.model.lists = trainer.model.dense = None
        trainer.evaluate(test_data, load_best_model=True)
        assert trainer.model.array.tolist() == [0, 1, 2]
        assert (trainer.model.matrix.toarray() == np.eye(2)).all()
        assert (trainer.model.lists.toarray() == np.eye(2)).all()
        assert isinstance(trainer.model.dense, np.matrix)


@pytest.mark.skipif(not TORCH_2_6, reason="torch.load trusts every file before PyTorch 2.6")
def test_without_the_patch_the_best_model_cannot_be_loaded(trained, monkeypatch):
    trainer, test_data, config = trained
    monkeypatch.setattr(trainer_module, "torch", torch)
    trainer._save_checkpoint(0, verbose=False)
    with pytest.raises(pickle.UnpicklingError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.evaluate(test_data, load_best_model=True)


@pytest.mark.skipif(not TORCH_2_6, reason="RecBole's checkpoints are its own before PyTorch 2.6")
def test_checkpoints_need_no_trust_in_another_process(trained):
    trainer, test_data, config = trained
    # A process that knows no model: what quick_start.load_data_and_model does, without Ray.
    code = (
        "import sys, torch; from recbole_farzi import compat; compat.apply(); import recbole.config;"
        "state = torch.load(sys.argv[1], weights_only=True);"
        "print(state['config']['model'], state['config']['MODEL_TYPE'].name, len(state['state_dict']))"
    )
    done = run_python(code, trainer.saved_model_file)
    assert done.stdout.split() == ["GRU4Rec", "SEQUENTIAL", str(len(trainer.model.state_dict()))], done.stderr


def test_a_checkpoint_of_plain_recbole_is_read_without_trust(incomplete, tmp_path):
    trainer, test_data, config = train(incomplete, OwnModel)
    path = tmp_path / "plain.pth"
    state = {
        "config": config,
        "epoch": 3,
        "cur_step": 0,
        "best_valid_score": np.float64(0.25),
        "state_dict": trainer.model.state_dict(),
        "other_parameter": {"array": np.arange(3), "matrix": scipy.sparse.csr_matrix(np.eye(2))},
        "optimizer": trainer.optimizer.state_dict(),
    }
    torch.save(state, path, pickle_protocol=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=True)
    read = compat.load_checkpoint(path)
    assert type(read["config"]) is Config
    assert {k: v for k, v in vars(read["config"]).items()} == {
        k: v for k, v in vars(config).items() if k not in ("model_class", "yaml_loader")
    }
    assert same_state(read["state_dict"], state["state_dict"])
    assert read["best_valid_score"] == 0.25 and read["other_parameter"]["array"].tolist() == [0, 1, 2]
    assert (read["other_parameter"]["matrix"].toarray() == np.eye(2)).all()
    trainer.optimizer.load_state_dict(read["optimizer"])
    if TORCH_2_6:
        trainer.resume_checkpoint(path)
        assert trainer.start_epoch == 4
        torch.save(read, tmp_path / "converted.pth")
        assert torch.load(tmp_path / "converted.pth", weights_only=True)["epoch"] == 3


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_checkpoint_cannot_run_code(tmp_path, protocol):
    victim = tmp_path / "victim"
    victim.mkdir()
    attacks = {
        "call": Calls(os.rmdir, str(victim)),
        "eval": Calls(eval, "__import__('os').rmdir(%r)" % str(victim)),
        "attribute": Calls(getattr, Config, "__init__"),
        "constructor": Calls(GRU4Rec, {}, None),
        # Config's constructor evaluates the strings that it is given.
        "config": Calls(Config, "BPR", "tiny", None, {"x": "__import__('os').rmdir(%r)" % str(victim)}),
    }
    for name, attack in attacks.items():
        path = tmp_path / f"{name}.pth"
        torch.save({"config": attack, "state_dict": {}}, path, pickle_protocol=protocol)
        with pytest.raises(StorageError, match="can be read safely"):
            compat.load_checkpoint(path)
        with pytest.raises(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(path, weights_only=True)
        assert victim.exists(), name


def test_a_checkpoint_cannot_change_what_it_names(tmp_path):
    reader = compat._restricted_pickle().Unpickler

    def find(module, name):
        return reader(open(os.devnull, "rb")).find_class(module, name)

    real = compat._recbole_globals()
    for path, value in {**real, "collections.OrderedDict": None, "torch.device": None, "os.system": None}.items():
        module, _, name = path.rpartition(".")
        named = find(module, name)
        try:
            named.planted = 1
        except TypeError:
            continue  # immutable
        assert named is not value and not hasattr(value, "planted"), path
    with pytest.raises(pickle.UnpicklingError):
        find("os", "system")("true")
    with pytest.raises(pickle.UnpicklingError):
        find("recbole.config.configurator", "Config.__init__.__globals__")()


def test_files_that_are_no_checkpoints_are_refused(tmp_path, trained):
    good = open(trained[0].saved_model_file, "rb").read()
    scripted = tmp_path / "scripted.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(1, 1)).save(str(scripted))
    torch.save({"epoch": 1}, tmp_path / "other.pth")
    pickled = pickle.dumps({"state_dict": {}})
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("hello", "world")
    for name, content in {
        "scripted.pth": None,
        "other.pth": None,
        "zip.pth": None,
        "empty.pth": b"",
        "text.pth": b"hello",
        "pickle.pth": pickled,
        "truncated.pth": good[: len(good) // 2],
    }.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        if name == "other.pth":
            continue  # PyTorch reads it: it is the reader's to say what it lacks
        with pytest.raises(StorageError) as caught:
            compat.load_checkpoint(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(FileNotFoundError):
        compat.load_checkpoint(tmp_path / "absent.pth")


def test_torch_load_is_as_it_was():
    assert torch.load.__module__ == "torch.serialization"
    assert trainer_module.torch.nn is torch.nn
    if not TORCH_2_6:
        assert trainer_module.torch is torch


# --- anomaly detection -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [False, True])
def test_importing_a_model_does_not_turn_anomaly_detection_on(before):
    """In a fresh process; what the user had set stays."""
    code = (
        "import torch, recbole_farzi\n"
        f"torch.autograd.set_detect_anomaly({before})\n"
        "import recbole.model.sequential_recommender\n"
        "print(torch.is_anomaly_enabled())"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(before), done.stderr


def test_plain_recbole_turns_anomaly_detection_on():
    code = (
        "import numpy as np\n"
        "for name in ('float_', 'complex_', 'unicode_'):\n"
        "    name in np.__dict__ or setattr(np, name, float)\n"
        "import torch, recbole.model.sequential_recommender\n"
        "print(torch.is_anomaly_enabled())"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr  # RecBole mended it: the repair can go


# --- apply -----------------------------------------------------------------------------------------------------------


def test_only_what_is_broken_is_patched():
    # The modules concerned have all been imported above.
    done = set(compat.patched())
    assert ("recbole Dataset: missing values" in done) == PANDAS_3
    assert any(what.endswith("lengths of sequences") for what in done) == PANDAS_3
    loading = {"torch safe globals", "recbole Trainer: checkpoints"}
    assert loading & done == (loading if TORCH_2_6 else set())
    assert isinstance(dataset_module.pd, compat._Overlay) == PANDAS_3
    if int(np.__version__.split(".")[0]) < 2:
        assert not {"numpy.float_", "numpy.complex_", "numpy.unicode_", "numpy.bool8"} & done


def test_a_sound_stack_is_left_alone(monkeypatch):
    monkeypatch.setattr(compat, "_patched", [])
    monkeypatch.setattr(compat, "_chained_fillna_is_lost", lambda: False)
    monkeypatch.setattr(compat, "_agg_len_is_of_the_column", lambda: False)
    monkeypatch.setattr(compat, "_load_is_weights_only", lambda: False)
    for name, patch in compat._ON_IMPORT.items():
        if name in sys.modules:
            patch(sys.modules[name])
    assert compat.patched() == ()


def test_apply_twice_is_apply_once():
    before = compat.patched()
    hooks = [finder for finder in sys.meta_path if isinstance(finder, compat._ImportHook)]
    fill_nan = dataset_module.Dataset._fill_nan
    assert compat.apply() == before == compat.apply()
    assert [finder for finder in sys.meta_path if isinstance(finder, compat._ImportHook)] == hooks
    assert len(hooks) == 1 and dataset_module.Dataset._fill_nan is fill_nan


def test_apply_imports_nothing_heavy_and_works_after_recbole_too():
    code = (
        "import sys, importlib.util as u;"
        "spec = u.spec_from_file_location('recbole_farzi.compat', sys.argv[1]);"
        "compat = u.module_from_spec(spec); spec.loader.exec_module(compat); compat.apply();"
        "print(*sorted({'torch', 'pandas', 'scipy', 'recbole'} & set(sys.modules)))"
    )
    # Loaded by its path, so that what the package itself imports does not count; its errors module is all it needs.
    done = run_python("import types, sys; p = types.ModuleType('recbole_farzi'); p.__path__ = [sys.argv[2]];"
                      "sys.modules['recbole_farzi'] = p;" + code, compat.__file__, os.path.dirname(compat.__file__))
    assert done.returncode == 0 and done.stdout.split() == [], done.stdout + done.stderr


def test_absent_recbole_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(compat.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install") as caught:
        compat.apply()
    assert "\n" not in str(caught.value)


def run_python(code, *args):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, env=environment, timeout=120
    )
