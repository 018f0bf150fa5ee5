"""Tables and their three renderings."""

import re

import pytest

from recbole_farzi.report import tables
from recbole_farzi.report.aggregate import aggregate
from recbole_farzi.report.tables import Cell, Table

from .invented import invented

WIDE = Table(
    "title",
    ["contender", *(f"column {k}\nsmall" for k in range(20))],
    [[Cell(name), *(Cell(f"{k}.0 ± 0.1", "9%") for k in range(20))] for name in ("one", "a name " * 20)],
)


@pytest.mark.parametrize("width", [60, 110])
def test_text_keeps_to_the_width_and_loses_no_column(width):
    text = tables.to_text(WIDE, width)
    assert max(map(len, text.splitlines())) <= width
    assert set(re.findall(r"column \d+", text)) == {f"column {k}" for k in range(20)}
    assert text.count("(9%)") == 40


def test_text_is_aligned():
    table = Table("t", ["", "a"], [[Cell("x"), Cell("1")], [Cell("yy"), Cell("22")]])
    assert tables.to_text(table).splitlines() == ["t", "     a", "------", "x    1", "yy  22"]


def test_main_tables_fit_a_terminal_in_one_block():
    report = aggregate(invented())
    for table in (tables.values_table(report), tables.comparison_table(report), tables.findings_table(report)):
        text = tables.to_text(table, 110)
        assert max(map(len, text.splitlines())) <= 110
        assert sum(line.startswith("full data ") for line in text.splitlines()) == 1


def test_text_carries_no_control_characters():
    text = tables.to_text(Table("t", ["", "a\x1b[2J"], [[Cell("\x1b[31mred\n\u202e"), Cell("1")]]))
    assert "\x1b" not in text and "\u202e" not in text
    assert len(text.splitlines()) == 4


def test_markdown_cells_cannot_be_broken():
    text = tables.to_markdown(Table("t", ["a|b", "c"], [[Cell("x | y\nz"), Cell("<script>", "5%")]]))
    assert text.splitlines() == ["| a\\|b | c |", "| --- | ---: |", "| x \\| y z | &lt;script> (5%) |"]


def test_html_escapes_text():
    text = tables.to_html(Table("t", ["<a>", "b"], [[Cell('"<i>'), Cell("<b>", "<u>")]]), ['"red'])
    assert not set(re.findall(r"<(\w+)", text)) & {"a", "b", "u"}
    assert "&quot;&lt;i&gt;" in text and 'background:&quot;red"' in text


def test_contenders_table_shows_value_share_and_cost():
    report = aggregate(invented())
    table = tables.contenders_table(report)
    row = dict(zip(table.columns, table.rows[1]))
    assert row["contender"].text == "summary (soft)"
    assert row["HR@10"].aside == f"{report.relative(report.find('summary'), 'hit@10'):.0f}%"
    assert row["cross-entropy"].aside == f"{report.relative(report.find('summary'), 'crossentropy'):+.2f}"
    assert (row["events"], row["KB"].text) == (Cell("2,550", "2.6%"), "138")


def test_without_full_data_there_are_no_comparisons():
    report = aggregate(invented(keys=("summary", "random")))
    assert tables.comparison_table(report).columns == ["contender", "events", "KB", "seconds"]
    assert all(cell.aside == "" for row in tables.contenders_table(report).rows for cell in row[3:-3])


def test_strata_tables_show_rows_and_mark_small_strata():
    users, items = tables.strata_tables(aggregate(invented())).values()
    assert list(users) == ["ndcg@10", "hit@100", "crossentropy"]
    assert users["ndcg@10"].columns[1] == "1-28 training events\n315 rows"
    assert items["ndcg@10"].columns[3] == "169-583 occurrences\n43 rows (small)"
    assert len(items["ndcg@10"].rows) == 6


def test_strata_tables_of_chosen_metrics():
    by_kind = tables.strata_tables(aggregate(invented()), ["ndcg@100"])
    assert [list(by_metric) for by_metric in by_kind.values()] == [["ndcg@100"], ["ndcg@100"]]
