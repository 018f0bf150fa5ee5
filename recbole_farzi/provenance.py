"""What a result depends on: fingerprints of settings, and the environment it was made in."""

import functools
import inspect
import platform
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

import numpy
import pandas
import recbole
import torch

from recbole_farzi.data import rows_checksum
from recbole_farzi.storage import digest
from recbole_farzi.version import __version__

__all__ = ["Identity", "code", "command_line", "environment", "settings"]

# Where things are read and written, and how much is shown, change no result.
_WITHOUT_EFFECT = {
    "checkpoint_dir", "data_path", "show_progress", "state", "log_wandb", "wandb_project", "gpu_id", "config_files",
    "save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path", "verbose", "saved", "worker",
    "farzi_output_path", "farzi_report_path", "farzi_fresh",
}  # fmt: skip

# Options that come into play when a summary is there already.
_AFTERWARDS = {
    "farzi_seeds", "farzi_contenders", "farzi_full_data", "farzi_hard_samples", "farzi_user_strata", "farzi_item_strata",
    "farzi_report_metrics", "farzi_student_learning_rates", "farzi_student_steps", "farzi_student_eval_step",
}  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """What a distillation is: all that its summary depends on. Two of the same :attr:`fingerprint` give the same summary.

    The fingerprint names the run in its log, its files under ``checkpoint_dir``, ``recipe.json`` and ``results.json``; it can be
    made again from what :attr:`record` puts into the last two (:meth:`of_recipe`).

    Attributes:
        code: :func:`code`.
        environment: :func:`environment`.
        data: SHA-256 of the training histories.
        validation: SHA-256 of the validation rows, or None.
        settings: :func:`settings` of the distillation.
    """

    code: str
    environment: dict
    data: str
    validation: Optional[str]
    settings: dict

    @classmethod
    def of(cls, config, model_class, checksum, valid_data):
        """The identity of a distillation that is about to begin.

        Args:
            config: RecBole's Config.
            model_class: the student's class.
            checksum: of the training histories, :func:`recbole_farzi.data.training_checksum`.
            valid_data: RecBole's validation loader, or None.
        """
        return cls(
            code(model_class), environment(config["device"]), checksum, rows_checksum(valid_data),
            settings(config, keep=lambda name: name not in _AFTERWARDS),
        )  # fmt: skip

    @classmethod
    def of_recipe(cls, recipe):
        """The identity of the distillation that a recipe (:func:`recbole_farzi.emission.load_summary`) came from."""
        run, distilled = recipe["run"], {k: v for k, v in recipe["settings"].items() if k not in _AFTERWARDS}
        return cls(run["code_sha256"], recipe["environment"], run["data_sha256"], run["validation_sha256"], distilled)

    @functools.cached_property
    def fingerprint(self):
        """Twelve hexadecimal digits."""
        return digest(asdict(self))[:12]

    @property
    def record(self):
        """What names the run and its inputs, as plain values; settings and environment stand beside it wherever it goes."""
        return {
            "fingerprint": self.fingerprint,
            "seed": self.settings["seed"],
            "code_sha256": self.code,
            "data_sha256": self.data,
            "validation_sha256": self.validation,
        }

    def __str__(self):
        """One line, for the log: run, seed, device, versions, data."""
        where = self.environment
        versions = ", ".join(f"{name} {where[name]}" for name in _SAID)
        return (
            f"{self.fingerprint}, seed {self.settings['seed']}; {self.settings['model']} on {self.settings['dataset']}, training "
            f"histories {self.data[:12]}; {where['device']}, {where['threads']} thread(s); {versions}"
        )


_SAID = ("recbole_farzi", "recbole", "torch", "numpy", "pandas", "python")


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
    """SHA-256 of the code that a result depends on: the plugin's (its reports and studies left out) and the model's own.

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
    files = sorted(path for path in root.rglob("*.py") if path.relative_to(root).parts[0] not in ("report", "studies"))
    return [[path.relative_to(root).as_posix(), digest(path.read_bytes())] for path in files]


def command_line():
    """The command line of this process, for the record; None where it is not ``run_farzi.py``'s."""
    program = Path(sys.argv[0]).name
    if program not in ("run_farzi.py", "run-farzi"):
        return None
    return " ".join(["python run_farzi.py" if program.endswith(".py") else program, *map(_quoted, sys.argv[1:])])


def _quoted(argument):
    """As a shell wants it; lists of names in double quotes, which people can read: "--topk=['a']"."""
    return f'"{argument}"' if "'" in argument and not set(argument) & set('"$`\\!') else shlex.quote(argument)


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
