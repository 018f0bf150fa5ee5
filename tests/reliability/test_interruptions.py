"""Ctrl-C and what a batch system sends, in every stage of a job: one line that says where, and the next start goes on."""

import signal

import pytest

from recbole_farzi import experiment, report, trainer
from recbole_farzi.distillation import Distiller
from recbole_farzi.emission import load_summary
from recbole_farzi.run import main
from recbole_farzi.training import WindowTrainer

STAGES = [  # what is being called when the signal comes, and what the line says
    (experiment, "load_split", "while reading the data"),
    (trainer, "check_writable", "while preparing the distillation"),
    (WindowTrainer, "fit", "while training model 1 of 1 of the pool, in epoch 1"),
    (trainer.FarziTrainer, "_choose_start", "while choosing the start"),
    (trainer, "generate_like", "while the teacher writes histories"),
    (Distiller, "step", "while distilling, in outer step 1 of 3; saved up to step 0 in "),
    (experiment, "emit", "while writing the summary"),
    (experiment.Experiment, "contenders", "while comparing the contenders"),
    (experiment, "evaluate_by_strata", "while training and evaluating "),
    (report, "render", "while writing the report"),
]


@pytest.fixture(autouse=True)
def default_handlers():
    """As in a terminal: xdist's workers ignore Ctrl-C."""
    former = [(kind, signal.signal(kind, handler)) for kind, handler in
              ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler))]  # fmt: skip
    yield
    for kind, handler in former:
        signal.signal(kind, handler)


def test_a_job_that_is_interrupted_in_every_stage(tiny_dataset, tiny_options, workplace, monkeypatch, capfd):
    options = {**tiny_options, "farzi_outer_steps": 3, "farzi_seeds": 1, "farzi_contenders": ["summary"], "epochs": 2}
    arguments = ["-d", "tiny", f"--data_path={tiny_dataset}", *(f"--{name}={value}" for name, value in options.items())]
    for number, (owner, name, words) in enumerate(STAGES):
        kind = (signal.SIGINT, signal.SIGTERM)[number % 2]
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *args, kind=kind, **kwargs: signal.raise_signal(kind))
            capfd.readouterr()
            assert main(arguments) == 128 + kind
        error = capfd.readouterr().err
        what = "interrupted" if kind == signal.SIGINT else "ended by SIGTERM"
        assert error.count("\n") == 1 and error.startswith(f"run_farzi: {what} {words}"), error
        assert error.endswith("; the same command (without farzi_fresh) goes on from here\n")
        assert not list(workplace.rglob(".*.lock"))
    assert main(arguments) == 0
    load_summary(tiny_dataset / "tiny-farzi")
