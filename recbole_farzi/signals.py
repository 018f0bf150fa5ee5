"""What batch systems and closed terminals send ends a run as Ctrl-C does: in one line that says where it stopped."""

import contextlib
import signal
import threading

__all__ = ["ending_signals"]

_NAMES = ("SIGTERM", "SIGHUP")


@contextlib.contextmanager
def ending_signals():
    """Inside, SIGTERM and SIGHUP raise KeyboardInterrupt, unless they are ignored (``nohup``) or taken by somebody else.

    Only Python's main thread may set handlers: in another one, nothing is changed.

    Yields:
        list of the :class:`signal.Signals` that came.
    """
    came, former = [], {}

    def end(number, _):
        came.append(signal.Signals(number))
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:
                former[number] = signal.signal(number, end)
    try:
        yield came
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
