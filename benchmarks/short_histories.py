"""What does validation not see, where only users with long histories have a row there?

    python benchmarks/short_histories.py -d amazon-magazine --data_path=datasets     # 20 minutes on one core

With leave-one-out a user of three events has one for test, two for training, and none for validation. Here the second of the two is
held out of a part of these users, who then have no training event left; models are trained without them, and these rows are
scored beside those of validation: by full data (the pool's models), by the ensembles of the first three and of all of them, and
by students of the undistilled starts of each ensemble, of several ranks and shapes (sequences x events; a step of training reads as many
sequences of each). Test is not looked at. Writes ``results/quality/short-histories-DATASET.csv`` and ``.md``.
"""

import argparse
import itertools
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pandas as pd
import torch
from undistilled import put_on_record, start_on_validation

from recbole_farzi.configuration import parse_overrides
from recbole_farzi.data import history_field, load_loaders, training_sequences
from recbole_farzi.ensemble import Ensemble
from recbole_farzi.sequences import Sequences

DRAWS = (0, 8, 9)  # of histories: one as they come, and two that cover
STUDENTS = 2
SHARE = 3  # one of so many of these users
FEWER = 3  # teachers, beside all of the pool
SEED = 5


def without_some(dataset, validated):
    """The training histories without those of some users with two events; these users' ``[first, second]``, as an array.

    Args:
        dataset: RecBole's, of training.
        validated: users who have a row in validation.
    """
    whole = training_sequences(dataset)
    short = [number for number, (user, items) in enumerate(zip(whole.users, whole.items)) if len(items) == 2 and user not in validated]
    out = set(np.random.default_rng(SEED).permutation(short)[: len(short) // SHARE].tolist())
    if not out:
        sys.exit(f"fewer than {SHARE} users have two training events and no row in validation: it sees every kind of user")
    kept = [(user, items) for number, (user, items) in enumerate(zip(whole.users, whole.items)) if number not in out]
    return Sequences(kept, whole.length), np.array([whole.items[number] for number in sorted(out)])


def rows_of(valid):
    """``(histories [n, length], lengths [n], targets [n])`` of RecBole's validation loader."""
    histories, lengths, targets = [], [], []
    for interaction, _, _, positive in valid:
        histories.append(interaction[history_field(valid.dataset)])
        lengths.append(interaction[valid.dataset.item_list_length_field])
        targets.append(positive)
    return torch.cat(histories), torch.cat(lengths), torch.cat(targets)


@torch.no_grad()
def scored(model, rows, vocabulary):
    """``(hit@10, crossentropy)`` of each row."""
    model.eval()
    histories, lengths, targets = (part.to(model.device) for part in rows)
    scores = torch.cat([model.row_scores(*part)[:, 1:vocabulary] for part in zip(histories.split(256), lengths.split(256))])
    of_targets = scores.gather(1, targets[:, None] - 1)
    loss = torch.logsumexp(scores, dim=1) - of_targets[:, 0]
    return ((scores > of_targets).sum(dim=1) < 10).double().mean().item(), loss.double().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--dataset", default="amazon-magazine")
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 24, 32], help="in the shape of the options")
    parser.add_argument("--shapes", nargs="+", default=["10x20", "20x10", "40x5", "66x3"], help="sequences x events, at the largest rank")
    known, rest = parser.parse_known_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in known.shapes]
    held = {}

    def kept(dataset):
        if "users" not in held:  # RecBole's own split, once
            held["users"] = set(load_loaders(dataset.config)[1].dataset.inter_feat[dataset.uid_field].tolist())
        held["sequences"], held["rows"] = without_some(dataset, held["users"])
        return held["sequences"]

    with mock.patch("recbole_farzi.trainer.training_sequences", kept), mock.patch("recbole_farzi.data.split.training_sequences", kept):
        trainer, split, _ = start_on_validation(known.model, known.dataset, parse_overrides(rest), 1)
    first, second = torch.from_numpy(held["rows"]).unbind(1)
    histories = torch.nn.functional.pad(first[:, None], (0, split.sequences.length - 1))
    kinds = {"held out": (histories, torch.ones_like(first), second), "validation": rows_of(split.valid)}
    pairs = {tuple(pair) for items in split.sequences.items for pair in itertools.pairwise(items.tolist())}
    found = []

    def add(name, model, draw=None):
        for kind, rows in kinds.items():
            hit, loss = scored(model, rows, split.vocabulary)
            found.append({"contender": name, "rows": kind, "draw": draw, "hit@10": hit, "crossentropy": loss})

    teacher = trainer.teacher(last_only=True)
    if not isinstance(teacher, Ensemble) or len(teacher.members) <= FEWER:
        sys.exit(f"--farzi_pool_models must be more than {FEWER}, all of which teach")
    teachers = {FEWER: Ensemble(list(teacher.members)[:FEWER]), len(teacher.members): teacher}
    for member in teacher.members:
        add("full data", member)
    for number, several in teachers.items():
        add(f"ensemble of {number}", several)
    options = replace(trainer.options.summary, start_draws=8, start_covering=4)
    configured = (options.sequences, options.length)
    everybody, highest = max(teachers), max(known.ranks)
    variants = [(everybody, rank, configured) for rank in known.ranks]
    variants += [(everybody, highest, shape) for shape in shapes if shape != configured] + [(FEWER, highest, configured)]
    for number, rank, (sequences, length) in variants:
        trainer.teacher = lambda last_only, several=teachers[number]: several
        trainer.options = replace(trainer.options, summary=replace(options, latent_dim=rank, sequences=sequences, length=length))
        trainer._latent_dims, trainer._candidates = (rank,), None
        name = f"start, {sequences} x {length}, rank {rank}, {number} teachers"
        for draw in DRAWS:
            start = trainer._make_start(split.sequences, split.counts, draw)
            for student in range(STUDENTS):
                trainer.train_student(start, trainer._student_seed(student))
                add(name, trainer.student, draw)
        means = pd.DataFrame(found[-2 * STUDENTS * len(DRAWS) :]).groupby("rows")[["hit@10", "crossentropy"]].mean()
        print(name, means.round(4).to_dict("index"), flush=True)
    found = pd.DataFrame(found)
    table = found.groupby(["rows", "contender"], sort=False)[["hit@10", "crossentropy"]].mean()
    table["spread of hit@10"] = found.groupby(["rows", "contender"], sort=False)["hit@10"].std()
    table["hit@10, of full data"] = table["hit@10"] / table["hit@10"].xs("full data", level="contender").reindex(table.index, level="rows")
    table = table.reset_index().sort_values("rows", kind="stable")
    shares = []
    for kind, (histories, lengths, targets) in kinds.items():
        known_pairs = np.mean([(items[n - 1].item(), target.item()) in pairs for items, n, target in zip(histories, lengths, targets)])
        shares.append(f"{kind}: {len(targets):,}, {known_pairs:.0%} of them pairs that training data have")
    put_on_record(
        f"short-histories-{known.dataset}", table, trainer.config, f"Users of whom validation has no row: {known.model}, {known.dataset}",
        f"Held out: the second of two training events of one in {SHARE} of the users who have two and no row in validation, after the first alone; "
        f"models are trained without these users. Rows: {'; '.join(shares)}. Means of {len(teacher.members)} models of full data, and of "
        f"{STUDENTS} students of each of {len(DRAWS)} undistilled starts; spread: standard deviation over all of these.", script="short_histories",
    )  # fmt: skip


if __name__ == "__main__":
    main()
