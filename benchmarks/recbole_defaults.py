"""What RecBole reaches as it comes: full data with RecBole's own defaults, beside tuned full data and a summary.

    python benchmarks/recbole_defaults.py DATASET REPORT_DIR ... [--seeds 3] [--data_path=datasets] ["--user_inter_num_interval=[3,inf)"]

A REPORT_DIR holds ``results.json`` and ``rows.npz`` of a run on the same data; several are pooled. Nothing of this plugin's property
files is used: the model, its training on prefixes, early stopping and the metric it stops by are RecBole's, whose options may follow
the script's. Models are evaluated on test as those of the reports were. Writes ``results/quality/recbole-defaults-DATASET.csv`` and
``.md``. Intervals: bootstrap over test users, the same for all, and runs, by Student's t of each kind of runs.
"""

import argparse
import copy
import shlex
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from distillations import as_text, read, to_full
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_trainer, init_logger, init_seed

from recbole_farzi import cold_start_report
from recbole_farzi.compat import load_checkpoint
from recbole_farzi.configuration import parse_overrides
from recbole_farzi.models import resolve_model
from recbole_farzi.provenance import environment
from recbole_farzi.report.resampling import bootstrap_means, sample_of_rows
from recbole_farzi.storage import write_text

FOLDER = Path(__file__).resolve().parent.parent / "results" / "quality"
METRICS = ["hit@10", "ndcg@10", "crossentropy"]
LABELS = {"defaults": "full data, RecBole's defaults", "full": "full data, of the reports", "start": "start, not distilled",
          "summary": "summary"}  # fmt: skip
SHOWN = ("learning_rate", "train_batch_size", "epochs", "stopping_step", "valid_metric", "MAX_ITEM_LIST_LENGTH", "n_layers", "n_heads",
         "hidden_size", "inner_size", "hidden_dropout_prob", "attn_dropout_prob")  # fmt: skip


def trained(config, seed, train_data, valid_data):
    """A model of that seed at its best on validation, as RecBole trains it; its epochs and seconds."""
    init_seed(seed, config["reproducibility"])
    train_data.generator.manual_seed(seed)  # of its shuffling, which RecBole seeds where the loader is made
    model = resolve_model(config["model"])(config, train_data.dataset).to(config["device"])
    trainer, begun = get_trainer(config["MODEL_TYPE"], config["model"])(config, model), time.perf_counter()
    trainer.fit(train_data, valid_data, saved=True, show_progress=False)
    seconds = time.perf_counter() - begun
    best = load_checkpoint(trainer.saved_model_file)
    model.load_state_dict(best["state_dict"])
    return model, best["epoch"] + 1, seconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("dataset")
    parser.add_argument("reports", nargs="+", metavar="REPORT_DIR")
    parser.add_argument("--seeds", type=int, default=3)
    given, rest = parser.parse_known_args()
    reports = [read(folder) for folder in given.reports]
    name = reports[0][0]["model"]
    if any((results["model"], results["dataset"]) != (name, given.dataset) for results, _, _ in reports):
        sys.exit(f"these reports are not all of {name} on {given.dataset}")
    options = parse_overrides(rest)
    with tempfile.TemporaryDirectory() as folder:
        data = {"train_neg_sample_args": None, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
        own = {**data, "checkpoint_dir": folder, "show_progress": False, **options}
        config = Config(model=name, dataset=given.dataset, config_dict=own)
        init_logger(config)
        train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
        runs = []
        for seed in range(config["seed"], config["seed"] + given.seeds):
            runs.append(trained(config, seed, train_data, valid_data))
            print(f"seed {seed}: best of epoch {runs[-1][1]}, {runs[-1][2]:.0f} s", flush=True)
    judged = copy.copy(config)
    judged.final_config_dict = {**config.final_config_dict, "metrics": ["Hit", "NDCG", "CrossEntropy"], "topk": [10]}
    found = cold_start_report([model for model, *_ in runs], train_data, test_data, None, config=judged, popularity=False)
    chosen = [found["results"]["row_metrics"].index(metric) for metric in METRICS]
    (key,) = [contender["key"] for contender in found["results"]["contenders"]]
    users = found["rows"]["all/users"]
    size = {key: found["results"]["data"][key] for key in ("items", "training_events", "test_rows")}
    if any(not np.array_equal(users, other) or not size.items() <= results["data"].items() for results, _, other in reports):
        sys.exit("with these options the test split is not that of the reports: give those of the runs")
    values = {"defaults": found["rows"][f"all/{key}"][:, chosen]}
    for contender in ("full", "start", "summary"):
        values[contender] = np.concatenate([of_report[contender] for _, of_report, _ in reports])
    samples = [sample_of_rows(values[contender], users) for contender in LABELS]
    draws, means = bootstrap_means(samples, seed=0), np.stack([sample.means.mean(axis=0) for sample in samples])
    lines = []
    for place, (contender, label) in enumerate(LABELS.items()):
        line = {"trained on": label, "runs": len(values[contender])}
        for m, metric in enumerate(METRICS):
            estimate = to_full(metric, means[place, m], means[0, m], draws[:, place, m], draws[:, 0, m])
            each = values[contender][:, m].mean(axis=1)
            line[metric] = f"{means[place, m]:.4f} ({each.min():.4f} to {each.max():.4f})"
            line[f"{metric}, to RecBole's defaults"] = as_text(metric, *estimate) if place else "–"
        lines.append(line)
    table, machine = pd.DataFrame(lines), environment(config["device"])
    others = shlex.join(argument for argument in sys.argv[1:] if argument not in (given.dataset, *given.reports))
    command = f"python benchmarks/recbole_defaults.py {given.dataset} REPORT_DIR ... {others}".rstrip()
    epochs, seconds = zip(*[(epoch, second) for _, epoch, second in runs])
    settings = ", ".join(f"{option} {config[option]}" for option in SHOWN if config[option] is not None and option not in options)
    but_for = ", ".join(f"{option} {value}" for option, value in options.items() if option != "data_path")
    made = "\n".join(f"* seed {results['seed']}: `{results['command']}`" for results, _, _ in reports)
    text = (
        f"# What RecBole reaches as it comes: {given.dataset}, {name}\n\nOn test; in brackets the least and the largest of the runs, and "
        "95% intervals over users and runs; of the cross-entropy the difference in nats. RecBole's defaults, "
        f"{settings}, but for {but_for or 'nothing'}. "
        f"Best on validation in epochs {', '.join(map(str, epochs))}; {np.mean(seconds):.0f} seconds a model.\n\n"
        f"{table.to_markdown(index=False, disable_numparse=True)}\n\nMade by `{command}` ({machine['device'].upper()}, "
        f"{machine['threads']} threads, PyTorch {machine['torch']}), from the reports of\n\n{made}\n"
    )
    write_text(FOLDER / f"recbole-defaults-{given.dataset}.csv", table.to_csv(index=False))
    write_text(FOLDER / f"recbole-defaults-{given.dataset}.md", text)
    print(text)


if __name__ == "__main__":
    main()
