"""Write the compatibility table of docs/models.md from the tests of every model that the installed RecBole exports.

    python benchmarks/compatibility.py

Runs tests/test_every_model.py and tests/test_hard_files.py on their slice of ML-100K, inspects each model there, and writes what was found.
"""

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import recbole  # noqa: E402  (after the path to this checkout)
import torch  # noqa: E402
from every_model import exported_models, settings, write_slice  # noqa: E402

from recbole_farzi.adapters import feature_layers  # noqa: E402
from recbole_farzi.configuration import build_config  # noqa: E402
from recbole_farzi.data import load_split  # noqa: E402
from recbole_farzi.errors import ModelError  # noqa: E402
from recbole_farzi.models import ModelFactory  # noqa: E402
from recbole_farzi.storage import write_text  # noqa: E402
from recbole_farzi.student import Student  # noqa: E402

BEGIN, END = "<!-- models:begin -->", "<!-- models:end -->"
CHECKS = {
    "test_one_hot_soft_events_give_the_scores_of_the_ids": "scores",
    "test_one_hot_soft_events_give_the_loss_of_the_ids": "loss",
    "test_one_hot_targets_after_items_give_the_loss_of_the_ids": "loss after items",
    "test_gradient_for_soft_events_agrees_with_finite_differences": "gradient",
    "test_a_step_along_the_meta_gradient_lowers_the_real_loss": "meta-gradient",
    "test_a_model_trained_on_a_summary_is_evaluated_by_recbole": "trained and evaluated",
    "test_plain_recbole_trains_on_the_hard_files": "hard files in plain RecBole",
}


def run_tests(folder):
    """``{model: {check: passed}}`` of one run of the tests."""
    report = Path(folder) / "report.xml"
    files = ["tests/test_every_model.py", "tests/test_hard_files.py"]
    command = [sys.executable, "-m", "pytest", "-q", *files, f"--junitxml={report}"]
    subprocess.run(command, cwd=ROOT, check=False)
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        of_a_model = re.fullmatch(r"(\w+)\[(\w+)\]", case.get("name"))
        if of_a_model is None:
            continue
        test, model = of_a_model.groups()
        found.setdefault(model, {})[CHECKS[test]] = not len(case)  # a failure, an error or a skip is a child
    return found


def describe(name, folder):
    """``(reads, trains by, remark)`` of a model, from its inspection on the slice."""
    config, model_class = build_config(name, "slice", (), settings(name, folder))
    split = load_split(config)
    model = ModelFactory(model_class, config, split.train.dataset)(0)
    try:
        traits = Student(model, config=config).traits
    except ModelError as error:
        return "–", "refused", str(error)
    more = (["users"] if traits.users else []) + (["features"] if feature_layers(model) else [])
    reads = ("all positions at once" if traits.causal else "every prefix") + "".join(f", {part}" for part in more)
    loss = {
        "own": "its own loss",
        "sequence": "its own loss on whole sequences",
        "cross-entropy": "cross-entropy of its scores" if traits.note else "its own loss, a cross-entropy",
    }[traits.objective]
    remarks = [traits.note] if traits.note else []
    remarks += ["scores by probabilities"] if traits.probabilities else []
    remarks += [] if traits.ranks else ["scores one item at a time"]
    remarks += ["draws negatives"] if {"neg_item_id", "label"} & traits.reads else []
    return reads, loss, "; ".join(remarks)


def table(found, described):
    """Markdown."""
    header = ["model", "reads", "trains by", *CHECKS.values(), "remark"]
    lines = [header, ["---"] * len(header)]
    for name, (reads, loss, remark) in described.items():
        checks = ["yes" if found.get(name, {}).get(check) else "**no**" for check in CHECKS.values()]
        lines.append([name, reads, loss, *checks, remark])
    passed = sum(all(found.get(name, {}).get(check) for check in CHECKS.values()) for name in described)
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return (
        f"{passed} of the {len(described)} sequential recommenders that RecBole {recbole.__version__} exports pass all checks "
        f"(PyTorch {torch.__version__}; written by `python benchmarks/compatibility.py`):\n\n{text}"
    )


def main():
    page = ROOT / "docs" / "models.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    with tempfile.TemporaryDirectory() as folder:
        found = run_tests(folder)
        real = write_slice(Path(folder))
        here = os.getcwd()
        os.chdir(folder)  # RecBole leaves folders where it runs
        try:
            described = {name: describe(name, real) for name in exported_models()}
        finally:
            os.chdir(here)
    write_text(page, f"{before}{BEGIN}\n\n{table(found, described)}\n\n{END}{after}")
    print(f"{page}: {len(described)} models")
    return 0


if __name__ == "__main__":
    sys.exit(main())
