"""The benchmark of outer steps: that it runs."""

import importlib.util
from pathlib import Path

import pytest


@pytest.mark.parametrize("what", ["loss", "step"])
def test_it_measures(monkeypatch, workplace, what):
    spec = importlib.util.spec_from_file_location("outer_step", Path(__file__).parents[2] / "benchmarks" / "outer_step.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VOCABULARY", 200)
    assert module.measure(what, 16)["seconds"] > 0
