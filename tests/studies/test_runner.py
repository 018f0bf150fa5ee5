"""Studies from the command line: a tiny version of each that comes with the plugin, and going on with one."""

import csv
import json
import sys

import pytest

from recbole_farzi.run import main
from recbole_farzi.studies import runner, study_names, trial

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
@pytest.mark.parametrize("study", study_names())
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


def test_an_interrupted_study_goes_on_and_repeats_nothing(arguments, workplace, monkeypatch, capsys):
    """Stopped after the first trial: its figure and CSV are there, and the same command runs the others alone."""
    given = arguments("inner-optimizer")
    original, run = runner.run_trial, []

    def stop_after_one(setting, options, *rest):
        if len(run) == 1:
            raise KeyboardInterrupt
        run.append(options)
        return original(setting, options, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_trial", stop_after_one)
        assert main(given) == 130
    folder = workplace / "report" / "tiny-SASRec-inner-optimizer"
    first = [row for row in read(folder, "trials.csv") if row["state"] == "done"]
    assert len(first) == 1 and (folder / "figure.html").is_file()
    distilled = []
    distil = trial._distil
    monkeypatch.setattr(trial, "_distil", lambda *args: distilled.append(args[1]) or distil(*args))
    assert main(given) == 0
    again = read(folder, "trials.csv")
    assert [row for row in again if row["tuned"] == first[0]["tuned"] and row["final"] == "False"][0] == first[0]
    assert run[0] not in distilled[:1]
    done = len(distilled)
    assert main(given) == 0  # all of it is there
    assert len(distilled) == done
    assert read(folder, "trials.csv") == again
    assert "trials. Table, CSV and figure" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, says",
    [
        (["--farzi_inner_optimizer=sgd"], "option farzi_inner_optimizer is what study inner-optimizer varies; leave it out"),
        (["--jobs", "0"], "--jobs 0 must be a whole number from 1 to 256"),
        (["--jobs", "two"], "--jobs 'two' must be a whole number"),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments, capsys, more, says):
    assert main(arguments("inner-optimizer", *more)) == 1
    assert says in capsys.readouterr().err


def test_studies_that_are_not_there_are_named(arguments, workplace, capsys):
    assert main(["--study", "nonsense", "-d", "ml-100k"]) == 1
    assert "there is no study 'nonsense'; there are" in capsys.readouterr().err
    assert main(["--jobs", "2", "-d", "ml-100k"]) == 1
    assert "--jobs and --budget belong to --study" in capsys.readouterr().err


def test_without_optuna_there_is_one_line(arguments, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(arguments("size")) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("run_farzi: studies need Optuna, which is not installed: pip install")
