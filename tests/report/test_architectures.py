"""The cross-architecture table from invented numbers."""

import csv
import io

from recbole_farzi.report.architectures import csv_document, markdown_document


def runs(*hits):
    return [
        {"seed": n, "seconds": 2.0, "metrics": {"hit@10": hit, "crossentropy": 6.0 + hit}} for n, hit in enumerate(hits)
    ]


RESULTS = {
    "format": 1,
    "dataset": "toy",
    "date": "2026-01-02",
    "command": "python run_farzi.py --students A B",
    "environment": {"device": "cpu", "threads": 1, "torch": "2", "recbole": "1.2.1"},
    "training_events": 1000,
    "test_rows": 1234,
    "metrics": ["hit@10", "crossentropy"],
    "smaller_is_better": ["crossentropy"],
    "summaries": [{"model": "A", "events": 25, "bytes": 100, "sha256": "x", "outer_steps": 7, "best_step": 5}],
    "students": [
        {"model": "A", "reads": "all", "options": {"epochs": 3}, "full": runs(0.2, 0.4), "on": {"A": runs(0.1, 0.2)}},
        {"model": "B", "reads": "every prefix", "options": {"epochs": 3}, "full": runs(0.0), "on": {"A": runs(0.1)}},
    ],
}


def test_each_model_is_compared_with_its_own_full_data():
    text = markdown_document(RESULTS)
    assert "| A | 0.3000 ± 0.1414 | 0.1500 ± 0.0707 (50%) |" in text
    assert "| B | 0.0000 | 0.1000 (–) |" in text
    assert "| A | 6.3000 ± 0.1414 | 6.1500 ± 0.0707 (-0.15) |" in text
    assert "A's has 25 events (2.5% of the real ones), the best on validation of 7 outer steps (step 5)" in text
    assert "Budget of training on real events (A, B): epochs 3." in text
    assert "Made by `python run_farzi.py --students A B` on 2026-01-02" in text


def test_every_number_is_in_the_csv():
    rows = list(csv.DictReader(io.StringIO(csv_document(RESULTS))))
    assert len(rows) == 2 * (2 + 2 + 1 + 1)
    found = [row for row in rows if (row["trained"], row["distilled_by"], row["metric"]) == ("A", "A", "hit@10")]
    assert [float(row["value"]) for row in found] == [0.1, 0.2]
