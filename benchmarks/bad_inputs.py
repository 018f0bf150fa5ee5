"""Bad input by the thousand: run the property tests with their large profile, and put the outcome into docs/reliability.md.

    python benchmarks/bad_inputs.py            # 1,500 examples a test; half an hour
    python benchmarks/bad_inputs.py --table    # the table from results/reliability/bad_inputs.jsonl alone

A test that fails leaves no line: the table shows those that passed.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from recbole_farzi.storage import write_text

ROOT = Path(__file__).resolve().parent.parent
RECORD, PAGE = ROOT / "results" / "reliability" / "bad_inputs.jsonl", ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- bad_inputs:begin -->", "<!-- bad_inputs:end -->"


def table(lines):
    """Markdown of the record's lines; of two of the same test the later counts."""
    found = {line["test"]: line for line in lines}
    rows = ["| what was given | examples | outcomes |", "|---|---|---|"]
    for name, line in sorted(found.items()):
        outcomes = ", ".join(f"{count:,} {what}" for what, count in line.items() if what not in ("test", "examples"))
        rows.append(f"| {name} | {line['examples']:,} | {outcomes} |")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="run nothing")
    code = 0
    if not parser.parse_args().table:
        RECORD.unlink(missing_ok=True)
        environment = {**os.environ, "HYPOTHESIS_PROFILE": "record", "FARZI_OUTCOMES": str(RECORD)}
        command = [sys.executable, "-m", "pytest", "-q", *sorted(map(str, ROOT.glob("tests/reliability/test_bad_*.py")))]
        code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    lines = [json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    write_text(PAGE, f"{before}{BEGIN}\n\n{table(lines)}\n\n{END}{rest.split(END)[1]}")
    return code


if __name__ == "__main__":
    sys.exit(main())
