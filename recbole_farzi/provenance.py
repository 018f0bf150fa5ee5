"""What a result depends on: fingerprints of settings, and the environment it was made in."""

import functools
import inspect
import platform
import shlex
import sys
from pathlib import Path

import numpy
import pandas
import recbole
import torch

from recbole_farzi.storage import digest
from recbole_farzi.version import __version__

__all__ = ["code", "command_line", "environment", "settings"]

# Where things are read and written, and how much is shown, change no result.
_WITHOUT_EFFECT = {
    "checkpoint_dir", "data_path", "show_progress", "state", "log_wandb", "wandb_project", "gpu_id", "config_files",
    "save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path", "verbose", "saved", "worker",
    "farzi_output_path", "farzi_report_path", "farzi_fresh",
}  # fmt: skip


def settings(config, keep):
    """Options that a stage's result depends on, as plain values in the order of their names.

    Args:
        config: RecBole's Config.
        keep: function from the name of a ``farzi_*`` option to whether the stage depends on it. RecBole's own options
            all count, but for those that only say where files are and what is shown.
    """
    chosen = {}
    for name, value in sorted(config.final_config_dict.items()):
        if name in _WITHOUT_EFFECT or (name.startswith("farzi_") and not keep(name)):
            continue
        chosen[name] = value if isinstance(value, (bool, int, float, type(None))) else str(value)
    return chosen


def code(model_class):
    """SHA-256 of the code that a result depends on: the plugin's (its reports left out) and the model's own.

    Args:
        model_class: the student's class; RecBole's and PyTorch's own code is named by their versions.
    """
    own = {"plugin": _plugin(), "recbole": recbole.__version__, "torch": torch.__version__}
    for cls in model_class.__mro__:
        if cls is object or cls.__module__.split(".")[0] in ("recbole", "torch"):
            continue
        try:
            own[f"{cls.__module__}:{cls.__qualname__}"] = inspect.getsource(inspect.getmodule(cls) or cls)
        except (OSError, TypeError):  # made in a session: there is no source to look at
            own[f"{cls.__module__}:{cls.__qualname__}"] = None
    return digest([own, f"{model_class.__module__}:{model_class.__qualname__}"])


@functools.lru_cache(maxsize=None)
def _plugin():
    root = Path(__file__).parent
    files = sorted(path for path in root.rglob("*.py") if path.relative_to(root).parts[0] != "report")
    return [[path.relative_to(root).as_posix(), digest(path.read_bytes())] for path in files]


def command_line():
    """The command line of this process, for the record; None where it is not ``run_farzi.py``'s."""
    program = Path(sys.argv[0]).name
    if program not in ("run_farzi.py", "run-farzi"):
        return None
    return f"{'python run_farzi.py' if program.endswith('.py') else program} {shlex.join(sys.argv[1:])}".strip()


def environment(device):
    """Versions and machine, for the record."""
    return {
        "recbole_farzi": __version__,
        "recbole": recbole.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "pandas": pandas.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
