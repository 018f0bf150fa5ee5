"""The tests on other versions of Python, NumPy, pandas and PyTorch, each cell in an environment of its own.

    python benchmarks/matrix.py                            # every cell that is not on record yet
    python benchmarks/matrix.py --only py3.12-numpy1.26.4  # the cells whose names begin so, again
    python benchmarks/matrix.py --table                    # the table of docs/reliability.md from the record alone

Writes results/reliability/matrix.json after each cell, so that an interrupted run goes on with the next one, and the table of
docs/reliability.md. Needs the interpreters (python3.10 to python3.13) on the path; the cells are a covering set, in which every
version of one thing meets an old and a new one of another, and which ends with combinations that should not exist.
Environments are made in --folder and removed after use; a CUDA build of PyTorch takes about 6 GB there.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from datetime import date
from pathlib import Path
from typing import NamedTuple

from recbole_farzi.storage import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
RECORD, PAGE = ROOT / "results" / "reliability" / "matrix.json", ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- matrix:begin -->", "<!-- matrix:end -->"
# What depends on versions: the repairs of RecBole; atomic files and splits (pandas); files of numbers (NumPy); the adjoint of every
# update rule in float64 against autograd (PyTorch); and the whole job, which goes through all the rest.
TESTS = (
    "tests/test_compat.py", "tests/data", "tests/test_storage.py", "tests/test_emission.py", "tests/adjoint/test_rules.py",
    "tests/test_run.py::test_the_whole_job", "tests/test_run.py::test_runs_survive_an_interruption",
)  # fmt: skip


class Cell(NamedTuple):
    """Versions that meet."""

    python: str
    numpy: str
    pandas: str
    torch: str

    @property
    def name(self):
        return f"py{self.python}-numpy{self.numpy}-pandas{self.pandas}-torch{self.torch}"


CELLS = (
    Cell("3.11", "2.4.6", "3.1.1", "2.13.0"),
    Cell("3.11", "1.26.4", "2.2.3", "2.13.0"),
    Cell("3.13", "2.5.5", "3.1.1", "2.15.0"),
    Cell("3.12", "1.26.4", "2.2.3", "2.4.0"),
    Cell("3.10", "1.26.4", "2.0.3", "2.4.0"),
    Cell("3.12", "2.4.6", "2.3.3", "2.6.0"),
    Cell("3.10", "2.2.6", "2.3.3", "2.10.0"),
    Cell("3.11", "1.26.4", "3.0.6", "2.9.1"),
    Cell("3.13", "2.4.6", "3.1.1", "2.14.1"),
    Cell("3.11", "1.26.4", "3.1.1", "2.13.0"),
    Cell("3.10", "2.2.6", "3.1.1", "2.13.0"),
    Cell("3.13", "1.26.4", "2.3.3", "2.13.0"),
    Cell("3.13", "2.4.6", "3.1.1", "2.4.0"),
)


def make(cell, folder):
    """Make the environment as the Makefile does; returns ``(its python, None)`` or ``(None, why not)``."""
    interpreter = shutil.which(f"python{cell.python}")
    if interpreter is None or subprocess.run([interpreter, "-c", ""], capture_output=True).returncode:
        raise SystemExit(f"there is no python{cell.python} on the path that runs; what is on record stays")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    constraints = folder / "constraints.txt"
    constraints.write_text(f"numpy=={cell.numpy}\npandas=={cell.pandas}\ntorch=={cell.torch}\n")
    subprocess.run([interpreter, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--no-compile", "--only-binary=:all:", "-c", str(constraints)]
    steps = [[*install, f"{ROOT}[test]"]]
    if tuple(map(int, cell.python.split("."))) >= (3, 12):
        steps.append([*install, "--no-deps", "recbole>=1.2.0,<1.3"])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            return None, _why(done.stdout + done.stderr)
    return python, None


def _why(told):
    """What pip says is in the way, in a line."""
    lines = [line.removeprefix("ERROR: ").strip() for line in told.splitlines() if "requires a different" not in line]
    if "The conflict is caused by:" in lines:
        causes = lines[lines.index("The conflict is caused by:") + 1 :]
        return "; ".join(causes[: causes.index("")] if "" in causes else causes)[:300]
    telling = [line for line in lines if "No matching distribution" in line or line.startswith("Cannot install")]
    return (telling or [line for line in lines if line] or ["pip fails"])[0][:200].replace(str(ROOT), "recbole-farzi")


def try_out(python, folder, tests):
    """Run the tests; returns what happened, as plain values."""
    versions = (
        "import json, platform, importlib.metadata as m; print(json.dumps({'python': platform.python_version(), "
        "**{name: m.version(name) for name in ('numpy', 'pandas', 'torch', 'scipy', 'recbole')}}))"
    )
    found = json.loads(subprocess.run([str(python), "-c", versions], capture_output=True, text=True, check=True).stdout)
    report = folder / "report.xml"
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if not report.is_file():
        return {"outcome": "the tests did not start", "versions": found, "said": done.stdout[-500:] + done.stderr[-500:]}
    counts, wrong = {"passed": 0, "failed": 0, "skipped": 0}, []
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        what = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        counts[what] += 1
        if what == "failed":
            wrong.append(f"{case.get('classname')}.{case.get('name')}")
    outcome = "tested" if counts["passed"] + counts["failed"] else "no test ran"
    return {"outcome": outcome, "versions": found, **counts, "failures": wrong}


def run(cell, folder, tests, commit):
    """Everything about one cell."""
    begun = time.monotonic()
    try:
        python, why = make(cell, folder)
        result = {"outcome": "cannot be installed", "why": why} if python is None else try_out(python, folder, tests)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        **cell._asdict(), **result, "minutes": round((time.monotonic() - begun) / 60, 1), "date": date.today().isoformat(),
        "commit": commit, "system": f"{platform.system()} {platform.machine()}", "tests": list(tests),
    }  # fmt: skip


def _commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or None


def table(record):
    """Markdown of what was tried, and what was not."""
    lines = ["| Python | NumPy | pandas | PyTorch | outcome |", "|---|---|---|---|---|"]
    for cell in CELLS:
        found = record.get(cell.name)
        if found is None:
            said = "not tried"
        elif found["outcome"] == "tested":
            said = f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped"
        else:
            said = found["outcome"] + (f": {found['why']}" if found.get("why") else "")
        versions = (found or {}).get("versions", {})
        shown = [versions.get(name, asked) for name, asked in zip(Cell._fields, cell)]
        lines.append(f"| {' | '.join(shown)} | {said} |")
    return "\n".join(lines)


def publish(record):
    """Renew the table of docs/reliability.md."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    write_text(PAGE, f"{before}{BEGIN}\n\n{table(record)}\n\n{END}{rest.split(END)[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="cells whose names begin so, though on record")
    parser.add_argument("--tests", nargs="+", default=list(TESTS), help="what to run in each cell")
    parser.add_argument("--folder", type=Path, default=ROOT / ".matrix", help="where environments are made, and removed")
    parser.add_argument("--table", action="store_true", help="run nothing")
    given = parser.parse_args()
    record, commit = read_json(RECORD) if RECORD.is_file() else {}, _commit()  # before the record is part of what differs
    for cell in () if given.table else CELLS:
        asked = any(cell.name.startswith(name) for name in given.only)
        if asked if given.only else cell.name not in record:
            record[cell.name] = run(cell, given.folder / cell.name, given.tests, commit)
            write_json(RECORD, record)
            publish(record)
            print(table(record).splitlines()[2 + CELLS.index(cell)], flush=True)
    publish(record)


if __name__ == "__main__":
    main()
