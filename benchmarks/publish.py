"""Put a run's report on record: copy its numbers to results/, and renew the table and the picture of the README.

    python run_farzi.py                                        # writes report/ml-100k-SASRec/
    python benchmarks/publish.py report/ml-100k-SASRec         # writes results/ml-100k-SASRec/ and README.md

    python run_farzi.py -d amazon-magazine --data_path=datasets
    python benchmarks/publish.py --record_only report/amazon-magazine-SASRec

The pictures are of report.html in a headless Chromium: its top, its strata in dark colours, and how it looks on a phone; without a
Chromium the old ones stay, and this says so. The page itself and strata.csv are large and left out: `run_farzi.py --report FOLDER`
makes them again from results.json and rows.npz. So are rows of more than 1 MiB: without them a report made again has no intervals.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from recbole_farzi.report import read_saved
from recbole_farzi.report.aggregate import aggregate
from recbole_farzi.report.tables import contenders_table, to_markdown
from recbole_farzi.report.words import gain_sentences, headline, headline_metrics, kilobytes, main_metrics, metric_name
from recbole_farzi.storage import write_text

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
LARGEST = 2**20  # bytes of a record's rows
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def readme_block(results, rows, record):
    """Markdown: headline, tables, the command and the machine; ``record`` is the folder of the full report."""
    report = aggregate(results, rows)
    environment, distillation = results["environment"], results["distillation"]
    minutes = (results["pool"]["seconds"] + distillation["seconds"]) / 60
    few = [*headline_metrics(report), *(metric for metric in report.metrics if metric == "crossentropy")]
    left_out = [metric_name(metric) for metric in main_metrics(report) if metric not in few]
    others = ", ".join([*left_out, "other strata and metrics, and what each contender is: in the report."])
    parts = [
        BEGIN,
        f"**{headline(report)}.** ({kilobytes(results['summary']['bytes'])} KB are `Z`, `M`, its bias and the items of the histories.)",
        f"![The report of this run]({record}/report.png)",
        to_markdown(contenders_table(replace(report, metrics=few))),
        "In brackets behind a metric its 95% interval over users and students and, after the semicolon, per cent of full data (of the "
        f"cross-entropy the difference); ▼ significantly worse than full data, ▲ better. {others}",
        "\n".join(f"* {sentence}" for sentence in gain_sentences(report) if metric_name("crossentropy") not in sentence),
        f"Made by `{results['command']}` ({environment['device'].upper()}, {environment['threads']} threads, PyTorch "
        f"{environment['torch']}; {minutes:.0f} minutes for the pool and {distillation['outer_steps']} outer steps), and put here by "
        f"`python benchmarks/publish.py`; everything else about it is in [`{record}`]({record}/report.md).",
        END,
    ]
    return "\n\n".join(parts)


def take_picture(page, target, height=1500):
    """Screenshot of the top of a page; returns whether there was a browser to take it."""
    browser = find_browser()
    if browser is not None:
        shoot(browser, page.resolve().as_uri(), target, 1280, height)
    return browser is not None


def find_browser():
    return next((found for found in map(shutil.which, CHROMIUM) if found), None)


def take_pictures(page, record):
    """Pictures of a page; returns whether there was a browser to take them."""
    if not take_picture(page, record / "report.png"):
        return False
    browser = find_browser()
    dark = "--blink-settings=preferredColorScheme=0"
    with tempfile.TemporaryDirectory() as folder:
        # Frames: Chromium's windows are at least 500 wide, and show the beginning of a page.
        whole = framed(Path(folder) / "dark.html", page, 1280, 1240, ["cold-to-warm-users"])
        shoot(browser, whole.as_uri(), record / "report-dark.png", 1280, 1240, dark)
        phone = framed(Path(folder) / "phone.html", page, 390, 1300, ["", "contenders-on-test", "cold-to-warm-items", "users-by-items"])
        shoot(browser, phone.as_uri(), record / "report-phone.png", 4 * 390 + 3 * 12, 1300)
    return True


def framed(file, page, width, height, sections):
    """A page that shows sections of another one beside each other, each as if in a window of that size."""
    frames = [
        f'<iframe src="{page.resolve().as_uri()}#{section}" style="border:0;width:{width}px;height:{height}px"></iframe>'
        for section in sections
    ]
    file.write_text(f'<body style="margin:0;display:flex;gap:12px;background:#888">{"".join(frames)}</body>', encoding="utf-8")
    return file


def shoot(browser, address, target, width=1280, height=1500, *options):
    """A screenshot of an address."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            "--disable-background-networking", "--virtual-time-budget=15000", f"--user-data-dir={profile}",
            "--allow-file-access-from-files", *options, f"--window-size={width},{height}", f"--screenshot={target.resolve()}", address,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=600)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="folder that run_farzi.py wrote")
    parser.add_argument("--record_only", action="store_true", help="leave the README as it is")
    given = parser.parse_args()
    source = given.report
    results, rows = read_saved(source)
    record = ROOT / "results" / source.name
    record.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "rows.npz", "comparisons.csv", "report.md"):
        if name == "rows.npz" and (source / name).stat().st_size > LARGEST:
            (record / name).unlink(missing_ok=True)
        else:
            shutil.copyfile(source / name, record / name)
    if not take_pictures(source / "report.html", record):
        print("no Chromium found: the pictures were not taken anew", file=sys.stderr)
    if given.record_only:
        return
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    block = readme_block(results, rows, record.relative_to(ROOT).as_posix())
    write_text(ROOT / "README.md", before + block + after)


if __name__ == "__main__":
    main()
