"""Files are there whole or not at all, and nothing that is read back can run code."""

import errno
import os
import pickle
import stat

import pytest
import torch

from recbole_farzi import storage
from recbole_farzi.errors import StorageError
from recbole_farzi.storage import (
    check_writable,
    digest,
    load_tensors,
    new_directory,
    read_json,
    save_tensors,
    write_bytes,
    write_json,
    write_text,
)

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail(*args, **kwargs):
    raise FULL


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def contents(folder):
    """Everything below a folder: path to content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- single files -----------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    write_bytes(path, b"\0\xff")
    assert path.read_bytes() == b"\0\xff"
    write_text(path, "é\r\n")
    assert path.read_bytes() == "é\r\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_written_files_can_be_read_by_others(tmp_path):
    write_bytes(tmp_path / "file", b"x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen", "chmod"])
@pytest.mark.parametrize("existing", [None, b"old"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call, existing):
    path = tmp_path / "file"
    if existing:
        path.write_bytes(existing)
    monkeypatch.setattr(storage.os, call, fail)
    with pytest.raises(StorageError) as caught:
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert contents(tmp_path) == ({"file": existing} if existing else {})


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(storage.os, call, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", b"new")
    assert contents(tmp_path) == {"file": b"old"}


def test_the_file_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(storage.os, "fsync", lambda fd: (order.append("flush"), fsync(fd)))
    monkeypatch.setattr(storage.os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
    write_bytes(tmp_path / "file", b"new")
    assert order == ["flush", "rename"]


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    for place in (tmp_path / "file" / "below", tmp_path / "file" / "far" / "below"):
        with pytest.raises(StorageError, match="cannot write .*: (Not a directory|File exists)"):
            write_bytes(place, b"new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="Is a directory"):
        write_bytes(tmp_path / "folder", b"new")
    assert contents(tmp_path) == {"file": b"mine"}


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_json_keeps_floats_exactly(tmp_path):
    value = {"b": [0.1, 1e-310, 1 / 3, None, True], "a": {"é": "ü\n"}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert (tmp_path / "x.json").read_text().index('"a"') < (tmp_path / "x.json").read_text().index('"b"')


@pytest.mark.parametrize("content", [b"", b"{", b"{'a': 1}", b'{"a": 1}}', b"\xff\xfe", b"[" * 100_000, b"9" * 5000])
def test_what_is_no_json_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(StorageError) as caught:
        read_json(tmp_path / "x.json")
    assert f"{tmp_path / 'x.json'} is not a JSON file" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(StorageError, match="cannot read .*nosuch.json: No such file"):
        read_json(tmp_path / "nosuch.json")


# --- tensors ----------------------------------------------------------------------------------------------------------


def test_tensors_and_plain_values_are_read_back_exactly(tmp_path):
    value = {
        "t": torch.tensor([1e-45, 3.4e38, -0.0, float("inf")]),
        "l": [torch.arange(3), {"n": 1, "f": 1 / 3, "s": "é", "none": None, "yes": True}],
        "random": torch.get_rng_state(),
    }
    save_tensors(tmp_path / "x.pt", value)
    back = load_tensors(tmp_path / "x.pt")
    assert torch.equal(back["t"].view(torch.int32), value["t"].view(torch.int32))
    assert torch.equal(back["random"], value["random"]) and torch.equal(back["l"][0], value["l"][0])
    assert back["l"][1] == value["l"][1]


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("how", ["torch", "torch, old format", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_does_not_run_it(tmp_path, how):
    path, made = tmp_path / "x.pt", tmp_path / "made"
    harm = {"tensor": torch.zeros(2), "harm": Harm(str(made))}
    if how == "pickle":
        path.write_bytes(pickle.dumps(harm))
    else:
        torch.save(harm, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(StorageError, match="x.pt is damaged or no file of this plugin"):
        load_tensors(path)
    assert not made.exists()
    if how != "pickle":
        torch.load(path, weights_only=False)  # the harm is real
        assert made.exists()


def test_one_bit_that_is_another_is_found_though_pytorch_reads_it(tmp_path):
    path, numbers = tmp_path / "x.pt", torch.arange(1000.0)
    save_tensors(path, {"t": numbers})
    whole = path.read_bytes()
    assert torch.equal(torch.load(path, weights_only=True)["t"], numbers)  # a file as PyTorch's own
    for place in (0, whole.find(numbers.numpy().tobytes()) + 400, len(whole) - 80, len(whole) - 1):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(StorageError, match="x.pt is damaged"):
            load_tensors(path)
    torch.save({"t": numbers}, path)  # without a checksum
    with pytest.raises(StorageError, match="x.pt is damaged or no file of this plugin"):
        load_tensors(path)


@pytest.mark.parametrize("keep", [0, 1, 10, 0.5, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "x.pt"
    save_tensors(path, {"t": torch.arange(1000.0)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(StorageError, match="x.pt is damaged or no file of this plugin; remove it"):
        load_tensors(path)


@pytest.mark.parametrize("content", [b"not a tensor", b"PK\x03\x04", b"\x80\x04.", b"user_id:token\n"])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(StorageError, match="x.pt is damaged or no file of this plugin"):
        load_tensors(tmp_path / "x.pt")


def test_a_missing_file_of_tensors_is_named(tmp_path):
    with pytest.raises(StorageError, match="cannot read .*nosuch.pt: No such file"):
        load_tensors(tmp_path / "nosuch.pt")
    with pytest.raises(StorageError, match="cannot read .*: Is a directory"):
        load_tensors(tmp_path)


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    folder = tmp_path / "place" / "folder"
    folder.mkdir(parents=True)
    (folder / "old").write_bytes(b"old")
    return folder


def test_a_folder_is_replaced_whole(old):
    with new_directory(old) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "new").write_bytes(b"new")
        assert contents(old) == {"old": b"old"}
    assert contents(old.parent) == {"folder/below/new": b"new"}
    assert [p.name for p in old.parent.iterdir()] == ["folder"]
    assert stat.S_IMODE(old.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [FULL, ValueError("a bug"), KeyboardInterrupt()])
def test_a_folder_that_is_not_finished_leaves_the_old_one(old, error):
    with pytest.raises(StorageError if error is FULL else type(error)):
        with new_directory(old) as folder:
            (folder / "new").write_bytes(b"new")
            raise error
    assert contents(old.parent) == {"folder/old": b"old"}
    assert [p.name for p in old.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("failure", [fail, interrupt])
def test_a_folder_that_cannot_be_moved_leaves_the_old_one(old, monkeypatch, number, failure):
    """The rename of the old folder fails, or that of the new one when the old one is already aside."""
    replace, calls = os.replace, []

    def failing(source, target):
        calls.append(source)
        (failure if len(calls) == number else replace)(source, target)

    monkeypatch.setattr(storage.os, "replace", failing)
    with pytest.raises(StorageError if failure is fail else KeyboardInterrupt):
        with new_directory(old) as folder:
            (folder / "new").write_bytes(b"new")
    assert contents(old.parent) == {"folder/old": b"old"}
    assert [p.name for p in old.parent.iterdir()] == ["folder"]


def test_a_new_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(StorageError, match="cannot write .*new: No space left on device"):
        with new_directory(tmp_path / "new") as folder:
            (folder / "file").write_bytes(b"x")
            raise FULL
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(StorageError, match="cannot write"):
        with new_directory(tmp_path / "file" / "folder"):
            pytest.fail("there is nowhere to write")


# --- before the work --------------------------------------------------------------------------------------------------


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / "a" / "b", needed=1)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(StorageError, match="cannot write in .*; free the disk or choose another directory"):
        check_writable(tmp_path / "file")
    monkeypatch.setattr(storage.os, "fsync", fail)
    with pytest.raises(StorageError, match="No space left on device; free the disk"):
        check_writable(tmp_path)


def test_a_disk_with_too_little_space_is_refused_with_both_numbers(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 3 * 2**20})
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: usage)
    check_writable(tmp_path, needed=3 * 2**20)
    with pytest.raises(StorageError, match="has 3 MiB free and this run may write 4 MiB"):
        check_writable(tmp_path, needed=4 * 2**20)


# --- digests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, None], "b": "é"}, b"bytes", torch.arange(6).view(2, 3)], ids=["json", "bytes", "tensor"]
)
def test_a_digest_is_that_of_the_content(value):
    copy = value.clone() if torch.is_tensor(value) else type(value)(value)
    assert digest(value) == digest(copy)
    assert len(digest(value)) == 64 and int(digest(value), 16) >= 0


def test_a_digest_is_the_same_in_every_version():
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})


@pytest.mark.parametrize(
    "one, other",
    [
        ([1], [1.5]),
        (["a", "b"], ["ab"]),
        ({"a": 1}, {"a": None}),
        (torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.tensor([1.0]), torch.tensor([1.0 + 2**-23])),
    ],
    ids=str,
)
def test_other_contents_have_other_digests(one, other):
    assert digest(one) != digest(other)


def test_a_digest_of_a_tensor_is_that_of_its_values_not_of_its_memory():
    t = torch.arange(12.0).view(3, 4)
    assert digest(t[:, ::2]) == digest(t[:, ::2].clone())


def test_a_folder_whose_replacement_was_killed_halfway_comes_back(tmp_path):
    """Killed between the two renames of new_directory: the former folder lies aside, nothing at its place."""
    aside = tmp_path / ".data.old.xyz"
    aside.mkdir()
    (aside / "it").mkdir()
    (aside / "it" / "file").write_text("former")
    with pytest.raises(RuntimeError), new_directory(tmp_path / "data"):
        raise RuntimeError
    assert (tmp_path / "data" / "file").read_text() == "former"
