"""Language modelling on the Penn Treebank: full data, summaries, random sentences and a unigram model, at several sizes.

    python benchmarks/ptb.py DIR              # a tenth of the text; DIR holds ptb.train.txt, ptb.valid.txt, ptb.test.txt
    python benchmarks/ptb.py DIR --whole      # all of it: wants a GPU
    python benchmarks/ptb.py DIR --publish    # and results/ptb: table, curve, numbers, from what there is so far

Every run is stored under saved/ as soon as it is there: the same command goes on where it was interrupted.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

from publish import take_picture

from recbole_farzi import run_farzi
from recbole_farzi.data.convert import main as convert
from recbole_farzi.report.language import curve, markdown_table, points
from recbole_farzi.storage import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
SHARES = (0.01, 0.05, 0.004, 0.0002)  # in the order of interest, should the time not be enough for all
LENGTH = 42  # events of a synthetic sequence


def shape(tokens, share):
    """Number and length of the synthetic sequences that make about a share of the tokens."""
    wanted = tokens * share
    return (1, round(wanted)) if wanted < LENGTH else (round(wanted / LENGTH), LENGTH)


def sizes(dataset, shares):
    """``[(name, options), ...]`` of the summaries."""
    tokens = read_json(Path("dataset") / dataset / "conversion.json")["tokens"]["train"]
    for share in shares:
        sequences, length = shape(tokens, share)
        yield f"{dataset}-{100 * share:g}", {
            "farzi_sequences": sequences,
            "farzi_length": length,
            "farzi_inner_batch_size": min(sequences, 4),
            "farzi_output_path": f"dataset/{dataset}-farzi-{100 * share:g}",
        }


def publish(results, records, minutes):
    """Write results/ptb from the results that there are."""
    folder = ROOT / "results" / "ptb"
    table = points(records)
    environment, data = records[0]["environment"], records[0]["data"]
    figure = curve(table)
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "curve.html"
        page.write_text(figure.to_html(include_plotlyjs=True), encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        pictured = take_picture(page, folder / "curve.png", height=470)
    kept = {
        name: {key: value for key, value in result.items() if key != "contenders"}
        for name, result in zip(results, records)
    }
    write_json(folder / "results.json", {"runs": kept, "points": [vars(point) for point in table]})
    steps = "; ".join(
        f"{result['summary']['sequences']} x {result['summary']['length']} events: "
        f"{result['distillation']['outer_steps']} outer steps in {result['distillation']['seconds'] / 60:.1f} minutes, best at {result['distillation']['best_step']}"
        for result in records
    )
    picture = "![per cent of full-data perplexity against size](curve.png)\n\n" if pictured else ""
    write_text(
        folder / "table.md",
        f"{markdown_table(table)}\n\n{picture}"
        f"Perplexity and next-word accuracy on {data['test_rows']:,} test sentences, every word and end of sentence "
        "predicted from its sentence alone. ± is the standard deviation over seeds; in brackets, 95% of a bootstrap over test sentences.\n\n"
        f"`{records[0]['command']}` on {environment['machine']}, {environment['device']}, "
        f"{environment['threads']} thread(s), PyTorch {environment['torch']}, Python {platform.python_version()}; {minutes}. {steps}.\n",
    )
    return table


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("directory", help="folder of the Penn Treebank's three text files")
    parser.add_argument("--whole", action="store_true", help="all of the text in place of every tenth sentence")
    parser.add_argument("--publish", action="store_true", help="write results/ptb")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of the training tokens")
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="options for all runs")
    arguments = parser.parse_args()
    dataset = "ptb" if arguments.whole else "ptb-tenth"
    if not (Path("dataset") / dataset / "conversion.json").is_file():
        if convert(["ptb", arguments.directory, "--name", dataset, "--every", "1" if arguments.whole else "10"]):
            return 1
    given = dict(option.split("=", 1) for option in arguments.set)
    names, records, begun, busy = [], [], time.perf_counter(), time.process_time()
    for name, options in sizes(dataset, arguments.shares):
        options.update({key: json.loads(value) for key, value in given.items()}, farzi_report_path=f"report/{name}")
        out = run_farzi("SASRec", dataset, [str(ROOT / "properties" / "language.yaml")], options)
        command = f"python benchmarks/ptb.py DIR{' --whole' if arguments.whole else ''}"
        names.append(name)
        records.append({**out["results"], "command": command})
        minutes = (
            f"{(time.perf_counter() - begun) / 60:.0f} minutes, "
            f"{(time.process_time() - busy) / 60:.0f} of them on the processor"
        )
        print(f"\n{markdown_table(points(records))}\n\n{minutes}", flush=True)
        if arguments.publish:
            publish(names, records, minutes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
