"""RecBole's checkpoints (``saved/*.pth``): read without running anything, and made models again."""

import sys
from pathlib import Path

from recbole.config import Config

from recbole_farzi.compat import load_checkpoint
from recbole_farzi.configuration import check_known, expand_home, known_options, not_evaluated, properties_directory, read_yaml
from recbole_farzi.errors import DataError, ModelError, OptionError, StorageError
from recbole_farzi.models import resolve_model

__all__ = ["check_same_data", "checkpoint_config", "of_what", "read_checkpoint", "restored"]

# What makes two checkpoints trained on the same data with the same split.
_OF_DATA = (
    "dataset", "field_separator", "seq_separator", "USER_ID_FIELD", "ITEM_ID_FIELD", "RATING_FIELD", "TIME_FIELD", "load_col",
    "unload_col", "rm_dup_inter", "val_interval", "filter_inter_by_user_or_item", "user_inter_num_interval",
    "item_inter_num_interval", "threshold", "eval_args", "benchmark_filename", "MAX_ITEM_LIST_LENGTH", "repeatable",
)  # fmt: skip
# Where and how a run ran; not what it is.
_OF_MACHINE = {
    "device", "gpu_id", "use_gpu", "state", "checkpoint_dir", "show_progress", "log_wandb", "wandb_project", "nproc", "worker",
    "local_rank", "world_size", "offset", "ip", "port", "single_spec", "config_files", "save_dataset", "dataset_save_path",
    "save_dataloaders", "dataloaders_save_path", "data_path", "model", "enable_amp", "enable_scaler",
}  # fmt: skip
_DERIVED = {"MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "valid_metric_bigger", "valid_neg_sample_args",
            "test_neg_sample_args", "neg_sampling"}  # fmt: skip
_OF_ONE_RUN = {"seed", "reproducibility", "metrics", "topk", "valid_metric", "eval_batch_size", "metric_decimal_place"}


def check_same_data(file, settings, others, than, loaded=True):
    """Refuse a checkpoint whose settings make other data, or another split of it, than others do.

    Args:
        file: of the checkpoint.
        settings: its settings, as :func:`read_checkpoint` gives them.
        others: those that it is compared with, a mapping or RecBole's Config.
        than: what they are of, for the message.
        loaded: whether the same columns must have been loaded.

    Raises:
        DataError
    """
    for name in _OF_DATA:
        if name in ("load_col", "unload_col") and not loaded:
            continue
        if settings.get(name) != others.get(name):
            raise DataError(
                f"{file} was trained on other data than {than}: {name} is {settings.get(name)!r}, not "
                f"{others.get(name)!r}; make a report of each"
            )


def of_what(settings):
    """The settings that say what a model is: those that are of the machine or of one run left out."""
    return {key: value for key, value in settings.items() if key not in _OF_ONE_RUN | _OF_MACHINE}


def read_checkpoint(file, trust=False):
    """The settings and the state of a checkpoint: ``(plain values, dict)``.

    Args:
        file: path.
        trust: whether a checkpoint that needs it may run code; see :func:`recbole_farzi.compat.load_checkpoint`.

    Raises:
        StorageError: it is missing, or no RecBole checkpoint, or needs to be trusted and is not.
    """
    try:
        saved = load_checkpoint(file, map_location="cpu", trust=trust)
        settings = saved["config"].final_config_dict
        state = {"state_dict": dict(saved["state_dict"]), "other_parameter": saved.get("other_parameter")}
        if not isinstance(settings, dict) or not isinstance(settings.get("dataset"), str):
            raise KeyError("dataset")
    except OSError as error:
        raise StorageError(f"cannot read {file}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"{file} is no checkpoint of RecBole: it lacks {error}") from error
    return {name: value for name, value in settings.items() if _is_plain(value)}, state


def _is_plain(value):
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def checkpoint_config(settings, config_files, overrides):
    """The Config of a checkpoint on this machine: its settings, then the user's; none of them is evaluated as code.

    Args:
        settings: as :func:`read_checkpoint` gives them.
        config_files: property files that change settings.
        overrides: dict of option to value; wins over everything.

    Returns:
        ``(Config, model class)``.

    Raises:
        OptionError, ModelError
    """
    name = settings.get("model")
    if not isinstance(name, str):
        raise ModelError("a checkpoint does not say of which model it is")
    model_class = resolve_model(name, sequential=False)
    given = {}
    for path in config_files:
        given.update(read_yaml(Path(path)))
    given.update(overrides)
    check_known(given, known_options(model_class), "the command line or its property files")
    own = {key: value for key, value in settings.items() if key not in _OF_MACHINE | _DERIVED}
    negatives = own.get("train_neg_sample_args")
    if isinstance(negatives, dict) and negatives.get("distribution") == "none":
        own["train_neg_sample_args"] = None  # RecBole writes it out so and does not read it back
    if "data_path" not in given and isinstance(settings.get("data_path"), str):
        given["data_path"] = str(Path(settings["data_path"]).parent)  # RecBole has put the dataset's name behind it
    defaults = read_yaml(properties_directory() / "farzi.yaml")
    report = {name: defaults[name] for name in ("farzi_user_strata", "farzi_item_strata", "farzi_report_metrics",
                                                "farzi_report_path")}  # fmt: skip
    merged = {key: not_evaluated(value) for key, value in {**report, **own, "show_progress": True, **given}.items()}
    dataset = settings["dataset"]
    for key in ("dataset", "model"):
        merged.pop(key, None)
    try:
        config = _quiet_config(model_class, dataset, merged)
    except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError, AttributeError) as error:
        raise OptionError(f"RecBole refuses the settings of the checkpoint: {type(error).__name__}: {error}") from error
    expand_home(config)
    return config, model_class


def _quiet_config(model_class, dataset, merged):
    argv, sys.argv = sys.argv, sys.argv[:1]  # RecBole's Config reads the command line by itself
    try:
        return Config(model_class, dataset, None, merged)
    finally:
        sys.argv = argv


def restored(file, state, config, model_class, dataset):
    """The model of a checkpoint, on the device of the Config.

    Args:
        file: of the checkpoint, for the message.
        state: as :func:`read_checkpoint` gives it.
        config, model_class: of :func:`checkpoint_config`.
        dataset: RecBole's train dataset.

    Raises:
        DataError: its tables do not fit the dataset.
    """
    try:
        model = model_class(config, dataset).to(config["device"])
        model.load_state_dict(state["state_dict"])
        model.load_other_parameter(state["other_parameter"])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError, AssertionError, NotImplementedError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        why = lines[1] if len(lines) > 1 else lines[0]
        raise DataError(
            f"{file} does not fit dataset {config['dataset']} as it is loaded here; was it trained on other data? {why}"
        ) from error
    return model
