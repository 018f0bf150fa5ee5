"""Several models on each other's summaries: the job, its table, and what is refused before it begins."""

import contextlib
import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recbole_farzi import architectures
from recbole_farzi.run import main, run_students


@pytest.fixture
def options(workplace, tiny_dataset, tiny_options):
    return {**tiny_options, "data_path": str(tiny_dataset), "farzi_pool_snapshots": [1], "epochs": 2, "farzi_outer_steps": 2}


def test_models_train_on_each_others_summaries(options, monkeypatch):
    results, folder = run_students(["SASRec", "GRU4Rec"], ["SASRec", "STAMP", "HGN"], "tiny", (), options)
    assert [student["model"] for student in results["students"]] == ["SASRec", "STAMP", "HGN"]
    assert [summary["model"] for summary in results["summaries"]] == ["SASRec", "GRU4Rec"]
    assert len({summary["sha256"] for summary in results["summaries"]}) == 2
    for student in results["students"]:
        assert set(student["on"]) == {"SASRec", "GRU4Rec"}
        assert [len(runs) for runs in (student["full"], *student["on"].values())] == [2, 2, 2]
    text = (folder / "architectures.md").read_text()
    assert text.count("| STAMP |") == len(results["metrics"]) + 3 + 1 and "summary of GRU4Rec" in text
    assert "Trained on a summary" in (folder / "architectures.html").read_text()
    assert json.loads((folder / "architectures.json").read_text())["students"] == json.loads(json.dumps(results["students"]))
    with open(folder / "architectures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3 * 2 * len(results["metrics"])
    assert {row["distilled_by"] for row in rows} == {"", "SASRec", "GRU4Rec"}
    # The same command repeats nothing.
    monkeypatch.setattr("recbole_farzi.contenders.timed_fit", lambda *args: pytest.fail("trained again"))
    again, _ = run_students(["SASRec", "GRU4Rec"], ["SASRec", "STAMP", "HGN"], "tiny", (), options)
    assert again["students"] == results["students"]
    for student in results["students"]:
        assert [tried["way"] for tried in student["chosen"]["full"]["tried"]] == ["0.01", "0.03"]
        for name in ("SASRec", "GRU4Rec"):
            chosen = student["chosen"]["on"][name]
            assert [tried["way"] for tried in chosen["tried"]] == ["recipe", "0.01", "0.03"]
            best = min(chosen["tried"], key=lambda tried: tried["valid"])
            assert best["way"] == chosen["way"] and student["on"][name][0]["valid"] == best["valid"]


def test_without_learning_rates_nothing_is_tried(options):
    results, _ = run_students(["SASRec"], ["STAMP"], "tiny", (), {**options, "farzi_student_learning_rates": [], "farzi_seeds": 1})
    (student,) = results["students"]
    assert student["chosen"]["on"]["SASRec"] == {"way": "recipe", "learning_rate": None, "tried": [], "seconds": 0}
    assert student["chosen"]["full"]["way"] == "0.003" and student["chosen"]["full"]["tried"] == []


def test_every_model_is_checked_before_any_work(options, monkeypatch, capsys):
    monkeypatch.setattr(architectures, "_distil", lambda distiller: pytest.fail("work was begun"))
    arguments = ["-d", "tiny", *(f"--{key}={value}" for key, value in options.items())]
    assert main(["-m", "SASRec", "--students", "SASRec", "NoSuch", *arguments]) == 1
    assert "no model named 'NoSuch'" in capsys.readouterr().err
    assert main(["-m", "SASRec", "--students", "STAMP", "STAMP", *arguments]) == 1
    assert "a model is named twice" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["saved/farzi", "report/tiny-architectures"])
def test_two_at_once_in_one_place(options, monkeypatch, capsys, place):
    """While the first compares, its summaries distilled, the second is refused, which would train the same models."""
    arguments = ["-d", "tiny", "-m", "SASRec", "--students", "STAMP", *(f"--{key}={value}" for key, value in options.items())]
    arguments.append("--farzi_report_path=elsewhere" if place == "saved/farzi" else "--checkpoint_dir=elsewhere")
    seen = []

    def compare(*args):
        with ThreadPoolExecutor() as other:
            seen.append(other.submit(main, arguments).result())
        return {}, Path("report")

    with monkeypatch.context() as patch:
        patch.setattr(architectures, "_compare", compare)
        patch.setattr("recbole_farzi.run.ending_signals", contextlib.nullcontext)  # for the main thread alone
        run_students(["SASRec"], ["STAMP"], "tiny", (), options)
    assert seen == [1] and f"another run is writing in {Path(place).resolve()}" in capsys.readouterr().err


def test_several_models_distil_only_for_students(workplace, capsys):
    assert main(["-m", "SASRec", "GRU4Rec", "-d", "tiny"]) == 1
    assert "several models distil only for --students" in capsys.readouterr().err
