"""Printing what stands in files already, and the log: that nobody reads them, or a disk is full, ends no run."""

import functools
import logging
import os
import sys

__all__ = ["forgive_full_disks", "say"]


def say(text):
    """Print. Characters that the terminal's encoding lacks become question marks; a pipe that is closed or a disk that is full
    costs a warning, and what is printed afterwards goes nowhere."""
    try:
        _print(text)
    except OSError as error:
        logging.getLogger().warning(f"The tables cannot be printed ({error.strerror or error}); they are in the files.")
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # what is left in the former's buffer fails no exit, either


def forgive_full_disks():
    """Have the log's files, which RecBole has opened, end with a warning at the first error of the system, not with a traceback for
    every line."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = functools.partial(_end_file, handler)


def _end_file(handler, record):
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        logging.Handler.handleError(handler, record)
    elif handler.level <= logging.CRITICAL:
        handler.setLevel(logging.CRITICAL + 1)
        logging.getLogger().warning(f"The log ends here: cannot write {handler.baseFilename}: {error.strerror or error}")


def _print(text):
    try:
        print(text, flush=True)
    except UnicodeEncodeError as error:
        print(text.encode(error.encoding, "replace").decode(error.encoding), flush=True)
