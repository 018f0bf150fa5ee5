"""Put a cross-architecture table on record: results/ml-100k-architectures, its picture, and the blocks of README and docs/models.md.

    python run_farzi.py -m SASRec GRU4Rec --students ...          # benchmarks/architectures.yaml has the whole command
    python benchmarks/publish_architectures.py report/ml-100k-architectures

Tables and page are made again from architectures.json. The picture is the page in a headless Chromium; without one the old
picture stays, and this says so.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from publish import ROOT, take_picture
from recbole_farzi.report.architectures import csv_document, headline, markdown_document, relative_table
from recbole_farzi.report.architectures_figure import html_document
from recbole_farzi.storage import read_json, write_json, write_text

BEGIN, END = "<!-- architectures:begin -->", "<!-- architectures:end -->"
METRICS = ["ndcg@10", "ndcg@100", "crossentropy"]


def block(results, record, level, table):
    """Markdown: a sentence, the picture, the short table if wanted, and the command; ``level`` leads from the page to the root."""
    return "\n\n".join(
        [
            BEGIN,
            f"**{headline(results, METRICS[0])}**",
            f"![Each model's quality on each summary, against its own on full data]({level}{record}/architectures.png)",
            *([relative_table(results, METRICS)] if table else []),
            f"Per cent of the same model's quality on full data, with 95% intervals over users and seeds; of the cross-entropy the "
            f"difference in nats. Made by `{results['command']}` on {results['date']}, and put here by "
            f"`python benchmarks/publish_architectures.py`; everything else about it is in "
            f"[`{record}`]({level}{record}/architectures.md).",
            END,
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="folder that run_farzi.py --students wrote")
    given = parser.parse_args()
    results = read_json(given.report / "architectures.json")
    record = ROOT / "results" / given.report.resolve().name
    record.mkdir(parents=True, exist_ok=True)
    write_json(record / "architectures.json", results)
    write_text(record / "architectures.md", markdown_document(results))
    write_text(record / "architectures.csv", csv_document(results))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "architectures.html"
        write_text(page, html_document(results, METRICS))
        if not take_picture(page, record / "architectures.png", height=210 + 46 * len(results["students"])):
            print("no Chromium found: the picture was not taken anew", file=sys.stderr)
    for name, level, table in (("README.md", "", False), ("docs/models.md", "../", True)):
        text = (ROOT / name).read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        write_text(ROOT / name, before + block(results, record.relative_to(ROOT).as_posix(), level, table) + rest.split(END)[1])


if __name__ == "__main__":
    main()
