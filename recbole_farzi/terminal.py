"""Printing what stands in files already: that nobody reads it, or cannot, ends no run."""

import logging
import os
import sys

__all__ = ["say"]


def say(text):
    """Print. Characters that the terminal's encoding lacks become question marks; a pipe that is closed or a disk that is full
    costs a warning, and what is printed afterwards goes nowhere."""
    try:
        _print(text)
    except OSError as error:
        logging.getLogger().warning(f"The tables cannot be printed ({error.strerror or error}); they are in the files.")
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # what is left in the former's buffer fails no exit, either


def _print(text):
    try:
        print(text, flush=True)
    except UnicodeEncodeError as error:
        print(text.encode(error.encoding, "replace").decode(error.encoding), flush=True)
