"""Reports: from the results of a run, as plain values, to a page, Markdown, tidy CSV and a table on the terminal.

Knows nothing of models, PyTorch or RecBole: everything that is shown is read from the results and the rows behind them
(:mod:`recbole_farzi.results` says what they hold), or computed from those. Three functions::

    render(results, directory, rows)     # report.html, report.md, strata.csv, comparisons.csv, results.json, rows.npz
    render_again(directory)              # the same from a folder's results.json and rows.npz
    terminal_table(results, rows)        # text
"""

import contextlib
import io
from pathlib import Path

__all__ = ["read_saved", "render", "render_again", "terminal_table"]


def render(results, directory, rows=None, write=None):
    """Write the report. Everything is made before the first file is written.

    Args:
        results: the dict of a run, of format 2. Numbers that are not finite count as missing.
        directory: where the files go; made if it is not there.
        rows: the arrays behind the results, or None: then the report has neither intervals nor tests.
        write: ``write(path, data)`` for bytes; default :func:`recbole_farzi.storage.write_bytes`, which writes each
            file whole or not at all.

    Returns:
        dict from name of file to its path: ``report.html``, ``report.md``, ``strata.csv``, ``comparisons.csv``,
        ``results.json``, and ``rows.npz`` if there are rows.

    Raises:
        DataError: ``results`` is not of a format that is known here, or lacks a part.
        StorageError: the directory cannot be written, or another process is writing there.
    """
    # Imported here: plotly is needed for the page alone, and takes a while.
    from recbole_farzi.report.aggregate import aggregate
    from recbole_farzi.report.documents import comparisons_document, csv_document, json_document, markdown_document
    from recbole_farzi.report.page import html_page

    alone = contextlib.nullcontext  # of a folder
    if write is None:
        from recbole_farzi.locks import alone_in as alone
        from recbole_farzi.storage import write_bytes as write
    report = aggregate(results, rows)
    documents = {
        "report.html": html_page(report),
        "report.md": markdown_document(report),
        "strata.csv": csv_document(report),
        "comparisons.csv": comparisons_document(report),
        "results.json": json_document(report),
    }
    contents = {name: text.encode("utf-8") for name, text in documents.items()}
    if rows is not None:
        contents["rows.npz"] = _packed(rows)
    paths = {name: Path(directory) / name for name in contents}
    with alone(directory):  # never half of one report and half of another
        for name, content in contents.items():
            write(paths[name], content)
    return paths


def read_saved(directory):
    """What :func:`render` was given when it wrote a folder: ``(results, rows)``; rows None where it holds none.

    Raises:
        StorageError: ``results.json`` is missing or damaged, or ``rows.npz`` is damaged.
    """
    from recbole_farzi.storage import read_arrays, read_json

    directory = Path(directory)
    results = read_json(directory / "results.json")
    return results, read_arrays(directory / "rows.npz") if (directory / "rows.npz").is_file() else None


def render_again(directory):
    """Make the report of a folder again from its ``results.json`` and ``rows.npz``, without training.

    Returns:
        ``(results, rows)``.

    Raises:
        DataError, StorageError: as for :func:`render` and :func:`read_saved`, and where a file was changed by hand into
            something that no report can be made of.
    """
    from recbole_farzi.errors import DataError

    results, rows = read_saved(directory)
    try:
        render(results, directory, rows)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"results.json or rows.npz in {directory} is not as a run writes it ({why:.200})") from error
    return results, rows


def terminal_table(results, rows=None, width=110):
    """The report as plain text: headline, contenders, strata. No colour codes.

    Args:
        results, rows: as for :func:`render`.
        width: columns of the terminal; wider tables continue below themselves.

    Raises:
        DataError: as for :func:`render`.
    """
    from recbole_farzi.report.aggregate import aggregate
    from recbole_farzi.report.documents import text_document

    return text_document(aggregate(results, rows), width)


def _packed(rows):
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **rows)
    return buffer.getvalue()
