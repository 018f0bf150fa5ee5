"""recbole-farzi: distil a sequence dataset into a small synthetic summary on which RecBole's models train in seconds.

Importing this package makes RecBole 1.2 work on today's NumPy, pandas and PyTorch (:mod:`recbole_farzi.compat`);
everything else is imported when it is first used.
"""

from recbole_farzi import compat
from recbole_farzi.version import __version__

compat.apply()

__all__ = ["FarziTrainer", "Summary", "__version__", "cold_start_report", "load_summary", "run_farzi"]

_WHERE = {
    "FarziTrainer": "recbole_farzi.trainer",
    "Summary": "recbole_farzi.summary",
    "cold_start_report": "recbole_farzi.cold_start",
    "load_summary": "recbole_farzi.emission",
    "run_farzi": "recbole_farzi.run",
}


def __getattr__(name):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
