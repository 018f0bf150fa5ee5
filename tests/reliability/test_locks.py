"""One run at a time in a place; and no lock outlives its process."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import recbole_farzi
from recbole_farzi import locks
from recbole_farzi.errors import StorageError
from recbole_farzi.locks import alone_in

ROOT = Path(recbole_farzi.__file__).parent.parent

pytestmark = pytest.mark.skipif(locks.fcntl is None, reason="needs POSIX locks")


@pytest.fixture
def another(tmp_path):
    """Function that starts a process which enters a place and stays; the processes are ended after the test."""
    started = []

    def start(place):
        code = (
            "import sys\nfrom recbole_farzi.locks import alone_in\n"
            "with alone_in(sys.argv[1]):\n    print('in', flush=True)\n    sys.stdin.read()\nprint('out', flush=True)"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(place)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "in\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_second_process_is_refused_in_one_line_that_names_the_first(tmp_path, another):
    process = another(tmp_path / "place")
    with pytest.raises(StorageError) as caught:
        with alone_in(tmp_path / "other", tmp_path / "place"):
            pytest.fail("two are in")
    message = str(caught.value)
    assert message.startswith(f"another run is writing in {tmp_path / 'place'} (process {process.pid}, since 20")
    assert "checkpoint_dir" in message and "\n" not in message
    with alone_in(tmp_path / "other"):  # was given back
        pass


def test_it_may_enter_when_the_first_has_gone(tmp_path, another):
    process = another(tmp_path / "place")
    process.stdin.close()
    assert process.stdout.readline() == "out\n" and process.wait() == 0
    with alone_in(tmp_path / "place"):
        pass
    assert list(tmp_path.iterdir()) == []  # lock files go with their locks


def test_a_killed_process_leaves_no_lock(tmp_path, another):
    process = another(tmp_path / "place")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / ".place.lock").exists()  # the file is left, and locks nothing
    with alone_in(tmp_path / "place"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_spelling_is_the_same_place(tmp_path, another, monkeypatch):
    another(tmp_path / "place")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="another run"), alone_in("below/../place"):
        pass


def test_a_thread_may_enter_twice_and_another_thread_may_not(tmp_path):
    refused = []

    def enter():
        try:
            with alone_in(tmp_path / "place"):
                pass
        except StorageError as error:
            refused.append(error)

    with alone_in(tmp_path / "place"):
        with alone_in(tmp_path / "place"):
            pass
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert len(refused) == 1
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert len(refused) == 1


def test_children_do_not_keep_the_lock(tmp_path):
    """A worker that outlives a killed run must not keep its place."""
    reading, writing = os.pipe()
    with alone_in(tmp_path / "place"):
        child = os.fork()
        if child == 0:
            os.read(reading, 1)
            os._exit(0)
    with alone_in(tmp_path / "place"):
        pass
    os.write(writing, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(reading)
    os.close(writing)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="cannot write in "), alone_in(tmp_path / "file" / "below"):
        pass


def test_where_there_are_no_locks_a_warning_says_so(tmp_path, monkeypatch, caplog):
    def none(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "lockf", none)
    with alone_in(tmp_path / "place"):
        pass
    assert "no file locks here" in caplog.text
