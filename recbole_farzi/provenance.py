"""What a result depends on: fingerprints of settings, and the environment it was made in."""

import platform

import numpy
import pandas
import recbole
import torch

from recbole_farzi.version import __version__

__all__ = ["environment", "settings"]

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
