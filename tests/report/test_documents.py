"""Terminal, Markdown, CSV and JSON."""

import csv
import io
import json
import math

import pandas as pd

from recbole_farzi.report import terminal_table
from recbole_farzi.report.aggregate import aggregate
from recbole_farzi.report.documents import COLUMNS, csv_document, json_document, markdown_document

from .invented import invented


def test_csv_gives_every_number_back_exactly():
    results = invented()
    lines = list(csv.DictReader(io.StringIO(csv_document(aggregate(results)))))
    assert tuple(lines[0]) == COLUMNS
    read = {tuple(line[name] for name in COLUMNS[:4] + ("metric",)): float(line["value"]) for line in lines}
    expected = {}
    for contender in results["contenders"]:
        for run in contender["runs"]:
            seed = "" if run["seed"] is None else str(run["seed"])
            for metric in results["metrics"]:
                expected[contender["key"], seed, "all", "", metric] = run["metrics"][metric]
                for kind, strata in results["strata"].items():
                    for stratum, values in zip(strata, run["strata"][kind]):
                        expected[contender["key"], seed, kind, stratum["label"], metric] = values[metric]
    assert read == expected
    assert len(lines) == len(expected)


def test_csv_is_tidy_for_pandas():
    frame = pd.read_csv(io.StringIO(csv_document(aggregate(invented()))))
    means = frame[frame.group == "all"].groupby(["contender", "metric"]).value.mean()
    report = aggregate(invented())
    assert math.isclose(means["summary", "hit@10"], report.value(report.find("summary"), "hit@10").mean)
    assert frame[frame.group == "all"].rows.unique().tolist() == [943]


def test_csv_leaves_missing_values_empty():
    results = invented(keys=("full",), seeds=1)
    results["contenders"][0]["runs"][0]["strata"]["users"][0] = None
    results["contenders"][0]["runs"][0]["metrics"]["hit@10"] = math.nan
    lines = list(csv.DictReader(io.StringIO(csv_document(aggregate(results)))))
    assert sum(line["value"] == "" for line in lines) == 1 + 5


def test_csv_quotes_labels():
    results = invented(keys=("full",), seeds=1)
    results["strata"]["users"][0]["label"] = 'a, "b"\nc'
    lines = list(csv.DictReader(io.StringIO(csv_document(aggregate(results)))))
    assert {line["stratum"] for line in lines if line["group"] == "users"} >= {'a, "b"\nc'}


def test_json_is_the_results_with_null_for_what_is_not_finite():
    results = invented()
    assert json.loads(json_document(aggregate(results))) == results
    results["contenders"][0]["runs"][0]["metrics"]["hit@10"] = math.inf
    read = json.loads(json_document(aggregate(results)))
    assert read["contenders"][0]["runs"][0]["metrics"]["hit@10"] is None


def test_terminal_table_is_at_most_110_wide_and_complete():
    text = terminal_table(invented())
    assert max(map(len, text.splitlines())) <= 110
    for part in ("HR@10", "users by training events", "items by occurrences", "43 rows (small)", "not tested for significance"):
        assert part in text
    assert "\x1b" not in text


def test_terminal_table_of_many_metrics_and_long_names_keeps_to_the_width():
    metrics = [f"{name}@{k}" for name in ("recall", "precision", "mrr", "itemcoverage") for k in (5, 10, 20, 50, 100)]
    results = invented(metrics=metrics, dataset="a-long-name" * 20)
    for contender in results["contenders"]:
        contender["label"] *= 5
        for run in contender["runs"]:
            run["metrics"] = dict.fromkeys(metrics, 12345.678)
    text = terminal_table(results)
    assert max(map(len, text.splitlines())) <= 110
    assert "item coverage@100" in text


def test_markdown_has_the_numbers_the_command_and_no_markup_of_others():
    text = markdown_document(aggregate(invented(dataset="<script>x</script>")))
    assert "<script" not in text
    assert "    python run_farzi.py -m SASRec -d invented-100k" in text.splitlines()
    assert "| full data | 3 | 0.1" in text
    assert "### cross-entropy, items by occurrences" in text
    assert "training run: the recipe's steps" in text  # an apostrophe is one


def test_markdown_command_stays_in_its_block():
    text = markdown_document(aggregate(invented(command="run\n\n# no heading")))
    assert "    run # no heading" in text.splitlines()
