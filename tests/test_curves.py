"""TensorBoard's folder goes away under a run: one line, and the run goes on."""

import errno
import logging
import shutil
import threading

import pytest
from torch.utils.tensorboard import SummaryWriter

from recbole_farzi.curves import Curves


@pytest.fixture
def curves(tmp_path):
    made = Curves(SummaryWriter(tmp_path / "curves"))
    yield made
    made.close()


def written(folder):
    return sum(path.stat().st_size for path in folder.rglob("events*"))


def test_curves_are_written(curves, tmp_path):
    curves.flush()
    before = written(tmp_path)
    curves.add_scalar("loss", 1.0, 1)
    curves.flush()
    assert written(tmp_path) > before and str(curves.log_dir) == str(tmp_path / "curves")


def test_a_folder_that_is_removed_costs_one_line(curves, tmp_path, caplog, capfd):
    with caplog.at_level(logging.WARNING):
        shutil.rmtree(tmp_path / "curves")
        for step in range(100):
            curves.add_scalar("loss", 1.0, step)
            if step % 10 == 0:
                curves.flush()
        curves.close()
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"TensorBoard's curves end here: cannot write in {tmp_path / 'curves'}: No such file or directory"]
    assert "Traceback" not in capfd.readouterr().err


def test_a_full_disk_costs_one_line(tmp_path, caplog):
    class FullDisk:
        log_dir, calls = tmp_path, 0

        def add_scalar(self, *args):
            self.calls += 1
            raise OSError(errno.ENOSPC, "No space left on device")

    writer = FullDisk()
    curves = Curves(writer)
    with caplog.at_level(logging.WARNING):
        for step in range(5):
            curves.add_scalar("loss", 1.0, step)
    assert writer.calls == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"TensorBoard's curves end here: cannot write in {tmp_path}: No space left on device"
    ]


def test_other_errors_are_not_hidden(curves):
    with pytest.raises(TypeError):
        curves.add_scalar()
    with pytest.raises(AttributeError):
        curves.add_nothing


def test_errors_of_other_threads_are_shown_as_before(monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    from recbole_farzi.curves import _silence_its_thread

    _silence_its_thread()
    ours = threading.excepthook
    _silence_its_thread()
    assert threading.excepthook is ours  # once is enough

    def fails():
        raise OSError(errno.ENOSPC, "of somebody else")

    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    assert [args.exc_type for args in seen] == [OSError]
