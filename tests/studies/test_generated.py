"""Generated data: its known answer against counting, its files, and what it refuses."""

import numpy as np
import pytest

from recbole_farzi.errors import OptionError
from recbole_farzi.studies.generated import generate, known_answer, make


def test_probabilities_are_those_that_generate():
    """Observed transitions of many users against p(v | u): the chi-square statistic per cell is about 1."""
    histories, truth = generate({"users": 20_000, "items": 8, "length": 6, "noise": 0.4, "branches": 2})
    p = truth.probabilities(np.arange(8))
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    counts = np.zeros((8, 8))
    np.add.at(counts, (histories[:, :3].ravel(), histories[:, 1:4].ravel()), 1)
    expected = counts.sum(axis=1, keepdims=True) * p
    assert ((counts - expected) ** 2 / expected).mean() < 2.0


def test_the_known_answer_at_its_ends(tmp_path):
    """No noise and one successor: all is certain. Noise alone over like items: log V, and k of V hits."""
    options = make({"noise": 0.0, "branches": 1, "items": 50}, tmp_path)
    found = known_answer(tmp_path / options["dataset"], [1, 10])
    assert found["crossentropy"] == pytest.approx(0.0, abs=1e-12) and found["hit@1"] == found["ndcg@10"] == 1.0
    options = make({"noise": 1.0, "zipf": 0.0, "items": 50}, tmp_path)
    found = known_answer(tmp_path / options["dataset"], [10])
    assert found["crossentropy"] == pytest.approx(np.log(50)) and found["hit@10"] == pytest.approx(0.2)


def test_drift_changes_the_held_out_steps_alone():
    _, truth = generate({"drift": 1.0, "items": 100})
    assert (truth.before != truth.after).mean() > 0.5
    assert np.array_equal(generate({"items": 100})[1].after, generate({"items": 100})[1].before)


def test_duplicates_are_copies():
    histories, _ = generate({"duplicates": 0.5, "users": 100})
    assert len(np.unique(histories, axis=0)) <= 50


def test_files_are_made_once_and_hold_the_whole_vocabulary(tmp_path):
    options = make({"items": 1000, "users": 20, "length": 5}, tmp_path)
    folder = tmp_path / options["dataset"]
    assert len((folder / f"{options['dataset']}.item").read_text().splitlines()) == 1001
    lines = (folder / f"{options['dataset']}.inter").read_text().splitlines()
    assert len(lines) == 101 and lines[0].split("\t")[2] == "timestamp:float"
    before = (folder / f"{options['dataset']}.inter").stat().st_mtime_ns
    assert make({"items": 1000, "users": 20, "length": 5}, tmp_path) == options
    assert (folder / f"{options['dataset']}.inter").stat().st_mtime_ns == before


@pytest.mark.parametrize("spec", [{"noise": 1.5}, {"users": 1.5}, {"length": 3}, {"zipf": -1}, {"nonsense": 1}, {"items": True}])
def test_senseless_data_is_refused(spec):
    with pytest.raises(OptionError, match=next(iter(spec))):
        generate(spec)
