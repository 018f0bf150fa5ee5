"""Places that one run at a time may write.

The lock is the operating system's (POSIX record locks, ``fcntl.lockf``) on a hidden file beside the place: it belongs to the
process, its children do not inherit it, and it is gone when the process is, however it ended. A file that a killed
process left behind locks nothing.
"""

import contextlib
import errno
import json
import logging
import os
import platform
import threading
import time
from pathlib import Path

from recbole_farzi.errors import StorageError, TakenError

try:
    import fcntl
except ImportError:  # no POSIX: the system is asked nothing, and a warning says so
    fcntl = None

__all__ = ["alone_in"]

_held = {}  # path of lock file: thread that holds it
_guard = threading.Lock()


@contextlib.contextmanager
def alone_in(*places):
    """Inside, no other run writes in these places; the same thread may enter again.

    Args:
        places: files or directories, which need not exist; the folder that each is in does, or is made.

    Raises:
        TakenError: another run is there, named with its process and the time when it began.
        StorageError: the place cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for path in sorted({_lock_file(place) for place in places}):
            stack.enter_context(_alone(path))
        yield


def _lock_file(place):
    place = Path(os.path.abspath(place))
    if not place.name:
        raise StorageError(f"{place} cannot be written by a run; give a folder in it")
    return place.with_name(f".{place.name}.lock")


@contextlib.contextmanager
def _alone(path):
    me = threading.get_ident()
    with _guard:
        owner = _held.get(path)
        if owner not in (None, me):
            raise _taken(path, {"process": os.getpid()})
        handle = None if owner else _acquire(path)
        _held[path] = me
    try:
        yield
    finally:
        if not owner:
            with _guard:
                del _held[path]
                _release(path, handle)


def _acquire(path):
    if fcntl is None:
        return _unlocked(path)
    handle = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while handle is None:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # POSIX allows either
                raise _taken(path, _read(handle)) from None
            if not _is(path, handle):  # its last holder removed the file between the two calls
                os.close(handle)
                handle = None
        who = {"process": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(who).encode())
        return handle
    except BaseException as error:
        if handle is not None:
            os.close(handle)
        if isinstance(error, OSError) and error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
            return _unlocked(path)  # some network file systems
        if isinstance(error, OSError):
            raise StorageError(f"cannot write in {path.parent}: {error.strerror or error}") from error
        raise


def _unlocked(path):
    logging.getLogger().warning(f"There are no file locks here: nothing keeps a second run out of {path.parent}")


def _release(path, handle):
    if handle is None:
        return
    with contextlib.suppress(OSError):
        if _is(path, handle):
            os.unlink(path)  # while it is still locked: nobody can have taken it
    with contextlib.suppress(OSError):
        os.close(handle)


def _is(path, handle):
    try:
        mine, there = os.fstat(handle), os.stat(path)
    except OSError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _read(handle):
    try:
        who = json.loads(os.pread(handle, 1000, 0))
    except (OSError, ValueError):
        who = {}
    return who if isinstance(who, dict) else {}


def _taken(path, who):
    place = path.with_name(path.name[1 : -len(".lock")])
    known = [f"{name} {who[name]}" for name in ("process", "since") if name in who]
    if who.get("host") not in (None, platform.node()):
        known.append(f"on {who['host']}")
    details = f" ({', '.join(known)})" if known else ""
    return TakenError(
        f"another run is writing in {place}{details}; wait for it, or give this one "
        "places of its own (checkpoint_dir, farzi_output_path, farzi_report_path)"
    )
