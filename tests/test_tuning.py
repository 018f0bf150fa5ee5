"""What is chosen on validation, and that nothing else is looked at."""

import pytest

from recbole_farzi import tuning
from recbole_farzi.data import load_split
from recbole_farzi.errors import DivergenceError
from recbole_farzi.inspection import inspect_model
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import read_options
from recbole_farzi.results import read_run, write_run
from recbole_farzi.starts import random_start


@pytest.fixture
def prepared(make_config):
    """Function from options to the arguments of :func:`tuning.on_full_data`."""

    def prepare(**overrides):
        config, model_class = make_config("GRU4Rec", epochs=2, **overrides)
        split, options = load_split(config), read_options(config)
        factory = ModelFactory(model_class, config, split.train.dataset)
        return config, options, split, factory, inspect_model(factory(1), config)

    return prepare


def test_rates_and_the_recipe_are_candidates(prepared):
    given = prepared(farzi_student_learning_rates=[0.02, 0.001], learning_rate=0.5)
    full = tuning.on_full_data(*given)
    assert [(c.way, c.learning_rate, c.experiment.config["learning_rate"]) for c in full] == [
        ("0.001", 0.001, 0.001),
        ("0.02", 0.02, 0.02),
    ]
    summary = random_start(4, 11, 3, given[2].vocabulary, 1.0, seed=0)
    soft = tuning.on_summary(*given, summary, given[1].inner)
    assert [(c.way, c.contender.key) for c in soft] == [
        ("recipe", "summary"),
        ("0.001", "summary-passes"),
        ("0.02", "summary-passes"),
    ]
    assert given[0]["learning_rate"] == 0.5  # the job's own options are as they were


@pytest.mark.parametrize("metric, best", [("CrossEntropy", "0.02"), ("NDCG@10", "0.001")])
def test_the_best_on_validation_is_chosen_whatever_test_says(prepared, monkeypatch, metric, best):
    candidates = tuning.on_full_data(*prepared(farzi_student_learning_rates=[0.001, 0.02], valid_metric=metric))
    for candidate, valid, test in zip(candidates, (3.0, 2.0), (0.0, 9.0) if metric == "NDCG@10" else (9.0, 0.0)):
        def runs(contender, seeds=None, candidate=candidate, valid=valid):
            (run,) = type(candidate.experiment).runs(candidate.experiment, contender, seeds or contender.seeds[:1])
            return [run._replace(valid=valid, evaluation=run.evaluation._replace(metrics={metric.lower(): test}))]

        monkeypatch.setattr(candidate.experiment, "runs", runs)
    found, chosen = tuning.tuned_runs(candidates, "GRU4Rec on full data")
    assert chosen["way"] == best
    assert [tried["valid"] for tried in chosen["tried"]] == [3.0, 2.0]
    assert chosen["seconds"] == pytest.approx(sum(tried["seconds"] for tried in chosen["tried"]))


def test_a_rate_that_diverges_is_not_chosen(prepared):
    candidates = tuning.on_full_data(*prepared(farzi_student_learning_rates=[0.01, 1e30]))
    found, chosen = tuning.tuned_runs(candidates, "GRU4Rec on full data")
    assert chosen["way"] == "0.01" and chosen["tried"][1]["valid"] is None
    assert [run.seed for run in found] == list(candidates[0].contender.seeds)
    with pytest.raises(DivergenceError, match="GRU4Rec on full data: .* give smaller farzi_student_learning_rates"):
        tuning.choose([candidates[1], candidates[1]], "GRU4Rec on full data")


def test_runs_of_candidates_keep_their_validation(prepared, tmp_path):
    (candidate, _) = tuning.on_full_data(*prepared())
    (run,) = candidate.experiment.runs(candidate.contender, candidate.contender.seeds[:1])
    assert run.valid > 0 and run.epochs in (1, 2)
    write_run(tmp_path / "run.npz", run)
    back = read_run(tmp_path / "run.npz")
    assert (back.valid, back.epochs, back.seconds) == (run.valid, run.epochs, run.seconds)
    (again,) = candidate.experiment.runs(candidate.contender, candidate.contender.seeds[:1])
    assert again.seconds == run.seconds  # read back, not trained again
