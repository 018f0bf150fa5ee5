"""Readers of the forms in which interactions are published; each yields ``(user, item, time in seconds)`` line by line."""

import csv
import gzip
import json
import math

from recbole_farzi.atomic import MISSING_WORDS
from recbole_farzi.errors import DataError

__all__ = ["AMAZON_FORMS", "read_amazon", "read_movielens_1m", "read_table"]

# Columns of user, item and time in the ratings-only CSV, and keys in the JSON, of each release of the Amazon reviews
# (https://cseweb.ucsd.edu/~jmcauley/datasets.html, https://amazon-reviews-2023.github.io); times of 2023 are in ms.
AMAZON_FORMS = {
    "2014": {"csv": (0, 1, 3), "header": False, "json": ("reviewerID", "asin", "unixReviewTime"), "unit": 1},
    "2018": {"csv": (1, 0, 3), "header": False, "json": ("reviewerID", "asin", "unixReviewTime"), "unit": 1},
    "2023": {"csv": (0, 1, 3), "header": True, "json": ("user_id", "parent_asin", "timestamp"), "unit": 1000},
}


def read_movielens_1m(path):
    """``ratings.dat``: ``UserID::MovieID::Rating::Timestamp`` (files.grouplens.org/datasets/movielens/ml-1m-README.txt)."""
    for number, line in _lines(path, "latin-1"):
        fields = line.split("::")
        if len(fields) != 4:
            raise DataError(f"{path}, line {number}: not of the form user::movie::rating::time")
        yield _event(path, number, fields[0], fields[1], fields[3])


def read_amazon(path, year):
    """Reviews or ratings of Amazon: CSV if the name ends in ``.csv`` or ``.csv.gz``, a JSON object a line otherwise.

    Args:
        year: ``2014``, ``2018`` or ``2023``, the release: the order of the columns and the names of the keys differ.
    """
    form = AMAZON_FORMS[year]
    name = str(path).removesuffix(".gz")
    if name.endswith(".csv"):
        user, item, time = form["csv"]
        for number, line in _lines(path):
            if number == 1 and form["header"]:
                continue
            fields = next(csv.reader([line]), [])
            if len(fields) < 4:
                raise DataError(f"{path}, line {number}: {len(fields)} fields where the ratings of {year} have 4")
            yield _event(path, number, fields[user], fields[item], fields[time], form["unit"])
        return
    keys = form["json"]
    for number, line in _lines(path):
        try:
            review = json.loads(line)
            user, item, time = (review[key] for key in keys)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number} is not a JSON object: {error}") from error
        except (KeyError, TypeError) as error:
            wanted = ", ".join(keys)
            raise DataError(f"{path}, line {number} lacks one of {wanted}, which reviews of {year} have") from error
        yield _event(path, number, user, item, time, form["unit"])


def read_table(path, separator=None, header=False):
    """``user item time`` in the first three fields of a line.

    Args:
        separator: between fields; None is any white space.
        header: the first line names the columns and is skipped.
    """
    for number, line in _lines(path):
        if number == 1 and header:
            continue
        fields = line.split(separator)
        if len(fields) < 3:
            raise DataError(f"{path}, line {number}: {len(fields)} fields where user, item and time are needed")
        yield _event(path, number, *(field.strip() for field in fields[:3]))


def _lines(path, encoding="utf-8"):
    """Numbered lines that are not empty, of a file that may be compressed by gzip."""
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rt", encoding=encoding, newline="\n") as file:
            for number, line in enumerate(file, start=1):
                line = line.rstrip("\r\n")
                if line.strip():
                    yield number, line
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeError as error:
        raise DataError(f"{path} is not text in encoding {encoding}: {error}") from error


def _event(path, number, user, item, time, unit=1):
    for kind, value in (("user", user), ("item", item)):
        if not isinstance(value, (str, int)) or str(value) in MISSING_WORDS or _unreadable(str(value)):
            raise DataError(
                f"{path}, line {number}: {kind} {value!r} cannot stand in an atomic file: it is a word for nothing, holds "
                "white space or begins with a quotation mark"
            )
    try:
        seconds = float(time) / unit
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise DataError(f"{path}, line {number}: time {time!r} is not a number")
    return str(user), str(item), seconds


def _unreadable(token):
    return token.startswith('"') or any(character.isspace() or character == "\0" for character in token)
