"""Files that are written whole or not at all, and read back without unpickling objects."""

import contextlib
import glob
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from recbole_farzi.errors import StorageError

__all__ = [
    "write_bytes",
    "write_arrays",
    "read_arrays",
    "write_text",
    "write_json",
    "read_json",
    "save_tensors",
    "load_tensors",
    "new_directory",
    "remove",
    "remove_leftovers",
    "remove_tree",
    "check_writable",
    "digest",
]


def write_bytes(path, data):
    """Write aside, flush to the disk, rename: ``path`` holds the old content or the new one, never a part.

    Raises:
        StorageError: the directory cannot be written (read-only, disk full, removed).
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:  # also when interrupted
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_text(path, text):
    """:func:`write_bytes` in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path, value):
    """Write a value as indented JSON; floats survive exactly."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path):
    """Read a JSON file.

    Raises:
        StorageError: it is not there or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is not a JSON file ({error}); remove it to begin anew") from error


def write_arrays(path, arrays):
    """Write NumPy arrays by name, compressed; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read_arrays(path):
    """Read what :func:`write_arrays` wrote; refuses arrays of objects, which would be unpickled.

    Raises:
        StorageError: the file is missing, damaged, or holds anything else.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # NumPy and zipfile raise many types for damaged or foreign files
        raise StorageError(f"{path} is damaged or no file of this plugin; remove it to begin anew") from error


def save_tensors(path, value):
    """Write nested dicts, lists, numbers, texts and tensors; what :func:`load_tensors` reads.

    The file is PyTorch's own, a zip archive, whose comment is a checksum of the rest: PyTorch looks at none when it reads.
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    content = buffer.getvalue()
    write_bytes(path, content[:-2] + _checksum(content))  # the last two bytes are the length of the comment


def load_tensors(path, device="cpu"):
    """Read what :func:`save_tensors` wrote; refuses files that would construct other objects.

    Raises:
        StorageError: the file is missing, damaged, or holds anything else.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        content, checksum = content[:-_CHECKSUM] + b"\0\0", content[-_CHECKSUM:]
        if checksum != _checksum(content):
            raise ValueError("its checksum differs")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles, which are refused
            return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:  # torch raises many types for damaged or foreign files
        raise StorageError(f"{path} is damaged or no file of this plugin; remove it to begin anew") from error


def _checksum(archive):
    """A zip archive's comment, with the two bytes of its length before it."""
    comment = b"sha256 " + digest(archive).encode()
    return len(comment).to_bytes(2, "little") + comment


_CHECKSUM = 2 + len("sha256 ") + 64


@contextlib.contextmanager
def new_directory(path):
    """A directory that replaces ``path`` when the block ends well, and is removed when it does not.

    Yields:
        Path of the directory to fill.

    Raises:
        StorageError: it cannot be created, filled or moved.
    """
    path = Path(path)
    temporary = aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _bring_back(path)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        yield temporary
        os.chmod(temporary, 0o755)
        if path.exists():
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            os.replace(path, aside / "it")
        os.replace(temporary, path)
    except StorageError as error:  # of a file within: name it where it would have been
        raise StorageError(str(error).replace(str(temporary), str(path))) from error
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:  # also when interrupted
        if aside is not None:
            if not path.exists():
                with contextlib.suppress(OSError):
                    os.replace(aside / "it", path)
            if path.exists():
                shutil.rmtree(aside, ignore_errors=True)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def remove(path):
    """Remove a file, if it is there.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove {path}: {error.strerror or error}") from error


def remove_tree(path):
    """Remove a directory with all that is in it, if it is there.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageError(f"cannot remove {path}: {error.strerror or error}") from error


def remove_leftovers(directory):
    """Remove what killed processes left behind: files that were being written in a directory, and unfinished or former
    versions of the directory itself beside it. To be called by who holds the directory alone
    (:func:`recbole_farzi.locks.alone_in`). A directory whose replacement was killed halfway comes back.
    """
    directory = Path(directory)
    with contextlib.suppress(OSError):
        _bring_back(directory)
        beside = re.compile(rf"\.{re.escape(directory.name)}\.(old\.)?{_RANDOM}")
        for path in directory.parent.iterdir():
            if beside.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        for path in directory.rglob(".*"):
            if re.fullmatch(rf"\..+\.{_RANDOM}", path.name) and path.is_file() and not path.is_symlink():
                path.unlink()


_RANDOM = "[a-z0-9_]{8}"  # the names of tempfile


def _bring_back(path):
    for left in path.parent.glob(f".{glob.escape(path.name)}.old.*/it"):  # killed between the two renames
        if not path.exists():
            os.replace(left, path)


def check_writable(directory, needed=0):
    """Refuse before any work a directory that cannot be written, or a disk with less than ``needed`` bytes free.

    Raises:
        StorageError: in one line, with what to do.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise StorageError(
            f"cannot write in {directory}: {error.strerror or error}; free the disk or choose another directory"
        ) from error
    if free < needed:
        raise StorageError(
            f"{directory} has {free / 2**20:.0f} MiB free and this run may write {needed / 2**20:.0f} MiB; free the "
            "disk or choose another directory"
        )


def digest(value):
    """SHA-256 of a JSON-able value, of bytes, or of tensors' contents, as hexadecimal text."""
    sha = hashlib.sha256()
    if isinstance(value, (bytes, bytearray)):
        sha.update(value)
    elif torch.is_tensor(value):
        sha.update(str((value.dtype, tuple(value.shape))).encode())
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    else:
        sha.update(json.dumps(value, sort_keys=True, default=str).encode())
    return sha.hexdigest()
