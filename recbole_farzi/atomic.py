"""What RecBole's atomic files can hold, given how RecBole has pandas read them."""

import re

from recbole_farzi.errors import DataError

__all__ = ["MISSING_WORDS", "NAME", "check_tokens"]

NAME = re.compile(r"\w[\w.+-]{0,99}")  # of a dataset: also of its folder and of the files in it

# Fields that pandas.read_csv takes for missing values: RecBole then drops the row.
MISSING_WORDS = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
     "NaN", "None", "n/a", "nan", "null"]
)  # fmt: skip


def check_tokens(tokens):
    """Refuse item tokens that RecBole would not read back as they are, alone or in a sequence of tokens.

    Raises:
        DataError: names the first of them.
    """
    for token in map(str, tokens):
        if token in MISSING_WORDS or token.startswith('"') or any(c in token for c in "\t\n\r \0"):
            raise DataError(
                f"item {token!r} cannot be written to an atomic file: it holds a space or tab, begins with a quotation "
                "mark, or is a word for nothing; rename it"
            )
