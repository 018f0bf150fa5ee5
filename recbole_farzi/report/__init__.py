"""Reports: from the results of a run, as plain values, to a page, Markdown, a tidy CSV and a table on the terminal.

Knows nothing of models, PyTorch or RecBole: everything that is shown is read from the one dict, or computed from it.
Two functions::

    render(results, directory)     # report.html, report.md, results.csv, results.json
    terminal_table(results)        # text

``results`` is what ``results.json`` holds; :func:`recbole_farzi.report.aggregate.aggregate` says which parts are
needed.
"""

from pathlib import Path

__all__ = ["render", "terminal_table"]


def render(results, directory, write=None):
    """Write the report. Everything is made before the first file is written.

    Args:
        results: the dict of a run, of format 1. Numbers that are not finite count as missing.
        directory: where the files go; made if it is not there.
        write: ``write(path, data)`` for bytes; default :func:`recbole_farzi.storage.write_bytes`, which writes each
            file whole or not at all.

    Returns:
        dict from name of file to its path: ``report.html``, ``report.md``, ``results.csv``, ``results.json``.

    Raises:
        DataError: ``results`` is not of a format that is known here, or lacks a part.
        StorageError: the directory cannot be written.
    """
    # Imported here: plotly is needed for the page alone, and takes a while.
    from recbole_farzi.report.aggregate import aggregate
    from recbole_farzi.report.documents import csv_document, json_document, markdown_document
    from recbole_farzi.report.page import html_page

    if write is None:
        from recbole_farzi.storage import write_bytes as write
    report = aggregate(results)
    documents = {
        "report.html": html_page(report),
        "report.md": markdown_document(report),
        "results.csv": csv_document(report),
        "results.json": json_document(report),
    }
    paths = {name: Path(directory) / name for name in documents}
    for name, text in documents.items():
        write(paths[name], text.encode("utf-8"))
    return paths


def terminal_table(results, width=110):
    """The report as plain text: headline, contenders, strata. No colour codes.

    Args:
        results: as for :func:`render`.
        width: columns of the terminal; wider tables continue below themselves.

    Raises:
        DataError: as for :func:`render`.
    """
    from recbole_farzi.report.aggregate import aggregate
    from recbole_farzi.report.documents import text_document

    return text_document(aggregate(results), width)
