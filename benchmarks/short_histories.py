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
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.model.abstract_recommender import AbstractRecommender
from undistilled import put_on_record, start_on_validation

from recbole_farzi.configuration import parse_overrides
from recbole_farzi.data import history_field, load_loaders, training_sequences
from recbole_farzi.ensemble import Ensemble
from recbole_farzi.sequences import Sequences
from recbole_farzi.training import RowTrainer

DRAWS = (0, 8, 9)  # of histories: one as they come, and two that cover
STUDENTS = 2
SHARE = 3  # one of so many of these users
FEWER = 3  # teachers, beside all of the pool
SEED = 5


class Scorer(AbstractRecommender):
    """A student or an ensemble, as RecBole's evaluator asks a model.

    Args:
        model: :class:`recbole_farzi.student.Student` or :class:`recbole_farzi.ensemble.Ensemble`.
        dataset: RecBole's ``SequentialDataset``, whose names of columns count.
    """

    def __init__(self, model, dataset):
        super().__init__()
        self.model, self.columns = model, (history_field(dataset), dataset.item_list_length_field)

    def full_sort_predict(self, interaction):
        return self.model.row_scores(*(interaction[column] for column in self.columns))


def without_some(dataset, validated):
    """The training histories without those of some users with two events, and these users.

    Args:
        dataset: RecBole's, of training.
        validated: users who have a row in validation.
    """
    whole = training_sequences(dataset)
    short = [user for user, items in zip(whole.users.tolist(), whole.items) if len(items) == 2 and user not in validated]
    out = np.random.default_rng(SEED).permutation(short)[: len(short) // SHARE]
    if not len(out):
        sys.exit(f"fewer than {SHARE} users have two training events and no row in validation: it sees every kind of user")
    kept = [(user, items) for user, items in zip(whole.users, whole.items) if user not in set(out)]
    return Sequences(kept, whole.length), out


def loader_of(users, split, config):
    """The training rows of some users, as RecBole evaluates them."""
    dataset = split.train.dataset
    rows = np.flatnonzero(np.isin(dataset.inter_feat[dataset.uid_field].numpy(), users))
    return FullSortEvalDataLoader(config, dataset.copy(dataset.inter_feat[rows]), split.valid._sampler, shuffle=False)


def pairs_known(loader, pairs):
    """``(rows, share of them whose last item and the next one are of these pairs)``."""
    data = loader.dataset
    lengths, targets = data.inter_feat[data.item_list_length_field], data.inter_feat[data.iid_field]
    last = data.inter_feat[history_field(data)].gather(1, lengths[:, None] - 1)[:, 0]
    return len(targets), np.mean([pair in pairs for pair in zip(last.tolist(), targets.tolist())])


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
        sequences, held["out"] = without_some(dataset, held["users"])
        return sequences

    with mock.patch("recbole_farzi.trainer.training_sequences", kept), mock.patch("recbole_farzi.data.split.training_sequences", kept):
        trainer, split, _ = start_on_validation(known.model, known.dataset, parse_overrides(rest), 1)
    kinds = {"held out": loader_of(held["out"], split, trainer.config), "validation": split.valid}
    pairs = {tuple(pair) for items in split.sequences.items for pair in itertools.pairwise(items.tolist())}
    found = []

    def add(name, model, draw=None):
        judge = RowTrainer(trainer.config, Scorer(model, split.train.dataset))
        judge.eval_collector.data_collect(split.train)
        for kind, loader in kinds.items():
            metrics = judge.evaluate(loader, load_best_model=False)
            found.append({"contender": name, "rows": kind, "draw": draw, **{metric: metrics[metric] for metric in ("hit@10", "crossentropy")}})

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
    for kind, loader in kinds.items():
        rows, share = pairs_known(loader, pairs)
        shares.append(f"{kind}: {rows:,}, {share:.0%} of them pairs that training data have")
    put_on_record(
        f"short-histories-{known.dataset}", table, trainer.config, f"Users of whom validation has no row: {known.model}, {known.dataset}",
        f"Held out: the second of two training events of one in {SHARE} of the users who have two and no row in validation, after the first alone; "
        f"models are trained without these users. Rows: {'; '.join(shares)}. Means of {len(teacher.members)} models of full data, and of "
        f"{STUDENTS} students of each of {len(DRAWS)} undistilled starts; spread: standard deviation over all of these.", script="short_histories",
    )  # fmt: skip


if __name__ == "__main__":
    main()
