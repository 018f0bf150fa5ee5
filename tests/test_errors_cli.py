"""What a user sees when something is wrong: one line, exit code 1, nothing half-written."""

import contextlib
import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import recbole_farzi
from recbole_farzi import errors, storage
from recbole_farzi.run import Arguments, main, parse_arguments, run_farzi

ROOT = Path(recbole_farzi.__file__).parent.parent


def below(folder):
    """Everything below a folder that is there: path to content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.fixture
def arguments(tiny_dataset, tiny_options, workplace):
    """A command line for a whole run of the tiny dataset."""
    options = {**tiny_options, "farzi_outer_steps": 1, "farzi_seeds": 1, "epochs": 1, "farzi_output_path": "out/tiny-farzi"}
    return ["-d", "tiny", f"--data_path={tiny_dataset}", *(f"--{name}={value}" for name, value in options.items())]


@pytest.fixture
def fails(workplace, capfd):
    """Function that runs a command line and returns the one line it must fail with; not even threads may write more."""

    def run(arguments):
        assert main(arguments) == 1
        out, err = capfd.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("run_farzi: "), err
        assert not Path("out").exists() or not below("out")
        assert not Path("report").exists() or not below("report")
        return err[len("run_farzi: ") : -1]

    return run


# --- before any work --------------------------------------------------------------------------------------------------


def test_no_such_dataset(fails):
    assert fails(["-d", "nosuch"]).startswith("there is no dataset nosuch: ")


def test_no_such_model(fails, arguments):
    assert fails(["-m", "NoSuch", *arguments]).startswith("RecBole has no model named 'NoSuch'")


def test_a_model_that_reads_no_sequences(fails, arguments):
    assert fails(["-m", "BPR", *arguments]).startswith("BPR is no sequential recommender")


def test_a_broken_inter_file(fails, arguments, tiny_dataset):
    path = tiny_dataset / "tiny" / "tiny.inter"
    path.write_text(path.read_text() + "u1\ti1\n")
    number = path.read_text().count("\n")
    assert fails(arguments) == f"{path}, line {number}: 2 fields where the header has 3"


@pytest.mark.parametrize(
    "argument, line",
    [
        ("--farzi_sequence=5", "unknown option farzi_sequence in the command line; did you mean farzi_sequences?"),
        ("--farzi_sequences=0", "option farzi_sequences=0 must be a whole number of at least 1"),
        ("--farzi_length=500", "farzi_length=500 is longer than the model reads"),
        ("--farzi_start=warm", "option farzi_start='warm' must be one of teacher, spectral, random"),
        ("epochs=3", "cannot read argument 'epochs=3'"),
        ("--epochs", "cannot read argument '--epochs'"),
        ("--data=x", "unknown option data in the command line"),
        ("--mode=x", "unknown option mode in the command line"),
        ("--config_file=x", "unknown option config_file in the command line; did you mean config_files?"),
        ("--topk=0", "RecBole refuses these options: "),
        ("--valid_metric=Hit@77", "option valid_metric=Hit@77 is not among what is evaluated"),
        ("--n_heads=3", "SASRec cannot be built with these options on this dataset: "),
    ],
)
def test_options_that_make_no_sense(fails, arguments, argument, line):
    name = argument.partition("=")[0]
    assert line in fails([a for a in arguments if not a.startswith(name + "=")] + [argument])


@pytest.mark.parametrize(
    "empty, line",
    [
        (["-d", ""], "dataset name '' must be a plain name"),
        (["-m", ""], "RecBole has no model named ''"),
        (["--report", ""], "--report is empty: give its folder"),
        (["--study", ""], "--study is empty: give its name"),
    ],
)
def test_an_empty_name_is_not_the_default(fails, empty, line):
    """As from a variable of the shell that is not set."""
    assert fails(empty).startswith(line)


def test_the_root_is_no_place_for_a_summary(fails, arguments):
    assert fails([a for a in arguments if "farzi_output_path" not in a] + ["--farzi_output_path=/"]).startswith("/ cannot be written")


def test_a_missing_and_a_broken_property_file(fails, arguments, workplace):
    assert "cannot read property file nosuch.yaml" in fails([*arguments, "--config_files", "nosuch.yaml"])
    (workplace / "broken.yaml").write_text("epochs: [1\n")
    assert "broken.yaml is not valid YAML" in fails([*arguments, "--config_files", "broken.yaml"])


def test_several_property_files(workplace):
    for given in (["a.yaml b.yaml"], ["a.yaml", "b.yaml"]):
        found = parse_arguments(["--config_files", *given, "--epochs=3"])
        assert found == Arguments([], None, ["a.yaml", "b.yaml"], {"epochs": 3}, [], [], report=None)


@pytest.mark.parametrize("place", ["out", "report", "saved", "log", "log_tensorboard"])
def test_a_file_where_a_folder_should_be(fails, arguments, workplace, place):
    (workplace / place).write_text("mine")
    assert "cannot write" in fails(arguments)
    assert (workplace / place).read_text() == "mine"


def test_an_output_that_is_somebody_elses(fails, arguments, workplace):
    (workplace / "thesis").mkdir()
    (workplace / "thesis" / "text").write_text("mine")
    given = [a for a in arguments if not a.startswith("--farzi_output_path")]
    assert "holds something else than a summary" in fails([*given, "--farzi_output_path=thesis"])
    assert below("thesis") == {"text": b"mine"}


@pytest.mark.parametrize(
    "places, option",
    [
        (["--farzi_output_path=saved/farzi"], "checkpoint_dir"),
        (["--farzi_output_path=saved", "--checkpoint_dir=saved/below"], "checkpoint_dir"),
        (["--farzi_output_path=report/tiny-SASRec"], "farzi_report_path"),
        (["--farzi_output_path=report", "--farzi_report_path=report/below/../below"], "farzi_report_path"),
    ],
)
def test_a_summary_that_would_replace_what_the_run_writes(fails, arguments, workplace, places, option):
    """An emission replaces its folder: found out before the work, not after it, and not when a later run has deleted the report."""
    arguments = [argument for argument in arguments if not argument.startswith("--farzi_output_path")]
    assert f"{option} must lie elsewhere" in fails([*arguments, *places])
    assert not list(workplace.rglob("*.pt"))


def test_items_that_cannot_be_emitted_are_refused_before_the_work(fails, arguments, tiny_dataset, workplace):
    path = tiny_dataset / "tiny" / "tiny.inter"
    path.write_text(path.read_text().replace("\ti5\t", "\ti 5\t"))
    assert "item 'i 5' cannot be written" in fails(arguments)
    assert not (workplace / "saved" / "farzi").exists()


@pytest.mark.parametrize("name", ["tiny-SequentialDataset.pth", "tiny-for-SASRec-dataloader.pth"])
def test_what_recbole_pickled_is_not_read(fails, arguments, workplace, name):
    """RecBole unpickles such files wherever it finds them."""

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(workplace / "made"),)

    (workplace / "saved").mkdir()
    (workplace / "saved" / name).write_bytes(pickle.dumps(Harm()))
    assert fails([*arguments, "--n_heads=3"]).startswith("SASRec cannot be built")  # the data is loaded by then
    assert not (workplace / "made").exists()
    for option in ("dataset_save_path", "dataloaders_save_path"):
        assert "are pickles, which can run code" in fails([*arguments, f"--{option}=saved/{name}"])
    assert not (workplace / "made").exists()


# --- a disk that is full ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(folder):
    """Renames to below a folder fail as on a full disk."""
    replace, folder = os.replace, Path(folder).resolve()

    def failing(source, target):
        if folder in Path(target).resolve().parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.os, "replace", failing)
        yield


def test_a_disk_that_is_full_from_the_start(fails, arguments, monkeypatch):
    def failing(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "fsync", failing)
    assert "No space left on device; free the disk or choose another directory" in fails(arguments)


def test_a_disk_that_fills_up_and_the_run_that_goes_on_when_it_is_free_again(fails, arguments, capfd):
    with full_disk("out"):
        assert fails(arguments) == "cannot write out/tiny-farzi/tiny-farzi.latent: No space left on device"
    with full_disk("report"):
        assert main(arguments) == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and error.startswith("run_farzi: cannot write report/tiny-SASRec/report.html: No space left")
    assert not below("report")
    whole = below("out")
    assert "tiny-farzi/recipe.json" in whole
    with full_disk("out"):
        assert main([*arguments, "--farzi_hard_samples=2"]) == 1
    assert below("out") == whole  # the former emission
    capfd.readouterr()
    assert main(arguments) == 0
    assert "Traceback" not in capfd.readouterr().err
    assert below("out") == whole
    names = ("report.html", "report.md", "strata.csv", "comparisons.csv", "results.json", "rows.npz")
    assert set(below("report")) == {f"tiny-SASRec/{name}" for name in names}


# --- main itself ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in dir(errors) if name.endswith("Error")])
def test_every_error_of_the_plugin_is_one_line(fails, monkeypatch, kind):
    def broken(*args):
        raise kind("what is wrong")

    monkeypatch.setattr("recbole_farzi.run.run_farzi", broken)
    assert fails([]) == "what is wrong"


def test_a_bug_is_not_hidden(workplace, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError

    monkeypatch.setattr("recbole_farzi.run.run_farzi", broken)
    with pytest.raises(ZeroDivisionError):
        main([])


def test_an_interrupt_is_one_line_and_130(workplace, monkeypatch, capfd):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("recbole_farzi.run.run_farzi", interrupted)
    assert main([]) == 130
    assert capfd.readouterr().err == "run_farzi: interrupted; the same command (without farzi_fresh) goes on from here\n"


def test_from_python_the_error_itself_arrives(workplace):
    with pytest.raises(errors.DataError, match="there is no dataset nosuch"):
        run_farzi(dataset="nosuch")


# --- a real process ---------------------------------------------------------------------------------------------------


def process(arguments, cwd, before=""):
    script = [str(ROOT / "run_farzi.py"), *arguments]
    code = f"import sys, runpy\n{before}\nsys.argv = {script!r}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_the_script_in_a_process_of_its_own(workplace):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "run_farzi.py"), "-d", "nosuch"]
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.startswith("run_farzi: there is no dataset nosuch")


@pytest.mark.skipif(not hasattr(os, "setpgid"), reason="needs POSIX limits on the size of files")
def test_files_that_the_system_does_not_let_grow(workplace, arguments):
    """A limit on the size of files fails where a full disk does, in the system's own calls."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    done = process(arguments, workplace, limit)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("run_farzi: cannot write in "), done.stderr
    assert not below(workplace / "out") and not below(workplace / "report")
