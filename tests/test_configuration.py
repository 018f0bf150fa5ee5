"""Options from files and overrides to RecBole's Config: who wins, what is refused, and in which words."""

import os
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from recbole.config import Config

from recbole_farzi import configuration
from recbole_farzi.configuration import build_config, parse_overrides, properties_directory
from recbole_farzi.errors import DataError, ModelError, OptionError
from recbole_farzi.experiment import places
from recbole_farzi.options import read_options

THIRD_PARTY = """
    import torch
    from recbole.model.abstract_recommender import SequentialRecommender


    class Walker(SequentialRecommender):
        def __init__(self, config, dataset):
            super().__init__(config, dataset)
            self.table = torch.nn.Embedding(self.n_items, config["walker_width"])
            self.slow = "walker_slow" in config and config["walker_slow"]
"""


@pytest.fixture
def write_yaml(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    (tmp_path / "walker_models.py").write_text(textwrap.dedent(THIRD_PARTY), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "walker_models:Walker"
    sys.modules.pop("walker_models", None)


def one_line(caught):
    message = str(caught.value)
    assert message and "\n" not in message
    return message


# --- which value wins -------------------------------------------------------------------------------------------------


@pytest.fixture
def layered(tmp_path, monkeypatch, workplace):
    """A copy of the plugin's properties in which each layer sets what those below it set too."""
    own = tmp_path / "properties"
    (own / "model").mkdir(parents=True)
    (own / "dataset").mkdir()
    farzi = (properties_directory() / "farzi.yaml").read_text(encoding="utf-8")
    (own / "farzi.yaml").write_text(
        farzi + "\nseed: 1\nweight_decay: 0.1\ntrain_batch_size: 1\nhidden_size: 1\nn_layers: 1\nn_heads: 1\n",
        encoding="utf-8",
    )
    (own / "model" / "SASRec.yaml").write_text(
        "weight_decay: 0.2\ntrain_batch_size: 2\nhidden_size: 2\nn_layers: 2\nn_heads: 2\n"
    )
    (own / "dataset" / "tiny.yaml").write_text("train_batch_size: 3\nhidden_size: 3\nn_layers: 3\nn_heads: 3\n")
    monkeypatch.setattr(configuration, "properties_directory", lambda: own)


def test_later_layers_win(layered, write_yaml):
    first = write_yaml("hidden_size: 4\nn_layers: 4\nn_heads: 4\n", "first.yaml")
    second = write_yaml("n_layers: 5\nn_heads: 5\n", "second.yaml")
    config, _ = build_config("SASRec", "tiny", [first, second], {"n_heads": 6})
    names = ("seed", "weight_decay", "train_batch_size", "hidden_size", "n_layers", "n_heads")
    assert [config[name] for name in names] == [1, 0.2, 3, 4, 5, 6]
    assert config["inner_size"] == 256  # RecBole's own properties/model/SASRec.yaml, which nobody overrides


def test_layers_of_another_model_or_dataset_do_not_apply(layered):
    config, _ = build_config("GRU4Rec", "other")
    assert (config["weight_decay"], config["train_batch_size"]) == (0.1, 1)


def test_model_and_dataset_come_from_arguments_then_files_then_defaults(workplace, write_yaml):
    file = write_yaml("model: GRU4Rec\ndataset: fromfile\n")

    def chosen(*args, **kwargs):
        config, model_class = build_config(*args, **kwargs)
        assert config["model"] == model_class.__name__
        return config["model"], config["dataset"]

    assert chosen() == ("SASRec", "ml-100k")
    assert chosen(config_files=[file]) == ("GRU4Rec", "fromfile")
    assert chosen(config_files=[file], overrides={"dataset": "given"}) == ("GRU4Rec", "given")
    assert chosen("SASRec", "mine", [file], {"dataset": "given"}) == ("SASRec", "mine")


def test_recboles_lists_and_numbers_in_files_are_read_as_recbole_reads_them(workplace, write_yaml):
    file = write_yaml("learning_rate: 1e-3\ntopk: 7\nvalid_metric: Hit@7\n")
    config, _ = build_config("SASRec", "tiny", [file])
    assert config["learning_rate"] == 0.001  # plain YAML 1.1 reads a text
    assert config["topk"] == [7]


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["3", "-3", "0.5", "1e-3", "True", "true", "False", "false", "None", "SASRec", "[1, 2]", "['a','b']", "(1,2)",
     "{'a': 1}", "'quoted'", "a b", "data/here", "../up", "Hit@10", "1.2.3", "", "[1", "full", "é"],
)  # fmt: skip
def test_values_parse_like_recboles(text):
    recbole = Config._convert_config_dict(None, {"key": text})["key"]
    ours = parse_overrides([f"--key={text}"])["key"]
    assert ours == recbole and type(ours) is type(recbole)


@pytest.mark.parametrize("text", ["null", "~", "none"])
def test_yaml_words_for_nothing_are_understood_too(text):
    assert parse_overrides([f"--key={text}"]) == {"key": None}


def test_a_value_may_hold_an_equals_sign():
    assert parse_overrides(["--data_path=a=b"]) == {"data_path": "a=b"}


@pytest.mark.parametrize("argument", ["--epochs", "epochs=3", "-e=3", "--=3", "stray", ""])
def test_other_arguments_are_refused_by_name(argument):
    with pytest.raises(OptionError) as caught:
        parse_overrides([argument])
    assert repr(argument) in one_line(caught)


def test_an_option_given_twice_must_agree():
    assert parse_overrides(["--epochs=3", "--epochs=3"]) == {"epochs": 3}
    with pytest.raises(OptionError, match="epochs is given twice: 3 and 4"):
        parse_overrides(["--epochs=3", "--epochs=4"])


def test_a_path_may_begin_with_the_home_directory(workplace, write_yaml, monkeypatch):
    """Shells leave ~ as it is in --key=~/value, and so do files."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(workplace / "home"))
    file = write_yaml("checkpoint_dir: ~/saved\nfarzi_report_path: reports/~x")
    config, model_class = build_config("SASRec", "mine", [file], {"data_path": "~/datasets"})
    assert Path(config["data_path"]) == workplace / "home/datasets/mine"
    assert Path(config["checkpoint_dir"]) == workplace / "home/saved"
    beside_the_data, report = places(config, read_options(config), model_class)
    assert beside_the_data == workplace / "home/datasets/mine-farzi" and report == Path("reports/~x/mine-SASRec")


@pytest.mark.parametrize("value", ["exit()", "open('made', 'w')", "__import__('os').mkdir('made')"])
def test_values_are_never_run_as_code(workplace, value):
    """RecBole evaluates every text in its config dict as Python."""
    config, _ = build_config("SASRec", "tiny", overrides={"checkpoint_dir": value})
    assert config["checkpoint_dir"] == value
    assert not (workplace / "made").exists()


def test_texts_in_a_python_dict_are_read_like_the_command_lines(workplace):
    overrides = {"epochs": "3", "topk": "[5]", "valid_metric": "NDCG@5", "data_path": "1/2"}
    config, _ = build_config("SASRec", "tiny", overrides=overrides)
    assert (config["epochs"], config["topk"]) == (3, [5])
    assert config.external_config_dict["data_path"] == "1/2"  # a path, not a half


def test_the_hosts_command_line_is_neither_read_nor_changed(workplace, monkeypatch):
    argv = ["host.py", "--epochs=77", "--verbose", "--seed=1=2"]
    monkeypatch.setattr(sys, "argv", argv)
    config, _ = build_config("SASRec", "tiny", overrides={"seed": 5})
    assert config["epochs"] != 77 and config["seed"] == 5
    assert sys.argv is argv and argv == ["host.py", "--epochs=77", "--verbose", "--seed=1=2"]
    with pytest.raises(OptionError):
        build_config("SASRec", "tiny", overrides={"topk": 0})
    assert sys.argv is argv


def test_the_callers_dict_is_left_alone(workplace):
    overrides = {"model": "GRU4Rec", "dataset": "tiny", "epochs": "3"}
    build_config(overrides=overrides)
    assert overrides == {"model": "GRU4Rec", "dataset": "tiny", "epochs": "3"}


# --- misspelt options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, right",
    [("farzi_sequence", "farzi_sequences"), ("learing_rate", "learning_rate"), ("farzi_inner_betta", "farzi_inner_betas"),
     ("MAX_ITEM_LIST_LEN", "MAX_ITEM_LIST_LENGTH"), ("hiden_size", "hidden_size")],
)  # fmt: skip
def test_a_misspelt_option_is_refused_and_the_right_one_named(workplace, write_yaml, wrong, right):
    with pytest.raises(OptionError) as caught:
        build_config("SASRec", "tiny", overrides={wrong: 1})
    assert one_line(caught) == f"unknown option {wrong} in the command line; did you mean {right}?"
    file = write_yaml(f"{wrong}: 1\n")
    with pytest.raises(OptionError) as caught:
        build_config("SASRec", "tiny", [file])
    assert one_line(caught) == f"unknown option {wrong} in {file}; did you mean {right}?"


def test_an_option_like_no_other_is_refused_without_a_guess(workplace):
    with pytest.raises(OptionError, match="unknown option zzqqxx in the command line; see properties/farzi.yaml"):
        build_config("SASRec", "tiny", overrides={"zzqqxx": 1})


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec", "BERT4Rec", "NARM", "STAMP", "Caser", "FPMC", "CORE"])
def test_options_in_recboles_own_property_files_are_known(workplace, model):
    import recbole
    import yaml

    path = f"{recbole.__path__[0]}/properties/model/{model}.yaml"
    with open(path, encoding="utf-8") as file:
        options = yaml.safe_load(file)
    config, _ = build_config(model, "tiny", [path], {"loss_type": "CE", "train_neg_sample_args": None})
    assert set(options) <= set(config.file_config_dict)


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["BPR", "LightGCN", "Pop", "FM", "KGAT"])
def test_models_that_read_no_sequences_are_refused(workplace, model):
    with pytest.raises(ModelError, match=f"{model} is no sequential recommender"):
        build_config(model, "tiny")


@pytest.mark.parametrize("model", ["NoSuch", "sasrec", "SASRec ", "os", "a.b", "../SASRec", "recbole.model"])
def test_unknown_models_are_refused(workplace, model):
    with pytest.raises(ModelError) as caught:
        build_config(model, "tiny")
    assert f"no model named {model!r}" in one_line(caught)


@pytest.mark.parametrize("model", ["nosuch_package:Model", "json:NoSuch", ":Model", "json:", "..json:Model", ":"])
def test_classes_that_cannot_be_imported_are_refused(workplace, model):
    with pytest.raises(ModelError) as caught:
        build_config(model, "tiny")
    assert f"cannot import model {model}" in one_line(caught)


@pytest.mark.parametrize("model", ["json:loads", "json:JSONDecoder"])
def test_imported_things_that_are_no_model_are_refused(workplace, model):
    with pytest.raises(ModelError, match="is no sequential recommender"):
        build_config(model, "tiny")


@pytest.mark.parametrize(
    "content", ["def broken(:\n", "1 / 0\n", "raise SystemError('two\\nlines')\n", "import sys\nsys.exit(3)\n"]
)
def test_a_module_that_fails_when_imported_is_one_line(workplace, monkeypatch, content):
    (workplace / "broken_models.py").write_text(content)
    monkeypatch.syspath_prepend(workplace)
    with pytest.raises(ModelError) as caught:
        build_config("broken_models:Model", "tiny")
    assert "cannot import model broken_models:Model" in one_line(caught)


def test_a_model_that_is_no_name_is_refused(workplace, write_yaml):
    with pytest.raises(ModelError) as caught:
        build_config(dataset="tiny", config_files=[write_yaml("model: 5\n")])
    assert "5" in one_line(caught)


def test_a_model_of_ones_own_brings_its_own_options(workplace, third_party):
    config, model_class = build_config(third_party, "tiny", overrides={"walker_width": 4, "walker_slow": True})
    assert model_class.__name__ == "Walker" and config["model"] == "Walker"
    assert (config["walker_width"], config["walker_slow"]) == (4, True)
    with pytest.raises(OptionError, match="unknown option walker_widht in the command line; did you mean walker_width?"):
        build_config(third_party, "tiny", overrides={"walker_widht": 4})
    with pytest.raises(OptionError, match="unknown option walker_width"):
        build_config("SASRec", "tiny", overrides={"walker_width": 4})


def test_a_class_may_be_given_itself(workplace, third_party):
    _, by_name = build_config(third_party, "tiny")
    config, model_class = build_config(by_name, "tiny", overrides={"walker_width": 4})
    assert model_class is by_name and config["walker_width"] == 4


# --- property files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, why",
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "must hold lines of 'option: value'"),
        ("just words\n", "must hold lines of 'option: value'"),
        ("epochs: [1, 2\n", "is not valid YAML"),
        ("epochs: 1\n  seed: 2\n", "is not valid YAML"),
        ("a:\n\tepochs: 1\n", "is not valid YAML"),
        ("epochs: !!python/object/apply:os.mkdir [made]\n", "is not valid YAML"),
        ("epochs: 2001-99-99\n", "is not valid YAML"),
        ("epochs: " + "9" * 5000 + "\n", "is not valid YAML"),
        ("epochs: " + "[" * 5000 + "\n", "is not valid YAML"),
        ("epochs: \0\n", "is not valid YAML"),
    ],
)
def test_broken_property_files_are_refused_by_name(workplace, write_yaml, content, why):
    file = write_yaml(content)
    with pytest.raises(OptionError) as caught:
        build_config("SASRec", "tiny", [file])
    assert one_line(caught).startswith(f"property file {file} {why}")
    assert not (workplace / "made").exists()


def test_property_files_of_another_encoding_are_refused(workplace):
    (workplace / "latin.yaml").write_bytes("data_path: données\n".encode("latin-1"))
    with pytest.raises(OptionError, match="latin.yaml is not valid YAML"):
        build_config("SASRec", "tiny", ["latin.yaml"])


def test_a_missing_property_file_is_named(workplace):
    with pytest.raises(OptionError, match="cannot read property file nosuch.yaml: No such file"):
        build_config("SASRec", "tiny", ["nosuch.yaml"])
    with pytest.raises(OptionError, match="cannot read property file .*: Is a directory"):
        build_config("SASRec", "tiny", [workplace])


def test_a_property_file_of_a_gigabyte_is_not_read_to_its_end(workplace):
    """A file with a hole: NUL bytes that take no room on the disk."""
    with open(workplace / "huge.yaml", "wb") as file:
        file.truncate(2**30)
    with pytest.raises(OptionError, match="property file huge.yaml is longer than 262,144 characters"):
        build_config("SASRec", "tiny", ["huge.yaml"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_what_can_be_read_once_is_no_property_file(workplace):
    """A pipe that nobody writes to: opening it would wait for ever."""
    os.mkfifo(workplace / "pipe.yaml")
    for name in ("pipe.yaml", os.devnull):
        with pytest.raises(OptionError, match=f"property file {name} is no plain file"):
            build_config("SASRec", "tiny", [name])


# --- datasets, RecBole's own refusals, device -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "/absolute", "..", ".", ".hidden", "a\\b", "a b", "-d", "a\nb", "a\0b", "~", 5, ["a"]]
)
def test_dataset_names_that_lead_elsewhere_are_refused(workplace, name):
    with pytest.raises(DataError) as caught:
        build_config("SASRec", name)
    assert "must be a plain name" in one_line(caught)


@pytest.mark.parametrize("name", ["ml-1m", "Amazon_Books", "yelp2018", "a.b", "tiny-farzi", "数据"])
def test_plain_dataset_names_pass(workplace, name):
    assert build_config("SASRec", name)[0]["dataset"] == name


@pytest.mark.parametrize(
    "options, word",
    [
        ({"valid_metric": "Recall@10"}, "valid_metric=Recall@10"),
        ({"valid_metric": "Hit@50"}, "valid_metric=Hit@50"),
        ({"valid_metric": "Hit"}, "valid_metric=Hit"),
        ({"metrics": ["GAUC"], "valid_metric": "GAUC@10"}, "valid_metric=GAUC@10"),
        ({"topk": [5], "valid_metric": "NDCG@10"}, "valid_metric=NDCG@10"),
        ({"metrics": ["NDCG"]}, "valid_metric=CrossEntropy"),
    ],
)
def test_selecting_by_a_metric_that_is_not_evaluated_is_refused(workplace, options, word):
    with pytest.raises(OptionError) as caught:
        build_config("SASRec", "tiny", overrides=options)
    assert word in one_line(caught) and "options metrics and topk" in str(caught.value)


@pytest.mark.parametrize("metric", ["NDCG@10", "ndcg@10", "CrossEntropy", "crossentropy", "Hit@100"])
def test_selecting_by_any_evaluated_metric_is_accepted(workplace, metric):
    config, _ = build_config("SASRec", "tiny", overrides={"valid_metric": metric})
    assert config["valid_metric_bigger"] == ("entropy" not in metric.lower())


def test_selecting_by_a_metric_without_cutoff_is_accepted(workplace):
    config, _ = build_config("SASRec", "tiny", overrides={"metrics": ["GAUC"], "valid_metric": "GAUC"})
    assert config["valid_metric_bigger"]


@pytest.mark.parametrize(
    "options",
    [
        {"topk": 0},
        {"topk": ["a"]},
        {"topk": "many"},
        {"metrics": ["NoSuchMetric"]},
        {"metrics": []},
        {"metrics": [5]},
        {"metrics": 5},
        {"metrics": ["NDCG", "RMSE"]},
        {"valid_metric": 5},
        {"valid_metric": None},
        {"repeatable": False},
        {"eval_args": 5},
        {"eval_args": {"mode": "sideways"}},
        {"eval_args": {"mode": ["full"]}},
        {"eval_args": {"mode": {"valid": 3}}},
        {"train_neg_sample_args": 5},
        {"train_neg_sample_args": {"distribution": "uniform"}},
        {"data_path": 5},
        {"data_path": None},
    ],
    ids=str,
)
def test_what_recbole_refuses_becomes_one_line(workplace, options):
    with pytest.raises(OptionError) as caught:
        build_config("SASRec", "tiny", overrides=options)
    assert one_line(caught).startswith("RecBole refuses these options: ")


def test_use_gpu_false_means_the_cpu(workplace, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert build_config("SASRec", "tiny")[0]["device"].type == "cuda"
    assert build_config("SASRec", "tiny", overrides={"use_gpu": False})[0]["device"].type == "cpu"
