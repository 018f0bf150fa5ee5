"""The n-gram reference: probabilities by hand, and that they are probabilities."""

import importlib.util
import math
from pathlib import Path

import pytest

TEXT = [["a", "b"], ["a", "c", "b"], ["b"]]
WORDS = ["a", "b", "c", "d", "<eos>"]


@pytest.fixture(scope="module")
def kneser_ney():
    path = Path(__file__).parents[2] / "benchmarks" / "kneser_ney.py"
    spec = importlib.util.spec_from_file_location("kneser_ney", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.KneserNey


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_after_any_history_sum_to_one(kneser_ney, order):
    model = kneser_ney(TEXT, order, len(WORDS))
    for history in [(), ("<eos>",), ("<eos>", "a"), ("a", "c"), ("d", "d"), ("<eos>", "a", "c", "b")]:
        assert sum(model.probability(word, history) for word in WORDS) == pytest.approx(1.0)
        assert all(model.probability(word, history) > 0 for word in WORDS)


def test_a_bigram_by_hand(kneser_ney):
    """After a: b and c once each. Of the 6 kinds of bigrams, b ends 3 (after a, c and the mark), so P(b) continues so."""
    model = kneser_ney(TEXT, 2, len(WORDS))
    lower = (3 - 0.75) / 6 + 0.75 * 4 / 6 / 5
    assert model.probability("b", ()) == pytest.approx(lower)
    assert model.probability("b", ("a",)) == pytest.approx((1 - 0.75) / 2 + 0.75 * 2 / 2 * lower)
    assert model.probability("b", ("d",)) == pytest.approx(lower)  # nothing was seen after d


def test_perplexity_is_of_each_word_and_each_end(kneser_ney):
    model = kneser_ney(TEXT, 2, len(WORDS))
    logs = [math.log(model.probability(*pair)) for pair in [("a", ("<eos>",)), ("d", ("a",)), ("<eos>", ("d",))]]
    assert model.perplexity([["a", "d"]]) == pytest.approx(math.exp(-sum(logs) / 3))
