"""What do students lack, and what does validation not see, where only users with long histories have a row there?

    python benchmarks/short_histories.py -d amazon-magazine --data_path=datasets     # half an hour on one core

With leave-one-out a user of three events has one for test, two for training, and none for validation. Here the second of the two is
held out of a part of these users, who then have no training event left; models are trained without them, and these rows are
scored beside those of validation: by full data (the pool's models), by their ensemble, by the teacher (which mixes a Markov chain in), by
students of the teacher's undistilled starts of several ranks and shapes (sequences x events; a step of training reads as many
sequences of each), by students of the summary that the options distil, and by students that no summary limits: they take the
same steps on ever new histories that the teacher writes, with its own predictions. What the ensemble alone would teach is there, too.
Beside what RecBole's evaluator says stands how far a model's predictions are from those of the teacher, which tells students apart far
better than a hit or a miss does. Test is not looked at. Writes ``results/quality/short-histories-DATASET.csv`` and ``.md``.
"""

import argparse
import itertools
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pandas as pd
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from undistilled import put_on_record, quiet_trainer, start_on_validation

from recbole_farzi.baselines import Scorer
from recbole_farzi.configuration import parse_overrides
from recbole_farzi.data import evaluation_rows, load_loaders, training_sequences
from recbole_farzi.ensemble import Ensemble
from recbole_farzi.generation import generate_like
from recbole_farzi.models import seeded
from recbole_farzi.sequences import Sequences
from recbole_farzi.student import Student
from recbole_farzi.training import RowTrainer, recipe_optimizer

DRAWS = (0, 8, 9)  # of histories: one as they come, and two that cover
STUDENTS = 2
SHARE = 3  # one of so many of these users
WRITTEN = 64  # histories a step, of students that no summary limits
SEED = 5


def without_some(dataset, validated):
    """The training histories without those of some users with two events, and these users.

    Args:
        dataset: RecBole's, of training.
        validated: users who have a row in validation.
    """
    whole = training_sequences(dataset)
    short = [user for user, items in zip(whole.users.tolist(), whole.items) if len(items) == 2 and user not in validated]
    out = np.random.default_rng(SEED).permutation(short)[: len(short) // SHARE].tolist()
    if not out:
        sys.exit(f"fewer than {SHARE} users have two training events and no row in validation: it sees every kind of user")
    gone = set(out)
    kept = [(user, items) for user, items in zip(whole.users.tolist(), whole.items) if user not in gone]
    return Sequences(kept, whole.length), out


def loader_of(users, split, config):
    """The training rows of some users, as RecBole evaluates them."""
    dataset = split.train.dataset
    rows = np.flatnonzero(np.isin(dataset.inter_feat[dataset.uid_field].numpy(), users))
    return FullSortEvalDataLoader(config, dataset.copy(dataset.inter_feat[rows]), split.valid._sampler, shuffle=False)


def histories_of(loader):
    """``(histories [n, length], lengths [n], last items [n], next items [n])`` of a loader's rows."""
    histories, lengths, following = evaluation_rows(loader)
    return histories, lengths, histories.gather(1, lengths[:, None] - 1)[:, 0], following


@torch.no_grad()
def predicted(model, loader, vocabulary):
    """Log probabilities of the items but the padding after each row's history, shape [n, V - 1]."""
    model.eval()
    histories, lengths, *_ = (part.to(model.device) for part in histories_of(loader))
    scores = [model.row_scores(*part)[:, 1:vocabulary] for part in zip(histories.split(512), lengths.split(512))]
    return torch.log_softmax(torch.cat(scores), dim=-1).cpu()


def student_of_written(trainer, teacher, windows, seed):
    """A student that takes the steps of the recipe on histories that the teacher wrote, :data:`WRITTEN` a step, with its predictions."""
    model = trainer.factory(seed, dropout=trainer.inner.dropout).train()
    student, optimizer = Student(model, trainer.student.traits, last_only=True).forget_users(), recipe_optimizer(model, trainer.inner)
    with seeded(seed):  # dropout, if the recipe has any
        for rows in torch.arange(trainer.inner.steps * WRITTEN).split(WRITTEN):
            batch = windows.at(rows.numpy()).to(trainer.device)
            optimizer.zero_grad()
            student.real_loss(batch, expected=teacher.predictions(batch), weight=1.0).backward()
            optimizer.step()
    return student


def taught_by(interpolation):
    """What the teacher is made of, in words."""
    if interpolation is None or interpolation.weight == 0.0:
        return "the ensemble"
    return f"{interpolation.weight:.0%} of a Markov chain (prior {interpolation.prior:g}, decay {interpolation.decay:g}), the rest the ensemble"


class Found:
    """What models reach on each kind of rows.

    Args:
        trainer: whose config counts.
        split: the data.
        kinds: ``{name: RecBole's loader}``.
        teacher: whose predictions others are compared with.
    """

    def __init__(self, trainer, split, kinds, teacher):
        self.trainer, self.split, self.kinds = trainer, split, kinds
        self.taught = {kind: predicted(teacher, loader, split.vocabulary) for kind, loader in kinds.items()}
        self.lines = []

    def add(self, name, model, summary=None):
        """A model's metrics; of one that trained on a summary its divergence by whether that shows a row's last item, too."""
        judge = RowTrainer(self.trainer.config, Scorer(model.row_scores, self.trainer.config))
        judge.eval_collector.data_collect(self.split.train)
        for kind, loader in self.kinds.items():
            metrics, taught = judge.evaluate(loader, load_best_model=False), self.taught[kind]
            away = (taught.exp() * (taught - predicted(model, loader, self.split.vocabulary))).sum(dim=1)
            line = {"contender": name, "rows": kind, "hit@10": metrics["hit@10"], "crossentropy": metrics["crossentropy"], "divergence": away.mean().item()}
            if summary is not None:
                shown = torch.isin(histories_of(loader)[2], summary.inputs[:, :-1].cpu())
                line.update({"divergence, shown": away[shown].mean().item(), "divergence, not shown": away[~shown].mean().item()})
            self.lines.append(line)

    def say(self, models):
        """Print the means of the last models."""
        lines = pd.DataFrame(self.lines[-len(self.kinds) * models :]).drop(columns="contender")
        print(self.lines[-1]["contender"], lines.groupby("rows").mean().round(4).to_dict("index"), flush=True)

    def table(self):
        """Means by contender, a block for each kind of rows."""
        lines = pd.DataFrame(self.lines)
        groups = lines.groupby(["rows", "contender"], sort=False)
        table = groups.mean()
        table["spread of hit@10"] = groups["hit@10"].std()
        table["hit@10, of full data"] = table["hit@10"] / table["hit@10"].xs("full data", level="contender").reindex(table.index, level="rows")
        return table.reset_index().sort_values("rows", kind="stable")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("-m", "--model", default="SASRec")
    parser.add_argument("-d", "--dataset", default="amazon-magazine")
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 24, 32], help="in the shape of the options")
    parser.add_argument("--shapes", nargs="+", default=["10x20", "20x10", "40x5", "66x3", "40x10", "80x10"], help="sequences x events, at the largest rank")
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
        distilled, same = quiet_trainer(known.model, known.dataset, parse_overrides(rest))
        distilled.fit(same.train, same.valid, verbose=False, saved=False)
    kinds = {"held out": loader_of(held["out"], split, trainer.config), "validation": split.valid}
    pairs = {tuple(pair) for items in split.sequences.items for pair in itertools.pairwise(items.tolist())}
    models, teacher = distilled.models_of_the_pool(last_only=True), distilled.teacher(last_only=True)
    if not isinstance(models, Ensemble):
        sys.exit("--farzi_pool_models must be more than 1, all of which teach")
    found = Found(trainer, split, kinds, teacher)
    for member in models.members:
        found.add("full data", member)
    found.add("ensemble", models)
    found.add("teacher", teacher)
    students = STUDENTS * len(DRAWS)
    for name, who in {"teacher": teacher, "ensemble": models}.items():
        written = generate_like(who, split.sequences, split.counts, WRITTEN * trainer.inner.steps, SEED)
        for student in range(STUDENTS):
            taught = student_of_written(trainer, who, written, trainer._student_seed(student))
            found.add(f"student of {len(written):,} histories that the {name} writes", taught)
        found.say(STUDENTS)
    options = replace(trainer.options.summary, start_draws=8, start_covering=4)
    configured = (options.sequences, options.length)
    highest = max(known.ranks)
    variants = [(teacher, rank, configured) for rank in known.ranks]
    variants += [(teacher, highest, shape) for shape in shapes if shape != configured] + [(models, highest, configured)]
    for who, rank, (sequences, length) in variants:
        trainer.teacher = lambda last_only, who=who: who
        trainer.options = replace(trainer.options, summary=replace(options, latent_dim=rank, sequences=sequences, length=length))
        trainer._latent_dims, trainer._candidates = (rank,), None
        name = f"start, {sequences} x {length}, rank {rank}" + (", of the ensemble" if who is models else "")
        for draw in DRAWS:
            start = trainer._make_start(split.sequences, split.counts, draw)
            for student in range(STUDENTS):
                trainer.train_student(start, trainer._student_seed(student))
                found.add(name, trainer.student, start)
        found.say(students)
    for student in range(students):
        distilled.train_student(distilled.summary, distilled._student_seed(student))
        name = f"summary, {configured[0]} x {configured[1]}, rank {distilled.summary.latent.shape[2]}"
        found.add(name, distilled.student, distilled.summary)
    found.say(students)
    shares = []
    for kind, loader in kinds.items():
        *_, last, following = histories_of(loader)
        share = np.mean([pair in pairs for pair in zip(last.tolist(), following.tolist())])
        shares.append(f"{kind}: {len(last):,}, {share:.0%} of them pairs that training data have")
    put_on_record(
        f"short-histories-{known.dataset}", found.table(), trainer.config, f"Users of whom validation has no row: {known.model}, {known.dataset}",
        f"Held out: the second of two training events of one in {SHARE} of the users who have two and no row in validation, after the first alone; "
        f"models are trained without these users. Rows: {'; '.join(shares)}. Means of {len(models.members)} models of full data, which are "
        f"the ensemble, of {STUDENTS} students of each of {len(DRAWS)} undistilled starts, of {students} of the summary and of {STUDENTS} of written histories; spread: standard deviation over "
        f"all of these. The teacher: {taught_by(distilled.interpolation)}. Divergence: of their predictions from the teacher's (Kullback-Leibler, nats a row); and on "
        "rows whose last item a history of the summary shows, and on the others: which these are is another matter for each shape. Of the summary, what teaches, start and "
        f"outer step were chosen on validation, by two of these students. Students of written histories take the recipe's steps, with {WRITTEN} of these "
        "and the predictions of who wrote them in each.", script="short_histories",
    )  # fmt: skip


if __name__ == "__main__":
    main()
