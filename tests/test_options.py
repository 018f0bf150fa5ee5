"""The plugin's options: each is read, documented where it is set, and refused by name where it makes no sense."""

import dataclasses
import re
import sys

import pytest
import yaml

from recbole_farzi.configuration import check_known, known_options, properties_directory
from recbole_farzi.errors import OptionError
from recbole_farzi.models import resolve_model
from recbole_farzi.options import option_names, read_options

FILES = sorted(f for f in properties_directory().rglob("*.yaml") if f.parent.name != "studies")
FARZI = (properties_directory() / "farzi.yaml").read_text(encoding="utf-8")


def refused(make_config, **options):
    with pytest.raises(OptionError) as caught:
        read_options(make_config(**options)[0])
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- property files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, ranks",
    [
        ({}, (16, 24, 32)),
        ({"farzi_sequences": 2, "farzi_length": 10, "farzi_inner_batch_size": 2}, (16,)),  # 20 events: 24 would make any
        ({"farzi_sequences": 3, "farzi_length": 10}, (16, 24)),
        ({"farzi_start": "spectral"}, (16,)),
        ({"farzi_latent_dim": 5}, (5,)),
    ],
)
def test_ranks_of_which_the_start_chooses(make_config, options, ranks):
    assert read_options(make_config(**{"farzi_latent_dim": None, **options})[0]).summary.latent_dims == ranks


def test_every_option_is_in_the_property_file_and_every_one_there_is_an_option():
    assert option_names() == {name for name in yaml.safe_load(FARZI) if name.startswith("farzi_")}


@pytest.mark.parametrize("name", sorted(option_names()))
def test_every_option_is_read(make_config, name):
    """Without it nothing goes on, or what it may be left out for is stated as its default."""
    config, _ = make_config()
    del config.final_config_dict[name]
    if yaml.safe_load(FARZI)[name] is None:
        assert read_options(config) == read_options(make_config(**{name: None})[0])
    else:
        with pytest.raises(OptionError, match=f"option {name} is not set"):
            read_options(config)


def test_every_option_line_has_a_comment_with_its_type():
    lines = [line for line in FARZI.splitlines() if re.match(r"\w+:", line)]
    assert len(lines) == len(yaml.safe_load(FARZI))
    for line, following in zip(FARZI.splitlines(), [*FARZI.splitlines()[1:], ""]):
        if re.match(r"\w+:", line):
            assert re.search(r"# \((int|float|str|list|bool|dict)\) [A-Z\"*]|# \(\w+\) \w+:", line), line


def test_types_in_the_comments_are_those_of_the_values():
    types = {"int": int, "float": float, "str": str, "list": list, "bool": bool, "dict": dict}
    values = yaml.safe_load(FARZI)
    for line in FARZI.splitlines():
        match = re.match(r"(\w+):.*# \((\w+)\)", line)
        if match and values[match[1]] is not None:
            assert type(values[match[1]]) is types[match[2]], line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_property_files_holdknown_options_only(path):
    model = path.stem if path.parent.name == "model" else "SASRec"
    check_known(yaml.safe_load(path.read_text(encoding="utf-8")), known_options(resolve_model(model)), path.name)


@pytest.mark.parametrize("path", [f for f in FILES if f.parent.name not in ("model", "dataset")], ids=lambda path: path.stem)
def test_property_files_are_sensible_as_they_are(workplace, path):
    from recbole_farzi.configuration import build_config

    read_options(build_config(config_files=[path])[0])


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_options_are_read_into_their_places(make_config):
    options = read_options(make_config(farzi_inner_betas=[0.5, 0], farzi_pool_snapshots=[4, 1, 4], farzi_temperature=2)[0])
    assert (options.summary.sequences, options.summary.length, options.summary.latent_dim) == (4, 11, 3)
    assert options.inner.betas == (0.5, 0.0)
    assert options.pool.snapshots == (1, 4)
    assert options.summary.temperature == 2.0 and isinstance(options.summary.temperature, float)
    assert (options.output.output_path, options.output.report_path) == (None, "report")
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.inner.steps = 7


@pytest.mark.parametrize("length", [3, 11])
def test_a_summary_may_be_as_long_as_the_model_reads_and_its_target(make_config, length):
    assert read_options(make_config(farzi_length=length)[0]).summary.length == length


# --- senseless values -------------------------------------------------------------------------------------------------

WHOLE = {
    "farzi_sequences": 1, "farzi_length": 3, "farzi_latent_dim": 1, "farzi_inner_steps": 1, "farzi_inner_batch_size": 1,
    "farzi_start_draws": 1,
    "farzi_start_covering": 0, "farzi_start_singles": 0,
    "farzi_outer_steps": 0, "farzi_outer_batch_size": 1, "farzi_window": 1, "farzi_trajectories": 1,
    "farzi_checkpoint_every": -1, "farzi_outer_block": 1, "farzi_eval_step": 1, "farzi_eval_students": 1,
    "farzi_stopping_step": 1, "farzi_student_steps": 1, "farzi_student_eval_step": 1, "farzi_pool_models": 1, "farzi_seeds": 1,
    "farzi_pool_teachers": 1, "farzi_hard_samples": 0,
    "epochs": 1, "train_batch_size": 1, "eval_batch_size": 1, "eval_step": 1, "stopping_step": 0, "seed": 0,
    "metric_decimal_place": 0, "MAX_ITEM_LIST_LENGTH": 2,
}  # fmt: skip
ABOVE_ZERO = ["farzi_temperature", "farzi_inner_learning_rate", "farzi_inner_eps", "farzi_outer_learning_rate",
              "farzi_outer_clip_norm", "learning_rate"]  # fmt: skip
NOT_NEGATIVE = ["farzi_own_item", "farzi_inner_weight_decay", "farzi_inner_decay", "farzi_outer_teacher", "farzi_outer_generated", "farzi_outer_average",
                "farzi_pretrained", "farzi_window_from",
                "weight_decay"]  # fmt: skip
OPTIONAL = {"farzi_latent_dim", "farzi_length", "farzi_outer_block", "farzi_output_path", "farzi_pool_teachers", "farzi_start_singles", "farzi_tucker_ranks"}
YES_NO = ["farzi_inner_dropout", "farzi_fresh", "farzi_pool_chain", "show_progress"]
LISTS = ["farzi_inner_betas", "farzi_pool_snapshots", "farzi_student_learning_rates", "farzi_tucker_ranks"]
ELSEWHERE = ["farzi_contenders", "farzi_user_strata", "farzi_item_strata", "farzi_report_metrics"]
OF_SOME = ["farzi_start", "farzi_inputs", "farzi_inner_optimizer", "farzi_bits", "farzi_unroll", "farzi_kernels", "farzi_full_data",
           "farzi_positions", "farzi_objective", "farzi_factorisation"]  # fmt: skip
TEXTS = ["farzi_report_path", "farzi_output_path", "checkpoint_dir"]


def test_all_options_are_tried_here():
    tried = {*WHOLE, *ABOVE_ZERO, *NOT_NEGATIVE, *YES_NO, *OF_SOME, *LISTS, *TEXTS, *ELSEWHERE}
    assert option_names() <= tried


@pytest.mark.parametrize("name, least", WHOLE.items())
def test_whole_numbers_below_the_least_are_refused_and_the_least_is_not(make_config, name, least):
    assert f"{name}={least - 1}" in (message := refused(make_config, **{name: least - 1})) and f"at least {least}" in message
    try:
        read_options(make_config(**{name: least})[0])
    except OptionError as error:  # it may be too little for another option, but is no senseless value
        assert f"option {name}=" not in str(error)


@pytest.mark.parametrize("value", [2.5, 3.0, "many", True, [3], {"a": 1}], ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_other_values_than_whole_numbers_are_refused(make_config, name, value):
    assert f"option {name}={value!r} must be a whole number" in refused(make_config, **{name: value})


@pytest.mark.parametrize("value", [0, -1, -1e-9])
@pytest.mark.parametrize("name", ABOVE_ZERO)
def test_numbers_that_are_not_above_zero_are_refused(make_config, name, value):
    assert f"option {name}={value!r} must be a number above 0" in refused(make_config, **{name: value})


@pytest.mark.parametrize("name", NOT_NEGATIVE)
def test_negative_numbers_are_refused(make_config, name):
    assert f"option {name}=-0.1 must be a number of at least 0" in refused(make_config, **{name: -0.1})


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 10**400, "fast", True, [0.1]], ids=lambda v: str(v)[:5]
)
@pytest.mark.parametrize("name", ABOVE_ZERO + NOT_NEGATIVE)
def test_other_values_than_numbers_are_refused(make_config, name, value):
    assert f"option {name}={value!r} must be a number" in refused(make_config, **{name: value})


def test_a_share_above_one_is_refused(make_config):
    assert "farzi_pretrained=1.1 must be a number of at least 0 and at most 1" in refused(make_config, farzi_pretrained=1.1)


@pytest.mark.parametrize("value", [1, 0, "yes", "", [True]], ids=repr)
@pytest.mark.parametrize("name", YES_NO)
def test_other_values_than_true_and_false_are_refused(make_config, name, value):
    assert f"option {name}={value!r} must be True or False" in refused(make_config, **{name: value})


@pytest.mark.parametrize("value", ["Teacher", "best", 1, ["teacher"]], ids=repr)
@pytest.mark.parametrize("name", OF_SOME)
def test_other_values_than_the_choices_are_refused(make_config, name, value):
    assert f"option {name}={value!r} must be one of" in refused(make_config, **{name: value})


@pytest.mark.parametrize("value", [0.9, [0.9], [0.9, 0.99, 0.999], [1.0, 0.9], [-0.1, 0.9], ["a", "b"], [True, 0.9], "fast",
                                   [float("nan"), 0.9]], ids=repr)  # fmt: skip
def test_senseless_betas_are_refused(make_config, value):
    assert f"farzi_inner_betas={value!r} must be two numbers" in refused(make_config, farzi_inner_betas=value)


@pytest.mark.parametrize("value", [3, [-1], [1.5], ["a"], [True], {"a": 1}, "1 2"], ids=repr)
def test_senseless_snapshots_are_refused(make_config, value):
    assert f"farzi_pool_snapshots={value!r} must be a list" in refused(make_config, farzi_pool_snapshots=value)


@pytest.mark.parametrize("value", [0.01, "fast", [0.01, 0.0], [-1], [True], ["a"], [float("nan")], [float("inf")]], ids=repr)
def test_senseless_learning_rates_of_students_are_refused(make_config, value):
    message = refused(make_config, farzi_student_learning_rates=value)
    assert f"farzi_student_learning_rates={value!r} must be a list of numbers above 0" in message


@pytest.mark.parametrize("name", [*ABOVE_ZERO, "weight_decay", "farzi_inner_weight_decay", "farzi_own_item"])
def test_numbers_that_32_bits_do_not_hold_are_refused(make_config, name):
    """PyTorch's Adam raises an error of its own for a learning rate of 1e38, after the data has been read."""
    assert f"option {name}=1e+38 must be a number of at most 1e+30" in refused(make_config, **{name: 1e38})
    assert "must be a list of numbers above 0 and at most 1e+30" in refused(make_config, farzi_student_learning_rates=[0.1, 1e38])


def test_learning_rates_of_students_are_different_numbers_in_order(make_config):
    assert read_options(make_config(farzi_student_learning_rates=[0.1, 1, 0.1])[0]).students.learning_rates == (0.1, 1.0)
    assert read_options(make_config(farzi_student_learning_rates=[])[0]).students.learning_rates == ()


@pytest.mark.parametrize("value", [5, "", "a\0b", ["report"]], ids=repr)
@pytest.mark.parametrize("name", TEXTS)
def test_senseless_paths_are_refused(make_config, name, value):
    assert f"option {name}={value!r} must be a text" in refused(make_config, **{name: value})


@pytest.mark.parametrize("name", sorted(option_names() - OPTIONAL))
def test_options_that_must_be_there_cannot_be_set_to_nothing(make_config, name):
    assert f"option {name} is not set" in refused(make_config, **{name: None})


# --- values that make no sense together -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, words",
    [
        ({"farzi_length": 12}, ["farzi_length=12", "MAX_ITEM_LIST_LENGTH=10", "at most 11"]),
        ({"farzi_inner_batch_size": 5}, ["farzi_inner_batch_size=5", "farzi_sequences=4"]),
        ({"farzi_student_eval_step": 10}, ["farzi_student_eval_step=10", "farzi_student_steps=9"]),
        ({"farzi_window": 7}, ["farzi_window=7", "farzi_inner_steps=6"]),
        ({"farzi_pretrained": 0.5, "farzi_pool_snapshots": []}, ["farzi_pretrained", "farzi_pool_snapshots"]),
        ({"farzi_objective": "gradient", "farzi_unroll": "random"}, ["farzi_unroll=random", "farzi_objective=gradient"]),
        ({"farzi_objective": "gradient", "farzi_unroll": "last"}, ["farzi_unroll=last", "farzi_objective=gradient"]),
        ({"farzi_outer_generated": 0.1, "farzi_outer_batch_size": 4}, ["farzi_outer_generated=0.1", "farzi_outer_batch_size=4"]),
        ({"farzi_objective": "trajectory", "farzi_unroll": "random"}, ["farzi_unroll=random", "farzi_objective=trajectory"]),
        ({"farzi_objective": "trajectory"}, ["farzi_objective=trajectory", "farzi_pool_snapshots=[1]", "two"]),
        ({"farzi_objective": "trajectory", "farzi_pool_snapshots": [2, 50]}, ["farzi_pool_snapshots=[2, 50]", "epochs"]),
        (
            {"farzi_objective": "trajectory", "farzi_pool_snapshots": [0, 1], "farzi_pretrained": 0.5},
            ["farzi_objective=trajectory", "farzi_pretrained"],
        ),
        ({"farzi_tucker_ranks": [2, 2]}, ["farzi_tucker_ranks=[2, 2]", "farzi_factorisation=tucker"]),
        ({"seed": 2**32}, ["seed=4294967296", "at most"]),
        ({"loss_type": "BCE"}, ["loss_type='BCE'", "CE, BPR"]),
        ({"eval_args": {"mode": "uni100"}}, ["eval_args", "uni100", "full"]),
        ({"eval_args": {"mode": {"valid": "full", "test": "pop100"}}}, ["eval_args", "pop100", "full"]),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(make_config, options, words):
    message = refused(make_config, **options)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("value", [3, [2], [2, 3, 4], [0, 3], [5, 3], [4, 12], [2.0, 3], ["a", 3], [True, 3], "2 3"], ids=repr)
def test_senseless_ranks_of_tucker_are_refused(make_config, value):
    message = refused(make_config, farzi_factorisation="tucker", farzi_tucker_ranks=value)
    assert f"farzi_tucker_ranks={value!r} must be two whole numbers from 1 to farzi_sequences=4 and to the 11 events" in message


def test_ranks_of_tucker_are_half_of_the_sizes_if_not_given(make_config):
    def ranks(**options):
        return read_options(make_config(**options)[0]).summary.tucker_ranks

    assert ranks() is None
    assert ranks(farzi_factorisation="tucker") == (2, 6)
    assert ranks(farzi_factorisation="tucker", farzi_tucker_ranks=[4, 11]) == (4, 11)


def test_partly_trained_models_are_not_needed_if_none_are_used(make_config):
    assert read_options(make_config(farzi_pool_snapshots=[])[0]).pool.snapshots == ()


def test_a_logger_that_is_not_installed_is_refused(make_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert refused(make_config, log_wandb=True) == "option log_wandb needs the package wandb, which is not installed"


def test_the_learning_rate_of_the_recipe_falls_at_the_end(make_config):
    rates = read_options(
        make_config(farzi_inner_steps=10, farzi_inner_decay=0.5, farzi_inner_learning_rate=0.1)[0]
    ).inner.rates()
    assert rates == pytest.approx([0.1] * 6 + [0.08, 0.06, 0.04, 0.02])
    constant = read_options(make_config(farzi_inner_steps=3, farzi_window=3, farzi_inner_decay=0.0)[0]).inner
    assert constant.rates() == [constant.learning_rate] * 3
