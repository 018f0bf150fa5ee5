"""The page: whole, self-contained, and safe against the texts it shows."""

import json
import re
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs

from recbole_farzi.report.aggregate import aggregate
from recbole_farzi.report.page import html_page

from .invented import invented

EVIL = "<script>alert('x')</script><img src=x onerror=y>\u2028</title>"


def own_part(page):
    """The page without plotly's script."""
    return page.replace(get_plotlyjs(), "")


def figures_of(page):
    return json.loads(re.search(r"const FIGURES = (.*);\n", own_part(page)).group(1))


class Structure(HTMLParser):
    """Checks that elements close in order; collects tags and attributes."""

    VOID = {"meta", "link", "br", "wbr", "img"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_well_formed_and_asks_for_nothing():
    page = html_page(aggregate(invented()))
    assert page.count(get_plotlyjs()) == 1
    structure = Structure(own_part(page))
    assert not [value for name, value in structure.attributes if name in ("src", "href") and value != "data:,"]
    assert not re.search(r"url\(|@import|https?:", own_part(page))


def test_every_figure_has_its_place():
    page = html_page(aggregate(invented()))
    # five metrics, two by size, three of each kind of stratum, two of cost, two of distillation
    assert len(figures_of(page)) == own_part(page).count('class="plot"') == 5 + 2 + 6 + 2 + 2
    assert all("template" not in figure["layout"] for figure in figures_of(page))


def test_no_text_becomes_markup():
    pairs = {EVIL: EVIL}
    results = invented(dataset=EVIL, model=EVIL, command=EVIL, date=EVIL, options=pairs, environment=pairs)
    for contender in results["contenders"]:
        contender["label"] = contender["note"] = EVIL
    results["contenders"][2]["key"] = EVIL
    for group in results["strata"].values():
        group[0]["label"] = EVIL
    page = html_page(aggregate(results))
    structure = Structure(own_part(page))
    assert structure.tags.count("script") == 2
    assert "img" not in structure.tags
    assert "\u2028" not in re.search(r"const FIGURES = .*", own_part(page)).group()
    # What plotly draws is escaped once more, since plotly reads tags in labels.
    assert "<script" not in json.dumps(figures_of(page))


@pytest.mark.parametrize(
    "results",
    [
        invented(keys=("summary", "random")),
        invented(keys=("popularity",)),
        invented(keys=()),
        invented(seeds=1),
        invented(distillation=None, pool=None, summary=None, options=None, environment=None, data=None, command=None),
        invented(strata={}),
        invented(metrics=["crossentropy"]),
        invented(metrics=[]),
        {"format": 2, "metrics": ["hit@5"], "contenders": [{"key": "k", "label": "l", "runs": []}]},
    ],
    ids=["no full data", "popularity", "nobody", "one seed", "few parts", "no strata", "one metric", "no metric", "least"],
)
def test_missing_pieces_are_left_out(results):
    page = own_part(html_page(aggregate(results)))
    Structure(page)
    assert not re.search(r"\b(None|nan|NaN)\b", page)


def test_glossary_explains_contenders_and_metrics():
    page = own_part(html_page(aggregate(invented())))
    terms = re.findall(r"<dt>(.*?)</dt>", page)
    assert {"full data", "popularity", "HR@k", "nDCG@k", "cross-entropy", "stratum"} <= set(terms)
