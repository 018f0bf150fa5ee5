"""How good is full data? A random search over how a model is trained on all real events, selected on validation alone.

    python benchmarks/baseline.py -m SASRec -d ml-100k --trials 16
    python benchmarks/baseline.py -m SASRec -d ml-100k --trials 16 --prefixes     # RecBole's own training, much slower
    python benchmarks/baseline.py -d amazon-magazine --space "{hidden_size: [64, 128]}" --name wider    # values of one's own

Every trial is trained with early stopping through RecBole's Trainer and evaluated on the *validation* split by RecBole's
evaluator; the test split is not touched. Trials are drawn from one seed, so that a longer search begins with the trials of
a shorter one, and are stored one by one in ``results/baseline/DATASET-MODEL.json``, so that an interrupted search goes on.
The winner, by the cross-entropy of the held-out event, is written as a property file beside it. The first trial is what
``run_farzi.py`` would use as things are.
"""

import argparse
import logging
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from recbole.utils import init_logger
from tqdm import tqdm

from recbole_farzi.configuration import build_config, parse_overrides
from recbole_farzi.data import load_split
from recbole_farzi.errors import DivergenceError
from recbole_farzi.models import ModelFactory, seeded
from recbole_farzi.options import read_options
from recbole_farzi.storage import read_json, write_json, write_text
from recbole_farzi.inspection import inspect_model
from recbole_farzi.training import RowTrainer, WindowLoader, WindowTrainer

ROOT = Path(__file__).resolve().parent.parent
SPACE = {
    "learning_rate": [0.001, 0.002, 0.003, 0.005],
    "weight_decay": [0.0, 0.0, 1e-6, 1e-5, 1e-4],
    "train_batch_size": [32, 64, 128],
    "hidden_size": [32, 32, 64],
    "n_layers": [1, 1, 2],
    "dropout": [0.1, 0.2, 0.3, 0.4, 0.5],
}
DROPOUT = ("hidden_dropout_prob", "attn_dropout_prob", "dropout_prob")


def draw(number, seed, space=SPACE):
    """Options of trial ``number``; none for the first, which is what the property files say."""
    if number == 0:
        return {}
    rng = np.random.default_rng([seed, number])
    drawn = {name: values[int(rng.integers(len(values)))] for name, values in space.items()}
    dropout = drawn.pop("dropout")
    return {**drawn, "inner_size": 2 * drawn["hidden_size"], **{name: dropout for name in DROPOUT}}


def train(model, dataset, files, overrides, prefixes, seed):
    """One trial; its validation metrics, epochs and seconds."""
    config, model_class = build_config(model, dataset, files, {"show_progress": False, **overrides})
    read_options(config)
    split = load_split(config)
    factory = ModelFactory(model_class, config, split.train.dataset)
    network, begun, epochs = factory(seed), time.perf_counter(), []
    if prefixes:
        trainer, loader = RowTrainer(config, network), split.train
    else:
        trainer = WindowTrainer(config, network, inspect_model(network, config))
        loader = WindowLoader(split.sequences, split.train.dataset, config["train_batch_size"], seed)
    try:
        with seeded(seed):
            _, best = trainer.fit(
                loader, split.valid, verbose=False, callback_fn=lambda epoch, score: epochs.append(epoch + 1)
            )
    except DivergenceError as error:
        return {"valid": None, "diverged": str(error)}
    return {"valid": {k: float(v) for k, v in best.items()}, "epochs": max(epochs), "seconds": time.perf_counter() - begun}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--dataset", default="ml-100k")
    parser.add_argument("--config_files", nargs="+", default=[])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--prefixes", action="store_true", help="RecBole's own prefix augmentation")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--space", type=yaml.safe_load, default={}, help="option to a list of values, in place of SPACE's")
    parser.add_argument("--name", help="of the search, where there is more than one; added to the record's name")
    known, rest = parser.parse_known_args()
    overrides = parse_overrides(rest)
    config, _ = build_config(known.model, known.dataset, known.config_files, overrides)
    init_logger(config)
    logging.getLogger().setLevel(logging.WARNING)
    name = f"{known.dataset}-{known.model}{'-prefixes' if known.prefixes else ''}"
    name += f"-{known.name}" if known.name else ""
    space = {**SPACE, **known.space}
    record = ROOT / "results" / "baseline" / f"{name}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    asked = {"seed": known.seed, "space": space, "overrides": overrides}
    stored = read_json(record) if record.is_file() else {"asked": asked, "trials": []}
    if stored["asked"] != asked:
        sys.exit(f"{record} holds a search of other options or another space; move it away first")
    trials = stored["trials"]
    for number in tqdm(range(len(trials), known.trials), initial=len(trials), total=known.trials, ncols=100):
        drawn = draw(number, known.seed, space)
        found = train(known.model, known.dataset, known.config_files, {**overrides, **drawn}, known.prefixes, known.seed)
        trials.append({"options": drawn, **found})
        write_json(record, stored)
    best = min((t for t in trials if t["valid"]), key=lambda trial: trial["valid"]["crossentropy"])
    text = yaml.safe_dump(best["options"], sort_keys=True) if best["options"] else "{}\n"
    write_text(
        record.with_suffix(".yaml"),
        f"# The best of {len(trials)} trials of training {known.model} on all of {known.dataset}, by validation cross-entropy;\n"
        f"# written by: python benchmarks/baseline.py {shlex.join(sys.argv[1:])}\n" + text,
    )
    print(f"best of {len(trials)}: {best['valid']} with {best['options'] or 'the defaults'}")


if __name__ == "__main__":
    main()
