"""What an outer step costs over 10,000 words, and what computing its loss in blocks does to time and memory.

    python benchmarks/outer_step.py            # table on standard output; each line is measured in a process of its own

The text is generated: words drawn by Zipf's law, sentences of 5 to 40 words. Seconds are of the processor; memory is what
the process's peak grew by while the loss and its gradient were computed (on CUDA: PyTorch's peak).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from recbole_farzi.configuration import build_config, properties_directory
from recbole_farzi.data import load_split
from recbole_farzi.data.convert import write_text_dataset
from recbole_farzi.data.text import Corpus
from recbole_farzi.distillation import Distiller
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import read_options
from recbole_farzi.starts import random_start
from recbole_farzi.student import Student

VOCABULARY, SENTENCES = 10_000, 64
OPTIONS = {
    "MAX_ITEM_LIST_LENGTH": 41, "n_layers": 1, "n_heads": 2, "hidden_size": 64, "inner_size": 128, "farzi_sequences": 22,
    "farzi_length": 42, "farzi_latent_dim": 16, "farzi_inner_batch_size": 4, "farzi_inner_steps": 30, "farzi_window": 30,
    "farzi_outer_batch_size": SENTENCES, "farzi_outer_teacher": 0.0, "farzi_pool_snapshots": [0], "state": "ERROR",
}  # fmt: skip


def make_distiller(block):
    """A :class:`Distiller` on generated text, from a random start."""
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(VOCABULARY - 2)]
    share = 1.0 / np.arange(1, len(words) + 1)
    share /= share.sum()
    text = [[words[i] for i in rng.choice(len(words), size=int(rng.integers(5, 41)), p=share)] for _ in range(400)]
    parts = {"train": text[:360], "valid": text[360:380], "test": text[380:]}
    corpus = Corpus(parts, ["<eos>", "<unk>", *words], "<eos>", dict.fromkeys(parts, 0))
    with tempfile.TemporaryDirectory() as folder:
        write_text_dataset(Path(folder) / "zipf", corpus)
        config, model_class = build_config(
            "SASRec", "zipf", [properties_directory() / "language.yaml"],
            {**OPTIONS, "data_path": folder, "farzi_outer_block": block},
        )
        split = load_split(config)
    options = read_options(config)
    factory = ModelFactory(model_class, config, split.train.dataset)
    student = Student(factory(1, dropout=False).train())
    shape = options.summary
    start = random_start(shape.sequences, shape.length, shape.latent_dims[-1], split.vocabulary, 1.0, 0)
    return Distiller(
        student, student, start, options.inner, options.outer,
        lambda seed: Student(factory(seed, dropout=False), student.traits).parameter_dict(), split.sequences, 1,
    )  # fmt: skip


def peak(device):
    """Peak memory so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(what, block):
    """Processor seconds and growth of the peak memory of one loss with its gradient, or of one outer step."""
    distiller = make_distiller(block)
    params = {name: value.requires_grad_(True) for name, value in distiller.initial(1).items()}
    before = peak(distiller.device)
    if what == "step":
        distiller.step()
    begun = time.process_time()
    if what == "step":
        distiller.step()
    else:
        distiller._outer_loss(params).backward()
    seconds = time.process_time() - begun
    return {"seconds": seconds, "bytes": peak(distiller.device) - before}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "BLOCK"), help="one line of the table, as JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        what, block = arguments.measure
        print(json.dumps(measure(what, int(block))))
        return
    threads = torch.get_num_threads()
    print(f"SASRec, 1 layer, hidden 64, {VOCABULARY:,} words; {SENTENCES} sentences in the outer loss; {threads} thread(s)")
    print("| what | seconds | MiB |\n| --- | ---: | ---: |")
    for what, block in [("loss", SENTENCES), ("loss", 16), ("loss", 4), ("loss", 1), ("step", SENTENCES), ("step", 4)]:
        command = [sys.executable, "-W", "ignore", __file__, "--measure", what, str(block)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        how = "at once" if block == SENTENCES else f"by {block} sentence(s)"
        step = "a whole outer step (T = 30, 4 x 42 events a step), its loss"
        name = "outer loss and its gradient" if what == "loss" else step
        print(f"| {name}, {how} | {result['seconds']:.2f} | {result['bytes'] / 2**20:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
