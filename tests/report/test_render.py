"""The two public functions."""

import json
import subprocess
import sys

import pytest

from recbole_farzi.errors import DataError, StorageError
from recbole_farzi.report import render, render_again, terminal_table

from .invented import invented

NAMES = {"report.html", "report.md", "strata.csv", "comparisons.csv", "results.json"}


def test_render_writes_four_files(tmp_path):
    results = invented()
    paths = render(results, tmp_path / "new" / "folder")
    assert set(paths) == NAMES == {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert json.loads(paths["results.json"].read_text(encoding="utf-8")) == results
    assert paths["report.html"].read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_report_is_made_again_from_its_own_json(tmp_path):
    first = render(invented(), tmp_path / "first")
    second = render(json.loads(first["results.json"].read_text(encoding="utf-8")), tmp_path / "second")
    for name in NAMES:
        assert first[name].read_bytes() == second[name].read_bytes()


@pytest.mark.parametrize(
    "where, value",
    [
        (["distillation"], "<script>"), (["pool"], -1), (["metrics"], 5), (["contenders", 0, "events"], []),
        (["contenders", 1, "bytes"], 10**400), (["strata", "items", 1, "users"], "text"), (["strata", "users", 0, "users"], {"a": 1}),
        (["distillation", "validations", 1, "metrics"], "text"), ([], []), ([], None),
    ],
)  # fmt: skip
def test_results_that_were_changed_by_hand_are_one_line(tmp_path, where, value):
    whole = {"it": invented()}
    part, path = whole, ["it", *where]
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    (tmp_path / "results.json").write_text(json.dumps(whole["it"]), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        render_again(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert {path.name for path in tmp_path.iterdir()} == {"results.json"}


def test_render_writes_through_the_function_given(tmp_path):
    written = {}
    render(invented(), tmp_path / "untouched", write=lambda path, data: written.update({path.name: data}))
    assert set(written) == NAMES and all(isinstance(data, bytes) for data in written.values())
    assert not (tmp_path / "untouched").exists()


def test_results_that_are_refused_leave_no_file(tmp_path):
    with pytest.raises(DataError):
        render(invented(format=99), tmp_path / "out")
    with pytest.raises(DataError):
        terminal_table(invented(format=99))
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        render(invented(), tmp_path / "file")


def test_results_are_not_changed(tmp_path):
    results = invented()
    render(results, tmp_path)
    terminal_table(results)
    assert results == invented()


def test_import_is_light():
    code = (
        "import sys, recbole_farzi; before = set(sys.modules); import recbole_farzi.report; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"plotly", "torch", "recbole", "pandas"} & set(json.loads(loaded.replace("'", '"')))
