"""What the scripts that look at undistilled starts share: making one, and putting a table on record."""

import logging
import sys
from pathlib import Path

import pandas as pd
from recbole.utils import init_logger

from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import read_options
from recbole_farzi.provenance import environment
from recbole_farzi.storage import write_text
from recbole_farzi.trainer import FarziTrainer

FOLDER = Path(__file__).resolve().parent.parent / "results" / "quality"


def quiet_trainer(model, dataset, options):
    """A trainer that shows nothing, and the data. ``data_path`` does not count for ML-100K, which RecBole carries.

    Args:
        model, dataset: names, as on the command line.
        options: ``{name: value}``.

    Returns:
        ``(trainer, split)``: a :class:`recbole_farzi.trainer.FarziTrainer` that has not begun.
    """
    if dataset == "ml-100k":
        options = {name: value for name, value in options.items() if name != "data_path"}
    config, model_class = build_config(model, dataset, (), {"show_progress": False, "state": "ERROR", **options})
    read_options(config)
    init_logger(config)
    logging.getLogger().setLevel(logging.ERROR)
    split = load_split(config)
    return FarziTrainer(config, ModelFactory(model_class, config, split.train.dataset)(config["seed"])), split


def start_on_validation(model, dataset, options, students):
    """A start of one draw of histories, and how students that train on it do on validation. At rank 16 and of a teacher without a Markov chain,
    unless the options say otherwise, so that starts differ in what is compared alone.

    Args:
        model, dataset: names, as on the command line.
        options: options given by whoever runs the script.
        students: whose mean counts.

    Returns:
        ``(trainer, split, metrics)``: a :class:`recbole_farzi.trainer.FarziTrainer` that took no outer step, with its pool, the
        data, and the means.
    """
    given = {
        "farzi_latent_dim": 16, "farzi_pool_chain": False, **options, "farzi_outer_steps": 0, "farzi_start_draws": 1, "farzi_start_covering": 0, "farzi_eval_students": students,
    }  # fmt: skip
    trainer, split = quiet_trainer(model, dataset, given)
    _, metrics = trainer.fit(split.train, split.valid, verbose=False, saved=False)
    return trainer, split, metrics


def starts_on_validation(model, dataset, options, students, draws):
    """The same for several draws of histories.

    Returns:
        ``(trainer, means)``: means over the draws, and ``"crossentropy, spread"``, their standard deviation.
    """
    trainer, split, metrics = start_on_validation(model, dataset, options, students)
    found = [metrics]
    for draw in range(1, draws):
        found.append(trainer._score(trainer._make_start(split.sequences, split.counts, draw), split.valid)[0])
    found = pd.DataFrame(found)
    return trainer, {**found.mean(), "crossentropy, spread": found["crossentropy"].std()}


def put_on_record(name, table, config, title, text, digits=".4f", script=None):
    """Write ``results/quality/NAME.csv`` and ``NAME.md``, with the command and the machine below the table.

    Args:
        name: of the files.
        table: ``pandas.DataFrame``.
        config: RecBole's Config.
        title, text: above the table.
        digits: format of its numbers in the page.
        script: that made it; None is called as the files are.
    """
    machine, command = environment(config["device"]), " ".join([f"python benchmarks/{script or name}.py", *sys.argv[1:]])
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_text(FOLDER / f"{name}.csv", table.to_csv(index=False))
    write_text(
        FOLDER / f"{name}.md",
        f"# {title}\n\n{text}\n\n{table.to_markdown(index=False, floatfmt=digits)}\n\nMade by `{command}` "
        f"({machine['device'].upper()}, {machine['threads']} threads, PyTorch {machine['torch']}).\n",
    )
