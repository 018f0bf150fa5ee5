"""SIGTERM and SIGHUP end a run as Ctrl-C does; others' handlers are left alone."""

import signal
import threading

import pytest

from recbole_farzi.signals import ending_signals

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def default_handlers():
    former = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_it_arrives_as_an_interrupt_and_is_named(number):
    with ending_signals() as came:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert came == [number] and signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_ignored_stays_ignored(number):
    """As under nohup."""
    signal.signal(number, signal.SIG_IGN)
    with ending_signals() as came:
        signal.raise_signal(number)
    assert came == [] and signal.getsignal(number) is signal.SIG_IGN


def test_a_hosts_own_handler_is_kept():
    seen = []
    signal.signal(SIGNALS[0], lambda number, frame: seen.append(number))
    with ending_signals() as came:
        signal.raise_signal(SIGNALS[0])
    assert seen == [SIGNALS[0]] and came == []


def test_other_threads_may_run_it_too():
    found = []

    def run():
        with ending_signals() as came:
            found.append(came)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [[]] and signal.getsignal(SIGNALS[0]) is signal.SIG_DFL
