"""Language modelling on the Penn Treebank: full data, summaries, random sentences, a unigram model, at several sizes.

    python benchmarks/ptb.py DIR              # a tenth of the text; DIR holds ptb.train.txt, ptb.valid.txt, ...
    python benchmarks/ptb.py DIR --whole      # all of it: wants a GPU
    python benchmarks/ptb.py DIR --publish    # and results/ptb, and what README.md and docs/language.md say of it

Every run is stored under saved/ as soon as it is there: the same command goes on where it was interrupted.
"""

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path

from kneser_ney import perplexities
from publish import take_picture

from recbole_farzi import run_farzi
from recbole_farzi.data.convert import main as convert
from recbole_farzi.report.language import curve, markdown_table, points
from recbole_farzi.storage import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
RECORD = "results/ptb"
BEGIN, END = "<!-- ptb:begin -->", "<!-- ptb:end -->"
SHARES = (0.01, 0.05, 0.004, 0.0002)  # in the order of interest, should the time not be enough for all
HEADLINE = 0.01
LENGTH = 42  # events of a synthetic sequence
# Of a summary of one sequence, every inner step sees the same events: few steps, all of them differentiated.
SINGLE = {"farzi_inner_steps": 40, "farzi_inner_learning_rate": 0.02, "farzi_window": 40}
ORDER = 3  # of the Kneser-Ney model


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
            "farzi_inner_batch_size": min(sequences, 2),
            "farzi_output_path": f"dataset/{dataset}-farzi-{100 * share:g}",
            **(SINGLE if sequences == 1 else {}),
        }


def distillation_table(records):
    """Markdown: what distilling took, and what it gained on validation."""
    lines = [
        "| summary | seed | outer steps | seconds a step, with validations | best step | validation perplexity: start | "
        "best |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in records:
        summary, done = result["summary"], result["distillation"]
        scores = {one["step"]: one["metrics"].get("perplexity") for one in done["validations"]}
        lines.append(
            f"| {summary['sequences']} x {summary['length']} | {result['seed']} | {done['outer_steps']} | "
            f"{done['seconds'] / max(done['outer_steps'], 1):.1f} | {done['best_step']} | {scores[0]:.1f} | "
            f"{scores[done['best_step']]:.1f} |"
        )
    return "\n".join(lines)


def taken(records):
    """What all of it took by the clock, in words: as it was stored, so that what an earlier process did counts too."""
    runs = {
        (record["seed"], contender["key"], contender["events"], run["seed"]): run["seconds"] or 0.0
        for record in records
        for contender in record["contenders"]
        for run in contender["runs"]
    }
    parts = (
        max(record["pool"]["seconds"] for record in records) / 60,
        sum(record["distillation"]["seconds"] for record in records) / 60,
        sum(runs.values()) / 60,
    )
    return (
        "{:.0f} minutes by the clock, {:.0f} of them for the teacher, {:.0f} for distilling and {:.0f} for training all "
        "that is compared, evaluation not counted"
    ).format(sum(parts), *parts)


def headline(table, trigram):
    """What came out, in a sentence or two."""
    full = next(point for point in table if point.key == "full")
    unigram = next(point for point in table if point.key == "popularity")
    summary = min((p for p in table if p.key == "summary"), key=lambda point: abs(point.share - HEADLINE))
    same = {point.key: point for point in table if point.tokens == summary.tokens}

    def of_full(point):
        return "{:.0f}% (95% interval {:.0f}–{:.0f}%)".format(*(100 * value for value in point.perplexity_of_full))

    return (
        f"**A student of {summary.tokens:,} synthetic words ({100 * summary.share:.2g}% of the {full.tokens:,} of the "
        f"text; {summary.bytes / 1024:.0f} KB, {100 * summary.bytes / full.bytes:.0f}% of its size) has a test perplexity "
        f"of {summary.perplexity[0]:.0f}, {of_full(summary)} of full data's quality ({full.perplexity[0]:.0f}), where as "
        f"many words of random sentences give {same['random'].perplexity[0]:.0f}, the start from which it was distilled "
        f"{same['start'].perplexity[0]:.0f}, and a unigram model {unigram.perplexity[0]:.0f}.** A Kneser-Ney model of "
        f"order {ORDER} of the same text reaches {trigram:.0f}; next-word accuracy is {100 * summary.accuracy[0]:.1f}% "
        f"against {100 * full.accuracy[0]:.1f}%."
    )


def publish(names, records, spent, folder):
    """Write results/ptb, and the blocks of README.md and docs/language.md, from the results that there are."""
    table, trigram = points(records), perplexities(folder, ORDER)[1]
    record, environment, data = ROOT / RECORD, records[0]["environment"], records[0]["data"]
    record.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "curve.html"
        figure = curve(table, [(f"Kneser-Ney, order {ORDER}", trigram)])
        page.write_text(figure.to_html(include_plotlyjs=True, config={"displayModeBar": False}), encoding="utf-8")
        if not take_picture(page, record / "curve.png", height=490):
            print("no Chromium found: the picture was not taken anew", file=sys.stderr)
    kept = {
        name: {key: value for key, value in result.items() if key != "contenders"}
        for name, result in zip(names, records)
    }
    write_json(record / "results.json", {"runs": kept, "points": [vars(point) for point in table], "spent": spent})
    made = (
        f"`{records[0]['command']}` on {environment['machine']}, {environment['device']}, "
        f"{environment['threads']} thread(s), PyTorch {environment['torch']}, Python {platform.python_version()}: {spent}."
    )
    meaning = (
        f"Perplexity and next-word accuracy on {data['test_rows']:,} test sentences, each word and each end predicted "
        "from its sentence alone. ± is the standard deviation over seeds; in brackets, 95% of a bootstrap over test sentences."
    )
    result = f"{headline(table, trigram)}\n\n{markdown_table(table)}\n\n{meaning}"
    write_text(
        record / "table.md",
        f"{result}\n\n![per cent of full-data quality against size](curve.png)\n\n"
        f"{distillation_table(records)}\n\n{made}\n",
    )
    picture = f"![quality against size of the data]({RECORD}/curve.png)"
    place = f"The table: [`{RECORD}`]({RECORD}/table.md)."
    renew(ROOT / "README.md", f"{headline(table, trigram)}\n\n{picture}\n\n{made} {place}")
    renew(ROOT / "docs" / "language.md", f"{result}\n\n{distillation_table(records)}\n\n{made}")


def renew(page, block):
    """Put a new block between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    write_text(page, f"{before}{BEGIN}\n\n{block}\n\n{END}{rest.split(END)[1]}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("directory", help="folder of the Penn Treebank's three text files")
    parser.add_argument("--whole", action="store_true", help="all of the text in place of every tenth sentence")
    parser.add_argument("--publish", action="store_true", help="write results/ptb; renew README.md and docs")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of the training tokens")
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="options for all runs")
    arguments = parser.parse_args()
    dataset = "ptb" if arguments.whole else "ptb-tenth"
    folder = Path("dataset") / dataset
    if not (folder / "conversion.json").is_file():
        if convert(["ptb", arguments.directory, "--name", dataset, "--every", "1" if arguments.whole else "10"]):
            return 1
    given = dict(option.split("=", 1) for option in arguments.set)
    words = ["DIR" if word == arguments.directory else word for word in sys.argv[1:]]
    command = " ".join(["python benchmarks/ptb.py", *words])
    names, records = [], []
    for name, options in sizes(dataset, arguments.shares):
        options.update({key: json.loads(value) for key, value in given.items()}, farzi_report_path=f"report/{name}")
        out = run_farzi("SASRec", dataset, [str(ROOT / "properties" / "language.yaml")], options)
        names.append(name)
        records.append({**out["results"], "command": command})
        spent = taken(records)
        print(f"\n{markdown_table(points(records))}\n\n{spent}", flush=True)
        if arguments.publish:
            publish(names, records, spent, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
