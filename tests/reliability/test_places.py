"""Places that fail: full, read-only, removed, taken by another run; and Ctrl-C. Each in a job of its own process."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import recbole_farzi
from recbole_farzi.locks import alone_in
from recbole_farzi.run import main

ROOT = Path(recbole_farzi.__file__).parent.parent


@pytest.fixture
def arguments(tiny_dataset, tiny_options, workplace):
    options = {**tiny_options, "farzi_outer_steps": 1, "farzi_seeds": 1, "epochs": 1, "farzi_output_path": "out/tiny-farzi"}
    options["farzi_contenders"] = ["summary"]
    return ["-d", "tiny", f"--data_path={tiny_dataset}", *(f"--{name}={value}" for name, value in options.items())]


def one_line(capfd, arguments):
    capfd.readouterr()
    assert main(arguments) == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and error.startswith("run_farzi: "), error
    return error


def mounted(*command):
    """Mount something; skips where that is not allowed (no root, a container)."""
    done = subprocess.run(["mount", *command], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.mark.parametrize("place", ["saved", "out", "report"])
def test_a_directory_that_is_read_only(arguments, workplace, capfd, place):
    """A bind mount: root, too, may not write there."""
    (workplace / place).mkdir()
    mounted("--bind", str(workplace / place), str(workplace / place))
    try:
        mounted("-o", "remount,bind,ro", str(workplace / place))
        assert "Read-only file system" in one_line(capfd, arguments)
        assert list((workplace / place).iterdir()) == []
    finally:
        subprocess.run(["umount", str(workplace / place)], check=True)


def test_a_disk_that_is_really_full(arguments, workplace, capfd):
    """A file system of 256 KiB under the checkpoints: refused before any work for too little room."""
    (workplace / "saved").mkdir()
    mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs", str(workplace / "saved"))
    try:
        assert "free the disk or choose another directory" in one_line(capfd, arguments)
    finally:
        subprocess.run(["umount", str(workplace / "saved")], check=True)


def test_a_place_where_another_run_is_writing(arguments, workplace, capfd):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom recbole_farzi.locks import alone_in\n" + (
        "with alone_in('saved/farzi'):\n    print('in', flush=True)\n    sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "in\n"
        assert f"another run is writing in {workplace / 'saved' / 'farzi'} (process {other.pid}" in one_line(capfd, arguments)
        assert not (workplace / "saved" / "farzi").exists()
    finally:
        other.kill()
        other.communicate()
    assert main(arguments) == 0  # it has gone, and its lock with it
    with alone_in("saved/farzi", "out/tiny-farzi"):
        pass


@pytest.mark.parametrize("removed", ["saved", "out", "report", "log_tensorboard"])
def test_folders_that_are_removed_between_stages(arguments, workplace, monkeypatch, capfd, removed):
    """Gone after distillation: written again, or one line; and the next start ends well."""
    from recbole_farzi.experiment import Experiment

    original = Experiment.distil

    def distil(self):
        trainer = original(self)
        shutil.rmtree(workplace / removed, ignore_errors=True)
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "distil", distil)
        code = main(arguments)
    error = capfd.readouterr().err
    assert code == 0 or (code == 1 and error.count("\n") == 1)
    assert main(arguments) == 0
    assert (workplace / "out" / "tiny-farzi" / "recipe.json").is_file()


@pytest.mark.parametrize("kind, what", [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "ended by SIGTERM")])
def test_ctrl_c_is_one_line_that_says_where(arguments, workplace, kind, what):
    """A signal to a process in the middle of distillation."""
    arguments = [a for a in arguments if not a.startswith(("--farzi_outer_steps", "--farzi_eval_step"))] + ["--farzi_outer_steps=100000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "run_farzi.py"), *arguments, "--farzi_eval_step=100000"]
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # jobs in the background ignore it
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **heeding)
    give_up = time.monotonic() + 300
    while not list((workplace / "saved").glob("farzi/distillation-*.pt")) and time.monotonic() < give_up:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(kind)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 128 + kind
    assert error.count("\n") == 1 and error.startswith(f"run_farzi: {what} while distilling, in outer step "), error
    assert "saved up to step" in error and "the same command (without farzi_fresh) goes on from here" in error
    assert not list(workplace.rglob(".*.lock"))
