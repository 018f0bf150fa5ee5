"""Every sequential recommender that RecBole exports trains on a summary's hard files in plain RecBole.

What a model wants beside events (features of items, a knowledge graph) is the dataset's own, copied beside them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from every_model import exported_models, settings, write_slice

from recbole_farzi.configuration import build_config, properties_directory
from recbole_farzi.data import load_split
from recbole_farzi.emission import emit, plain_properties
from recbole_farzi.starts import random_start

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow

# RecBole draws DIEN a negative for each event of a history where it cuts histories itself, which it does not do
# for benchmark files: the model then asks for a column that is not there, whatever the files hold.
NOT_IN_RECBOLE = {"DIEN": "KeyError: 'neg_item_id_list'"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory, work_in):
    """What plain RecBole made of each model, all in one process: to start one takes longer than to train a model."""
    with work_in(tmp_path_factory.mktemp("plain")) as folder:
        real = write_slice(folder)
        split = load_split(build_config("SASRec", "slice", (), settings("SASRec", real))[0])
        summary = random_start(4, split.sequences.length + 1, 3, split.vocabulary, 1.0, seed=0)
        dataset = split.train.dataset
        target = emit(
            real / "hard", summary, summary.hard(2, 0), dataset.field2id_token[dataset.iid_field],
            {"valid": rows(split.valid), "test": rows(split.test)}, {}, split.sequences.length,
        )  # fmt: skip
        for kind in ("item", "user", "kg", "link", "ent_feature", "rel_feature"):
            (target / f"hard.{kind}").write_bytes((real / "slice" / f"slice.{kind}").read_bytes())
        (folder / "jobs.json").write_text(json.dumps({name: job(name, real, target) for name in exported_models()}))
        done = subprocess.run(
            [sys.executable, str(HERE / "plain_recbole.py"), str(real), "hard", str(folder / "jobs.json")],
            capture_output=True, text=True, timeout=600, cwd=folder,
            env={**os.environ, "PYTHONPATH": str(HERE.parent), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {**json.loads(done.stdout.split("RESULT")[1]), "test_rows": len(split.test.dataset)}


def rows(loader):
    dataset = loader.dataset
    users = dataset.field2id_token[dataset.uid_field]
    columns = (dataset.inter_feat[name].tolist() for name in ("user_id", "item_id_list", "item_length", "item_id"))
    return [(str(users[user]), items[:length], item) for user, items, length, item in zip(*columns)]


def job(name, real, target):
    """The emitted property file, and what the model itself asks for: the plugin's file for it says which columns."""
    own = properties_directory() / "model" / f"{name}.yaml"
    asked = (yaml.safe_load(own.read_text(encoding="utf-8")) or {}) if own.is_file() else {}
    emitted = yaml.safe_load(plain_properties(target).read_text(encoding="utf-8"))
    small = {key: value for key, value in settings(name, real).items() if not key.startswith(("farzi_", "data_path"))}
    options = {**small, **{key: value for key, value in asked.items() if not key.startswith("farzi_")}}
    columns = asked.get("load_col", {})
    options["load_col"] = {"item": ["item_id"], **columns, "inter": emitted["load_col"]["inter"]}
    options |= {"valid_metric": "NDCG@5", "metrics": ["Hit", "NDCG"]}
    return {"files": [str(plain_properties(target))], "options": options}


def test_only_the_plugin_s_repairs_were_imported(plain):
    assert plain["plugin"] == ["recbole_farzi", "recbole_farzi.compat", "recbole_farzi.errors", "recbole_farzi.version"]


@pytest.mark.parametrize("name", exported_models())
def test_plain_recbole_trains_on_the_hard_files(name, plain):
    result = plain["models"][name]
    if name in NOT_IN_RECBOLE:
        assert result == NOT_IN_RECBOLE[name]
        pytest.skip(f"RecBole's own {name} reads no benchmark files: {result}")
    assert isinstance(result, dict), result
    assert result["rows"] == plain["test_rows"] and 0 <= result["hit@5"] <= 1
