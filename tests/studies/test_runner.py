"""Studies from the command line: a tiny version of those that come with the plugin."""

import csv
import json

import pytest

from recbole_farzi.run import main
from recbole_farzi.studies import study_names

pytest.importorskip("optuna", reason="studies are an extra")


@pytest.fixture
def arguments(workplace, tiny_dataset, tiny_options):
    def make(study, *more, **overrides):
        kept = {k: v for k, v in tiny_options.items() if k not in ("farzi_latent_dim", "farzi_contenders")}
        options = {**kept, "data_path": tiny_dataset, "farzi_seeds": 1, "epochs": 2, **overrides}
        options = {k: v for k, v in options.items() if k not in _varied(study)}
        return ["--study", study, "-d", "tiny", "--budget", "tiny", *more, *(f"--{k}={v}" for k, v in options.items())]

    return make


def _varied(study):
    from recbole.model.sequential_recommender import SASRec

    from recbole_farzi.studies import load_study

    return {name for point in load_study(study, SASRec).points for name in (*point.options, *point.tune)}


def read(folder, name):
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("study", [name for name in study_names() if name != "unroll"])
def test_a_tiny_version_of_each_study(arguments, workplace, study):
    assert main(arguments(study)) == 0
    (folder,) = (workplace / "report").glob(f"*-SASRec-{study}")
    results = json.loads((folder / "study.json").read_text())
    assert results["done"] == results["total"] > 0
    trials = read(folder, "trials.csv")
    assert all(row["state"] in ("done", "failed") for row in trials)
    assert all(float(row["valid_crossentropy"]) > 0 for row in trials if row["state"] == "done")
    observed = read(folder, "test.csv")
    assert {row["contender"] for row in observed} >= {"summary", "start", "full data"}
    intervals = [row for row in read(folder, "points.csv") if row["contender"] == "summary"]
    assert intervals and all(float(row["low"]) <= float(row["mean"]) <= float(row["high"]) for row in intervals)
    assert "plotly" in (folder / "figure.html").read_text().lower()
    assert results["title"] in (folder / "study.md").read_text()
