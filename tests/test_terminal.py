"""What is printed is in files already: a terminal that cannot show it ends no run."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import recbole_farzi

ROOT = Path(recbole_farzi.__file__).parent.parent
SAYS = "from recbole_farzi.terminal import say\nsay('one \u2013 two' + '\\n' * 100_000)\nsay('three')\n"


def said(code=SAYS, **to):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    return subprocess.run([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True, timeout=120, **to)


def test_what_an_encoding_lacks_is_a_question_mark():
    done = said(stdout=subprocess.PIPE)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.split() == ["one", "?", "two", "three"]


def test_a_pipe_that_is_closed_costs_a_line():
    read, write = os.pipe()
    os.close(read)
    try:
        done = said(stdout=write)
    finally:
        os.close(write)
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and "Broken pipe" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_disk_that_is_full_costs_a_line():
    with open("/dev/full", "w") as full:
        done = said(stdout=full)
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and "No space left on device" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_log_on_a_full_disk_costs_a_line():
    code = (
        "import logging\nfrom recbole_farzi.terminal import forgive_full_disks\n"
        "logging.basicConfig(level='INFO', format='%(message)s', handlers=[logging.FileHandler('/dev/full'), logging.StreamHandler()])\n"
        "forgive_full_disks()\nlogging.info('one')\nlogging.info('two')\n"
    )
    done = said(code)
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and sorted(lines[:2]) == sorted(["The log ends here: cannot write /dev/full: No space left on device", "one"])
    assert lines[2:] == ["two"]


def test_in_a_host_it_is_plain_printing(capsys):
    from recbole_farzi.terminal import say

    before = logging.getLogger().handlers[:]
    say("a table")
    assert capsys.readouterr().out == "a table\n" and logging.getLogger().handlers == before
