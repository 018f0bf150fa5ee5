"""The default contenders' colours stay apart for the colour-blind, and each has a mark of its own as well."""

import itertools

import numpy as np
import pytest

from recbole_farzi.report.aggregate import aggregate
from recbole_farzi.report.figures import styles

from .invented import LEVELS, invented

DEFAULT = ("full", "summary", "start", "hard-5", "random", "svp-cf", "teacher-labels", "popularity")

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE
# Transactions on Visualization and Computer Graphics 2009: severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour):
    values = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE L*a*b* (D65) of linear sRGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1)
    xyz = xyz / (0.9505, 1, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.fixture(scope="module")
def marks():
    results = invented(keys=tuple(LEVELS))
    template = results["contenders"][0]
    results["contenders"] = [{**template, "key": key, "label": key} for key in DEFAULT]
    return styles(aggregate(results))


@pytest.mark.parametrize("sight", SIGHT)
def test_any_two_of_the_default_contenders_can_be_told_apart(marks, sight):
    """A difference of 10 is far above the 2.3 that is just noticeable; Okabe and Ito's own palette keeps 8 to 20."""
    seen = {key: lab(np.asarray(SIGHT[sight]) @ linear(style.colour)) for key, style in marks.items()}
    apart = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(seen, 2)}
    pair = min(apart, key=apart.get)
    assert apart[pair] > 10, (pair, apart[pair])


def test_marks_differ_too(marks):
    assert len({style.symbol for style in marks.values()}) == len(DEFAULT)
    assert len({style.glyph for style in marks.values()}) == len(DEFAULT)


@pytest.mark.parametrize("page", ["#ffffff", "#1a2028"])
def test_no_mark_vanishes_on_its_page(marks, page):
    def luminance(colour):
        return linear(colour) @ (0.2126, 0.7152, 0.0722)

    for style in marks.values():
        low, high = sorted((luminance(style.colour), luminance(page)))
        assert (high + 0.05) / (low + 0.05) > 2
