"""What a stage depends on: all that changes its result and nothing else."""

import json

import pytest

from recbole_farzi.provenance import environment, settings


def everything(config):
    return settings(config, keep=lambda name: True)


@pytest.mark.parametrize(
    "option, value",
    [("seed", 7), ("learning_rate", 0.1), ("hidden_size", 16), ("eval_args", {"order": "TO", "split": {"RS": [8, 1, 1]}}),
     ("user_inter_num_interval", "[7,inf)"), ("farzi_inner_steps", 7), ("topk", [5]), ("MAX_ITEM_LIST_LENGTH", 9)],
)  # fmt: skip
def test_what_changes_a_result_changes_the_settings(make_config, option, value):
    before, after = everything(make_config()[0]), everything(make_config(**{option: value})[0])
    assert {name for name in before if before[name] != after[name]} >= {option}


@pytest.mark.parametrize(
    "option, value",
    [("checkpoint_dir", "elsewhere"), ("show_progress", True), ("state", "INFO"), ("farzi_output_path", "x"),
     ("farzi_report_path", "y"), ("farzi_fresh", True), ("data_path", "moved"), ("gpu_id", "1")],
)  # fmt: skip
def test_where_things_are_and_what_is_shown_does_not(make_config, option, value):
    assert everything(make_config()[0]) == everything(make_config(**{option: value})[0])


def test_the_models_and_datasets_names_count(make_config):
    base = everything(make_config()[0])
    assert base["model"] == "SASRec" and base["dataset"] == "tiny"
    assert everything(make_config("GRU4Rec")[0]) != base
    assert everything(make_config(dataset="other")[0]) != base


def test_a_stage_says_which_of_the_plugins_options_it_depends_on(make_config):
    chosen = settings(make_config()[0], keep=lambda name: name.startswith("farzi_inner_"))
    assert {name for name in chosen if name.startswith("farzi_")} == {
        "farzi_inner_steps", "farzi_inner_batch_size", "farzi_inner_learning_rate", "farzi_inner_betas", "farzi_inner_eps",
        "farzi_inner_weight_decay", "farzi_inner_dropout", "farzi_inner_decay",
    }  # fmt: skip
    assert chosen["learning_rate"] == 0.003


def test_settings_and_environment_are_plain_and_in_order(make_config):
    config, _ = make_config()
    chosen = everything(config)
    assert json.loads(json.dumps(chosen)) == chosen and list(chosen) == sorted(chosen)
    found = environment(config["device"])
    assert json.loads(json.dumps(found)) == found
    assert found["device"] == "cpu" and {"torch", "numpy", "pandas", "recbole", "recbole_farzi", "python"} <= set(found)


def test_settings_are_the_same_in_every_process(make_config):
    """No addresses, no order of sets: a text is what it says."""
    assert not [value for value in everything(make_config()[0]).values() if isinstance(value, str) and " at 0x" in value]
