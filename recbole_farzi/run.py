"""``run_farzi.py`` and :func:`run_farzi`: the whole job from the command line or from Python."""

import argparse
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple, Optional

from recbole_farzi.errors import FarziError, OptionError
from recbole_farzi.signals import ending_signals
from recbole_farzi.terminal import forgive_full_disks, say

__all__ = ["main", "run_farzi", "run_students"]


_GO_ON = "the same command (without farzi_fresh) goes on from here"


def run_farzi(model=None, dataset=None, config_file_list=(), config_dict=None):
    """Distil a dataset with a RecBole model, write the summary, compare contenders on test, write the report.

    Args:
        model: name of a RecBole sequential model, ``package.module:Class``, or a class; None takes ``model`` of the
            options, else SASRec.
        dataset: RecBole's name of the dataset; None takes ``dataset`` of the options, else ml-100k.
        config_file_list: property files; later ones win.
        config_dict: options; win over the files.

    Returns:
        dict with ``results`` (plain values, also written as ``results.json``), ``summary``
        (:class:`recbole_farzi.summary.Summary`), ``summary_path`` (the emitted folder) and ``report_path``.

    Raises:
        FarziError: whatever a user can mend, in one line.
    """
    from recbole.utils import init_logger, init_seed, set_color

    from recbole_farzi.configuration import build_config
    from recbole_farzi.experiment import Experiment, places
    from recbole_farzi.locks import alone_in
    from recbole_farzi.options import read_options
    from recbole_farzi.report import render, terminal_table
    from recbole_farzi.resumption import interruptible

    config, model_class = build_config(model, dataset, config_file_list, config_dict)
    options = read_options(config)
    _start_logging(config, init_logger)
    init_seed(config["seed"], config["reproducibility"])
    begun = time.perf_counter()
    with alone_in(*places(config, options, model_class), Path(config["checkpoint_dir"]) / "farzi"):
        with interruptible(lambda: "while reading the data"):
            experiment = Experiment.prepare(config, options, model_class)
        with interruptible(lambda: "while preparing the distillation"):  # its stages know better
            trainer = experiment.distil()
        with interruptible(lambda: "while writing the summary"):
            hard = trainer.summary.hard(options.output.hard_samples, config["seed"])
            folder = experiment.emit(hard)
        with interruptible(lambda: "while comparing the contenders"):
            compared, rows = experiment.compare(experiment.contenders())
        with interruptible(lambda: "while writing the report"):
            results = experiment.results(compared)
            render(results, experiment.report, rows)
    if config["show_progress"]:
        say("\n" + terminal_table(results, rows))
    experiment.logger.info(set_color("Report", "pink") + f": {experiment.report / 'report.html'}")
    experiment.logger.info(set_color("Time", "pink") + f": {(time.perf_counter() - begun) / 60:.1f} minutes")
    return {"results": results, "summary": trainer.summary, "summary_path": folder, "report_path": experiment.report}


def run_students(distillers, students, dataset=None, config_file_list=(), config_dict=None):
    """Train several models on the summaries that one or more distil, and write the cross-architecture table.

    Args:
        distillers: models that distil, as for :func:`run_farzi`; None takes ``model`` of the options, else SASRec.
        students: models that train on the summaries.
        dataset, config_file_list, config_dict: as for :func:`run_farzi`; they hold for all models.

    Returns:
        ``(results, folder)``; see :func:`recbole_farzi.architectures.compare_architectures`.

    Raises:
        FarziError: whatever a user can mend, in one line.
    """
    from recbole.utils import init_logger, init_seed

    from recbole_farzi.architectures import compare_architectures
    from recbole_farzi.configuration import build_config
    from recbole_farzi.provenance import command_line

    beside = [*distillers[1:], *students]
    config, model_class = build_config(distillers[0], dataset, config_file_list, config_dict, beside)
    _start_logging(config, init_logger)
    init_seed(config["seed"], config["reproducibility"])
    distillers = [model_class, *distillers[1:]]
    return compare_architectures(distillers, students, dataset, config_file_list, config_dict, command=command_line() or "recbole_farzi.run_students(...)")


def run_one_study(given):
    """``--study NAME``: its trials; prints where its table, CSV and figure are."""
    from recbole.utils import init_logger

    from recbole_farzi.configuration import build_config
    from recbole_farzi.provenance import command_line
    from recbole_farzi.studies import run_study
    from recbole_farzi.studies.runner import visible_devices

    devices = visible_devices()  # before RecBole's Config hides all but one
    if len(given.models) > 1:
        raise OptionError("a study takes one model")
    model = given.models[0] if given.models else None
    overrides = {"state": "WARNING", **given.overrides}  # trials would each tell their whole course
    config, _ = build_config(model, given.dataset, given.config_files, overrides)
    _start_logging(config, init_logger)
    jobs, budget = given.study[1:]
    results, folder = run_study(
        given.study[0], model, given.dataset, given.config_files, overrides, jobs, budget, command_line() or "", devices
    )
    say((folder / "study.md").read_text(encoding="utf-8"))
    say(f"{results['done']} of {results['total']} trials. Table, CSV and figure: {folder}")


def remake_report(directory):
    """``--report DIR``: the report of a folder again, from what was saved there; prints its tables."""
    from recbole_farzi.report import render_again, terminal_table

    results, rows = render_again(directory)
    say(terminal_table(results, rows))
    say(f"Report: {Path(directory) / 'report.html'}")


def report_on(checkpoints, config_files, overrides, trust=False):
    """``--cold_start FILE ...``: a report on RecBole checkpoints; nothing is distilled."""
    from recbole_farzi.cold_start import report_on_checkpoints
    from recbole_farzi.provenance import command_line
    from recbole_farzi.report import terminal_table

    out = report_on_checkpoints(checkpoints, config_files, overrides, command_line(), trust)
    say(terminal_table(out["results"], out["rows"]))
    say(f"Report: {out['report_path'] / 'report.html'}")


def _start_logging(config, init_logger):
    from recbole_farzi.errors import StorageError

    try:
        init_logger(config)
    except OSError as error:
        raise StorageError(f"cannot write the log in ./log: {error.strerror or error}") from error
    forgive_full_disks()


class Arguments(NamedTuple):
    """What stands on the command line."""

    models: list
    dataset: Optional[str]
    config_files: list
    overrides: dict
    students: list
    cold_start: list
    report: Optional[str]
    trust_checkpoint: bool = False
    study: Optional[tuple] = None  # name, jobs, budget


def parse_arguments(arguments):
    """The command line: RecBole's ``-m``, ``-d``, ``--config_files`` and ``--key=value``.

    Returns:
        :class:`Arguments`; models and students are lists, empty if not given.

    Raises:
        OptionError: an argument is not understood.
    """
    from recbole_farzi.configuration import parse_overrides

    parser = argparse.ArgumentParser(
        prog="run_farzi.py",
        allow_abbrev=False,  # --data=... must not be taken for --dataset
        description="Distil a RecBole dataset into a small summary, train on it, and report whom it serves.",
        epilog="Any option of RecBole and of properties/farzi.yaml: --key=value.",
    )
    parser.add_argument(
        "-m", "--model", nargs="+", default=[], metavar="MODEL",
        help="sequential model: a name RecBole knows, or package.module:Class [SASRec]; several only with --students",
    )  # fmt: skip
    parser.add_argument(
        "--students", nargs="+", default=[], metavar="MODEL",
        help="train these models, too, on the summaries that -m distils, and write the cross-architecture table",
    )  # fmt: skip
    parser.add_argument("-d", "--dataset", help="name of the dataset [ml-100k]")
    parser.add_argument(
        "--config_files", nargs="+", default=[], metavar="FILE", help="property files, separated by spaces; later ones win"
    )
    parser.add_argument(
        "--cold_start", nargs="+", default=[], metavar="CHECKPOINT", help="distil nothing: report on these RecBole "
        "checkpoints, whole and from cold to warm",
    )  # fmt: skip
    parser.add_argument(
        "--trust_checkpoint", "--trust-checkpoint", action="store_true", help="with --cold_start: a checkpoint that holds "
        "more than weights and settings may run the code that it names",
    )  # fmt: skip
    parser.add_argument("--report", metavar="FOLDER", help="train nothing: make the report in this folder again")
    parser.add_argument(
        "--study", metavar="NAME", help="answer a question about the method on this dataset: a study of properties/studies, or a "
        "property file of your own (docs/studies.md)",
    )  # fmt: skip
    parser.add_argument("--jobs", metavar="N", help="trials of a study at a time [1]")
    parser.add_argument("--budget", metavar="TIME", help="a time, such as 30m: the largest size of the study that fits; the number of a size; or tiny")
    trust, arguments = _switch("trust_checkpoint", arguments)
    known, rest = parser.parse_known_args(arguments)
    for name in ("report", "study"):
        if getattr(known, name) == "":
            raise OptionError(f"--{name} is empty: give its {'folder' if name == 'report' else 'name'}")
    files = [name for text in known.config_files for name in text.split()]
    overrides = parse_overrides(rest)
    given = [name for name in ("cold_start", "report", "students", "study") if getattr(known, name)]
    if len(given) > 1:
        raise OptionError(f"give one of {', '.join(f'--{name}' for name in given)}")
    if trust and given != ["cold_start"]:
        raise OptionError("--trust_checkpoint is for the checkpoints of --cold_start")
    if given == ["report"] and (known.model or known.dataset or files or overrides):
        raise OptionError("--report makes a report from what was saved; it takes no other argument")
    if given == ["cold_start"] and (known.model or known.dataset):
        raise OptionError("--cold_start takes model and dataset from the checkpoints; leave out -m and -d")
    if not known.study and (known.jobs or known.budget):
        raise OptionError("--jobs and --budget belong to --study")
    jobs = known.jobs or "1"
    if not jobs.isdecimal():
        raise OptionError(f"--jobs {jobs!r} must be a whole number")
    study = (known.study, int(jobs), known.budget) if known.study else None
    return Arguments(
        known.model, known.dataset, files, overrides, known.students, known.cold_start, known.report, trust, study
    )


def _switch(name, arguments):
    """Take ``--NAME``, ``--NAME=True`` or ``--NAME=False`` (``-`` as good as ``_``) out of the arguments: ``(on, others)``."""
    on, others = False, []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if key.replace("-", "_") != f"__{name}":
            others.append(argument)
        elif text.lower() in ("true", "false") or not equals:
            on = text.lower() != "false"
        else:
            raise OptionError(f"option {name}={text} must be True or False")
    return on, others


def main(arguments=None):
    """Command line entry; returns the exit code: 0, or 1 after one line on standard error, or, when it was ended from outside,
    128 and the signal's number (130 for Ctrl-C)."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # RecBole's, about torch.cuda.amp
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    with ending_signals() as came:
        try:
            _run(parse_arguments(sys.argv[1:] if arguments is None else arguments))
        except FarziError as error:
            print(f"run_farzi: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt as interrupt:
            what = f"ended by {came[0].name}" if came else "interrupted"
            print(f"run_farzi: {what}{f' {where}' if (where := str(interrupt)) else ''}; {_GO_ON}", file=sys.stderr)
            return 128 + (came[0] if came else signal.SIGINT)
        except (MemoryError, RuntimeError) as error:
            from recbole_farzi.memory import is_out_of_memory

            if not is_out_of_memory(error):
                raise
            print(
                "run_farzi: not enough memory; lower farzi_sequences, farzi_length, farzi_inner_batch_size, "
                "farzi_outer_batch_size or eval_batch_size, or set farzi_checkpoint_every=-1",
                file=sys.stderr,
            )
            return 1
    return 0


def _run(given):
    """Do what the command line asks for."""
    models, settings = given.models, (given.dataset, given.config_files, given.overrides)
    if given.report:
        remake_report(given.report)
    elif given.cold_start:
        report_on(given.cold_start, given.config_files, given.overrides, given.trust_checkpoint)
    elif given.study:
        run_one_study(given)
    elif given.students:
        run_students(models or [None], given.students, *settings)
    elif len(models) > 1:
        raise OptionError(f"-m {' '.join(models)}: several models distil only for --students")
    else:
        run_farzi(models[0] if models else None, *settings)
