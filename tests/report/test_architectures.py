"""The cross-architecture table and its picture from invented numbers."""

import csv
import io

import numpy as np

from recbole_farzi.report.architectures import csv_document, headline, markdown_document, relative_intervals, relative_table
from recbole_farzi.report.architectures_figure import html_document, relative_figure


def runs(*hits):
    return [
        {"seed": n, "seconds": 2.0, "metrics": {"hit@10": hit, "crossentropy": 6.0 + hit}, "valid": 5.0, "epochs": 3 + n}
        for n, hit in enumerate(hits)
    ]


def tried(way, valid):
    return {"way": way, "learning_rate": None, "valid": valid, "epochs": 1, "seconds": 4.0}


ALONE = {"way": "0.003", "learning_rate": 0.003, "tried": [], "seconds": 0.0}
SEARCHED = {"way": "0.01", "learning_rate": 0.01, "tried": [tried("recipe", 7.0), tried("0.01", 5.0), tried("9", None)], "seconds": 12.0}
RESULTS = {
    "format": 2,
    "dataset": "toy",
    "date": "2026-01-02",
    "command": "python run_farzi.py --students A B",
    "environment": {"device": "cpu", "threads": 1, "torch": "2", "recbole": "1.2.1"},
    "training_events": 1000,
    "test_rows": 1234,
    "valid_metric": "crossentropy",
    "passes": {"steps": 200, "eval_step": 50},
    "metrics": ["hit@10", "crossentropy"],
    "smaller_is_better": ["crossentropy"],
    "summaries": [{"model": "A", "events": 25, "bytes": 2048, "sha256": "x", "outer_steps": 7, "best_step": 5}],
    "students": [
        {
            "model": "A", "reads": "all", "options": {"epochs": 3}, "full": runs(0.2, 0.4), "on": {"A": runs(0.1, 0.2)},
            "relative": {"A": {"hit@10": {"per_cent": [30.0, 70.4], "difference": [-0.2, -0.1]}, "crossentropy": {"per_cent": [1, 2], "difference": [-0.3, 0.004]}}},
            "chosen": {"full": ALONE, "on": {"A": ALONE}},
        },
        {
            "model": "B", "reads": "every prefix", "options": {"epochs": 3}, "full": runs(0.0), "on": {"A": runs(0.1)},
            "relative": {"A": {"hit@10": {"per_cent": [None, None], "difference": [0.0, 0.1]}}},
            "chosen": {"full": ALONE, "on": {"A": SEARCHED}},
        },
        {
            "model": "C", "reads": "every prefix", "options": {"epochs": 4}, "full": runs(0.4), "on": {"A": runs(0.1)}, "relative": {"A": {}},
            "chosen": {"full": ALONE, "on": {"A": SEARCHED}},
        },
    ],
}  # fmt: skip


def test_each_model_is_compared_with_its_own_full_data():
    text = markdown_document(RESULTS)
    assert "| A | 0.3000 ± 0.1414 | 0.1500 ± 0.0707 (50%; 30–70%) |" in text
    assert "| B | 0.0000 | 0.1000 (–) |" in text
    assert "| A | 6.3000 ± 0.1414 | 6.1500 ± 0.0707 (-0.15; -0.30 to +0.00) |" in text
    assert "A's has 25 events (2.5% of the real ones, 2.0 KB), the best on validation of 7 outer steps (step 5)" in text
    assert "RecBole's options of training (A, B): epochs 3." in text and "RecBole's options of training (C): epochs 4." in text
    assert "Made by `python run_farzi.py --students A B` on 2026-01-02" in text


def test_what_was_chosen_and_what_it_took():
    text = markdown_document(RESULTS)
    assert "| A | full data | 0.003, 3–4 epochs | – | 2.0 | – |" in text
    assert "| B | summary of A | 0.01, 3 epochs | recipe: 7.000; 0.01: 5.000; 9: diverged | 2.0 | 12 |" in text
    assert "an epoch is 50 steps, at most 200" in text and "cross-entropy on validation" in text


def test_the_headline_is_of_models_that_did_not_distil():
    assert headline(RESULTS, "hit@10") == (
        "Trained on a summary that another model distilled, a model keeps 25% of its own full-data HR@10 in the median: from 25% "
        "(C on A's) to 25% (C on A's)."
    )
    assert headline({**RESULTS, "students": RESULTS["students"][:1]}, "hit@10") == ""


def test_the_short_table_has_per_cents_and_differences():
    table = relative_table(RESULTS, ["hit@10", "crossentropy"])
    assert table.splitlines()[0] == "| trained model | HR@10, summary of A | cross-entropy, summary of A |"
    assert "| C | 25% | -0.30 |" in table


def test_intervals_are_those_of_the_means_against_full_data():
    """Two contenders whose rows are the same in every run, so that only the choice of users moves the ratio."""
    full = np.tile(np.r_[np.ones(50), np.zeros(50)], (2, 1, 1))
    found = relative_intervals({"all/users": np.arange(100), "all/full": full, "all/A": full / 2}, ["A"], ["hit@10"])
    assert found == {"A": {"hit@10": {"per_cent": [50.0, 50.0], "difference": found["A"]["hit@10"]["difference"]}}}
    low, high = found["A"]["hit@10"]["difference"]
    assert low < -0.25 < high < 0


def test_the_picture_has_a_mark_for_each_model_and_summary():
    figure = relative_figure(RESULTS, ["hit@10", "crossentropy"])
    hits, entropies = figure.data
    assert hits.x == (50.0, None, 25.0) and [round(x, 9) for x in entropies.x] == [-0.15, 0.1, -0.3]
    assert hits.error_x.arrayminus == (20.0, None, None) and round(hits.error_x.array[0], 9) == 20.4
    page = html_document({**RESULTS, "dataset": "<b>"}, ["hit@10"])
    assert "<b>" not in page.split("<script>")[0] and "src=" not in page.split("</script>")[-1]


def test_every_number_is_in_the_csv():
    rows = list(csv.DictReader(io.StringIO(csv_document(RESULTS))))
    assert len(rows) == 2 * (2 + 2 + 1 + 1 + 1 + 1)
    found = [row for row in rows if (row["trained"], row["distilled_by"], row["metric"]) == ("A", "A", "hit@10")]
    assert [float(row["value"]) for row in found] == [0.1, 0.2]
    assert {row["way"] for row in rows if (row["trained"], row["distilled_by"]) == ("B", "A")} == {"0.01"}
