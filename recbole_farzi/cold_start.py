"""Cold-start reports on RecBole models that are trained already, in memory or as checkpoints; nothing is distilled."""

import copy
import re
from datetime import date
from pathlib import Path

from recbole.data.dataloader import FullSortEvalDataLoader

from recbole_farzi.baselines import Popularity
from recbole_farzi.checkpoints import check_same_data, checkpoint_config, of_what, read_checkpoint, restored
from recbole_farzi.data import load_loaders
from recbole_farzi.errors import DataError, OptionError
from recbole_farzi.evaluation import evaluate_by_strata, training_counts
from recbole_farzi.metrics import register_metrics
from recbole_farzi.options import read_report_options
from recbole_farzi.provenance import environment
from recbole_farzi.report import render
from recbole_farzi.results import Run, gather
from recbole_farzi.storage import check_writable
from recbole_farzi.strata import read_edges
from recbole_farzi.training import RowTrainer

__all__ = ["cold_start_report", "report_on_checkpoints"]

_POPULARITY = "popularity"
_EXTRA = ("MRR", "ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage")


def cold_start_report(
    models, train_data, test_data, directory="report/cold-start", user_strata=3, item_strata=3, report_metrics=_EXTRA,
    reference=None, config=None, command=None, popularity=True,
):  # fmt: skip
    """Evaluate trained RecBole models on test, whole and from cold to warm, and write a report.

    For example, after ``run_recbole``'s own steps::

        trainer.fit(train_data, valid_data)
        recbole_farzi.cold_start_report({"SASRec": model}, train_data, test_data)

    Args:
        models: a trained model, or a dict from a label to a model, or to a list of models that differ by their seed:
            then the intervals include their spread.
        train_data, test_data: RecBole's loaders, as ``data_preparation`` gives them. Test ranks all items.
        directory: where the report is written; None writes nothing.
        user_strata: groups of users by training events: how many, of about equally many rows, or edges
            (``[1, 5, 10, 20]``).
        item_strata: the same for held-out items by their occurrences in training.
        report_metrics: RecBole metrics beside those of the config.
        reference: label of the model that the others are compared with; default the first, or popularity beside a single
            one.
        config: RecBole's Config; default that of ``train_data``.
        command: how to make the report again, for the record.
        popularity: whether the most popular items, the same for everybody, are compared as well.

    Returns:
        dict with ``results`` and ``rows`` (what :func:`recbole_farzi.report.render` takes) and ``report_path``.

    Raises:
        DataError, OptionError, StorageError: in one line, what is wrong.
    """
    register_metrics()
    config = _with_options(config or train_data.dataset.config, user_strata, item_strata, report_metrics)
    options = read_report_options(config)
    models = _labelled(models)
    popularity = popularity and _POPULARITY not in models
    if reference is None:
        reference = _POPULARITY if popularity and len(models) == 1 else next(iter(models))
    if reference not in models and not (popularity and reference == _POPULARITY):
        raise OptionError(f"reference {reference!r} is none of the models: {', '.join(models)}")
    if not isinstance(test_data, FullSortEvalDataLoader):
        raise DataError(f"test_data is a {type(test_data).__name__}; a report needs every item ranked (eval_args mode: full)")
    if directory is not None:
        check_writable(directory)
    dataset, counts, compared, keys = train_data.dataset, training_counts(train_data.dataset), [], {}
    focus = next(iter(models)) if reference == _POPULARITY and len(models) == 1 else None
    if popularity:
        models[_POPULARITY] = [Popularity(counts.occurrences)]
    for label, group in models.items():
        for model in group:
            _check_catalogue(label, model, dataset)
        keys[label] = _key(label, keys.values())
        runs = [
            _evaluated(config, model, number, train_data, test_data, counts, options) for number, model in enumerate(group)
        ]
        size = sum(parameter.numel() for parameter in group[0].parameters())
        note = f"{type(group[0]).__name__}, {size:,} parameters"
        if isinstance(group[0], Popularity):
            runs = [run._replace(seed=None) for run in runs]
            note = "every user gets the items that are most frequent in training"
        plain = {"key": keys[label], "label": label, "note": note}
        compared.append(({**plain, "events": None, "bytes": None}, runs))
    gathered, rows = gather(compared)
    asked = {metric.lower() for metric in config["metrics"]}
    results = {
        **gathered,
        "dataset": config["dataset"],
        "date": date.today().isoformat(),
        "command": command or "recbole_farzi.cold_start_report(...)",
        "environment": environment(config["device"]),
        "data": {
            "users": dataset.user_num - 1,
            "items": dataset.item_num - 1,
            "training_events": counts.events,
            "test_rows": len(rows["all/users"]),
        },
        "options": {
            name: str(config[name])
            for name in ("eval_args", "topk", "farzi_user_strata", "farzi_item_strata", "MAX_ITEM_LIST_LENGTH")
            if config[name] is not None
        },
        "extra_metrics": [metric for metric in gathered["metrics"] if metric.partition("@")[0] not in asked],
        "reference": keys[reference] if len(models) > 1 else None,
        "focus": None if focus is None else keys[focus],
    }
    if directory is not None:
        render(results, directory, rows)
    return {"results": results, "rows": rows, "report_path": None if directory is None else Path(directory)}


def report_on_checkpoints(files, config_files=(), overrides=None, command=None, trust=False):
    """:func:`cold_start_report` of RecBole checkpoints (``saved/*.pth``): model, data and split come from their own
    settings.

    Checkpoints of one model that differ by their seed alone are the runs of one contender.

    Args:
        files: of the checkpoints, all trained on the same data and split; the first is the reference.
        config_files: property files that change settings.
        overrides: dict of option to value; wins over everything.
        command: how to make the report again, for the record.
        trust: whether a checkpoint that needs it may run code; see :func:`recbole_farzi.compat.load_checkpoint`.

    Returns:
        As :func:`cold_start_report`.

    Raises:
        StorageError: a file is missing, or no RecBole checkpoint, or needs to be trusted and is not.
        DataError: a checkpoint was trained on another dataset, or does not fit this one.
        OptionError, ModelError
    """
    register_metrics()
    saved = [(Path(file), *read_checkpoint(file, trust)) for file in files]
    first_file, first, _ = saved[0]
    for file, settings, _ in saved[1:]:
        check_same_data(file, settings, first, first_file)
    configs = [checkpoint_config(settings, config_files, dict(overrides or {})) for _, settings, _ in saved]
    options = read_report_options(configs[0][0])
    types = {config["MODEL_TYPE"] for config, _ in configs}
    if len(types) > 1:
        names = ", ".join(sorted(str(kind).rpartition(".")[2].lower() for kind in types))
        raise DataError(f"these checkpoints read different kinds of rows ({names} models); make a report of each")
    train_data, _, test_data = load_loaders(configs[0][0])
    models, same = {}, {}
    for (file, settings, state), (config, model_class) in zip(saved, configs):
        model, what = restored(file, state, config, model_class, train_data.dataset), of_what(settings)
        label = next((label for label, other in same.items() if other == (model_class, what)), None)
        if label is None:
            label = model_class.__name__ if model_class.__name__ not in models else f"{model_class.__name__} ({file.stem})"
            same[label] = (model_class, what)
        models.setdefault(label, []).append(model)
    directory = Path(options.report_path) / f"{first['dataset']}-cold-start"
    return cold_start_report(
        models, train_data, test_data, directory, options.user_strata, options.item_strata, options.report_metrics,
        config=configs[0][0], command=command,
    )  # fmt: skip


def _with_options(config, user_strata, item_strata, report_metrics):
    """A copy of a Config with the report's options in it."""
    config = copy.copy(config)
    config.final_config_dict = dict(config.final_config_dict)
    for name, value in (("user", user_strata), ("item", item_strata)):
        config[f"farzi_{name}_strata"] = value if isinstance(value, int) else read_edges(value)
    config["farzi_report_metrics"] = list(report_metrics)
    config["farzi_report_path"] = "report"
    return config


def _labelled(models):
    if not isinstance(models, dict):
        group = list(models) if isinstance(models, (list, tuple)) else [models]
        models = {type(model).__name__: [] for model in group}
        for model in group:
            models[type(model).__name__].append(model)
    models = {str(label): list(m) if isinstance(m, (list, tuple)) else [m] for label, m in models.items()}
    if not models or not all(models.values()):
        raise OptionError("there is no model to report on")
    return models


def _key(label, taken):
    key = re.sub(r"[^\w.+-]+", "-", label).strip("-") or "model"
    number, unique = 2, key
    while unique in taken:
        unique, number = f"{key}-{number}", number + 1
    return unique


def _check_catalogue(label, model, dataset):
    for attribute, known, what in (("n_items", dataset.item_num, "items"), ("n_users", dataset.user_num, "users")):
        own = getattr(model, attribute, known)
        if isinstance(own, int) and own != known:
            raise DataError(f"{label} was trained on another dataset: it knows {own - 1} {what}, this one has {known - 1}")


def _evaluated(config, model, number, train_data, test_data, counts, options):
    trainer = RowTrainer(config, model.to(config["device"]))
    try:
        evaluation = evaluate_by_strata(
            trainer, train_data, test_data, counts, options.user_strata, options.item_strata, options.report_metrics
        )
    finally:
        trainer.tensorboard.close()
    return Run(number, None, evaluation)
