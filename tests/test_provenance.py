"""What a stage depends on: all that changes its result and nothing else."""

import json
import logging
import platform
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import recbole
import torch

from recbole_farzi.emission import load_summary
from recbole_farzi.provenance import Identity, command_line, environment, settings
from recbole_farzi.run import run_farzi


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
        "farzi_inner_weight_decay", "farzi_inner_dropout", "farzi_inner_decay", "farzi_inner_optimizer",
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


def test_a_run_is_traced_from_its_summary_alone(workplace, tiny_dataset, tiny_options, caplog):
    """Log, files, recipe and results name the same run, which is what the recipe's own entries amount to."""
    options = {**tiny_options, "state": "INFO", "farzi_contenders": ["summary"], "farzi_seeds": 1, "seed": 11, "data_path": str(tiny_dataset)}
    with caplog.at_level(logging.INFO):
        out = run_farzi("SASRec", "tiny", config_dict=options)
    _, _, recipe = load_summary(out["summary_path"])
    run = recipe["run"]
    assert Identity.of_recipe(recipe).fingerprint == run["fingerprint"]
    assert out["results"]["run"] == run == json.loads((out["report_path"] / "results.json").read_text())["run"]
    assert (workplace / "saved" / "farzi" / f"distillation-{run['fingerprint']}.pt").is_file()
    assert run["data_sha256"] == recipe["source"]["training_histories_sha256"] and run["seed"] == 11
    said = [line for line in caplog.messages if f"{run['fingerprint']}, seed 11; SASRec on tiny" in line]
    assert len(said) == 1
    versions = {"torch": torch, "numpy": np, "pandas": pd, "recbole": recbole}
    for part in (run["data_sha256"][:12], f"python {platform.python_version()}", f"cpu, {torch.get_num_threads()} thread(s)",
                 *(f"{name} {module.__version__}" for name, module in versions.items())):  # fmt: skip
        assert part in said[0], part
    assert run["fingerprint"] in (out["report_path"] / "report.md").read_text()


@pytest.mark.parametrize("change", [{"seed": 12}, {"farzi_inner_steps": 7}, {"hidden_size": 16}])
def test_another_run_has_another_fingerprint(make_config, change):
    (config, model_class), (other, _) = make_config(), make_config(**change)
    one = Identity.of(config, model_class, "0" * 64, None)
    assert Identity.of(make_config()[0], model_class, "0" * 64, None).fingerprint == one.fingerprint
    assert Identity.of(other, model_class, "0" * 64, None).fingerprint != one.fingerprint
    assert Identity.of(config, model_class, "1" * 64, None).fingerprint != one.fingerprint


def test_what_is_done_with_a_summary_is_no_part_of_its_run(make_config):
    (config, model_class), (other, _) = make_config(), make_config(farzi_seeds=5, farzi_contenders=["summary"])
    assert Identity.of(config, model_class, "", None) == Identity.of(other, model_class, "", None)


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--seed=7", "--seed=7"),
        ("--farzi_contenders=['full','start']", "\"--farzi_contenders=['full','start']\""),
        ("--data_path=my data", "'--data_path=my data'"),
        ("--a=it's $HOME", "'--a=it'\"'\"'s $HOME'"),
    ],
)
def test_the_recorded_command_is_what_a_shell_reads_back(argument, shown, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/run_farzi.py", "-d", "ml-100k", argument])
    assert command_line() == f"python run_farzi.py -d ml-100k {shown}"
    assert subprocess.check_output(["bash", "-c", f"printf %s {shown}"], text=True, env={"HOME": "/nowhere"}) == argument
