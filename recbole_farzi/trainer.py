"""``FarziTrainer``: distillation as a RecBole trainer. ``fit`` distils, ``evaluate`` trains on the summary and evaluates."""

import contextlib
import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from recbole.utils import calculate_valid_score, dict2str, early_stopping, set_color
from tqdm import tqdm

from recbole_farzi import memory
from recbole_farzi.baselines import Popularity
from recbole_farzi.data import evaluation_rows, training_checksum, training_sequences
from recbole_farzi.distillation import Distiller
from recbole_farzi.ensemble import Ensemble
from recbole_farzi.errors import DivergenceError, OptionError, StorageError
from recbole_farzi.generation import generate_like, generate_windows, histories_at_once
from recbole_farzi.inspection import check_twice_differentiable
from recbole_farzi.interpolation import PARTS_OF_CHAIN, Interpolated, Rows, interpolate
from recbole_farzi.locks import alone_in
from recbole_farzi.models import ModelFactory, seeded
from recbole_farzi.options import read_options
from recbole_farzi.pool import build_pool
from recbole_farzi.provenance import Identity
from recbole_farzi.resumption import Pace, interruptible
from recbole_farzi.sequences import batch_order, item_shares
from recbole_farzi.soft_events import rows_of
from recbole_farzi.starts import covering_windows, pick_windows, random_start, spectral_start, teacher_start
from recbole_farzi.storage import check_writable, load_tensors, read_json, save_tensors, write_json
from recbole_farzi.student import Student
from recbole_farzi.summary import Summary
from recbole_farzi.tucker import compose, decompose
from recbole_farzi.training import RowTrainer, recipe_optimizer

__all__ = ["FarziTrainer"]


class FarziTrainer(RowTrainer):
    """Distils the training data of a RecBole sequential model into a summary (arXiv 2310.09983).

    Used as any RecBole trainer is::

        trainer = FarziTrainer(config, model)
        best_valid_score, best_valid_result = trainer.fit(train_data, valid_data)
        test_result = trainer.evaluate(test_data)      # a fresh model, trained on trainer.summary alone

    Args:
        config: RecBole's Config with the options of ``properties/farzi.yaml``.
        model: the student's architecture: a RecBole sequential model. Its weights are overwritten by students that are
            trained for validation.

    Attributes:
        summary: the best :class:`recbole_farzi.summary.Summary` on validation, after :meth:`fit`.
        inner: how to train on it, :class:`recbole_farzi.options.InnerOptions`: the options' unless numbers went bad
            (:mod:`recbole_farzi.recovery`).
        start: the summary that distillation started from.
        pool: :class:`recbole_farzi.pool.Pool`, after :meth:`fit`.
        interpolation: :class:`recbole_farzi.interpolation.Interpolation` of the teacher with a Markov chain, after :meth:`fit`; None
            where there was nothing to choose it by, or ``farzi_pool_chain`` is off.
        history: losses and validations of the run, plain values.
        step_seconds: processor time that its outer steps took, validations left out.
        written: histories that the teacher wrote, for starts and for the outer loss.
        writing_seconds: that it took for them.
        starts: starts that were made; the best on validation is :attr:`start`.
        starting_seconds: that it took for them, their histories left out.
        identity: :class:`recbole_farzi.provenance.Identity` of the run, once :meth:`fit` has begun.

    Raises:
        OptionError, ModelError: the options make no sense, or the model cannot read soft events.
    """

    _remedy = "a smaller farzi_inner_learning_rate or a larger farzi_inner_eps"

    def __init__(self, config, model):
        self.options = read_options(config)
        super().__init__(config, model)
        self.inner = self.options.inner
        self._read_as(Student(model, config=config))
        check_twice_differentiable(self.student)
        self._check_that_the_teacher_can_write()
        self.factory = None
        self.pool = None
        self.interpolation = None
        self._chain = None
        self._part_of_chain = 1.0
        self.start = None
        self._candidates = None
        self._latent_dims = None
        self.summary = None
        self.history = {}
        self.step_seconds = 0.0
        self.written = 0
        self.writing_seconds = 0.0
        self.starts = 0
        self.starting_seconds = 0.0
        self.identity = None

    def _check_that_the_teacher_can_write(self):
        """A model that scores one item at a time would need as many calls for an event as there are items."""
        if not self.student.traits.ranks and (self.options.summary.inputs == "generated" or self.options.outer.written > 0):
            raise OptionError(
                f"{type(self.model).__name__} scores one item at a time (it has no full_sort_predict), so that it cannot write histories "
                "or teach: set farzi_inputs=real, farzi_outer_generated=0, farzi_outer_teacher=0 and farzi_start=spectral"
            )

    def fit(
        self, train_data, valid_data=None, verbose=True, saved=True, show_progress=False, callback_fn=None
    ):
        """Distil.

        Args:
            train_data: RecBole's train loader (its dataset's histories are what is distilled).
            valid_data: RecBole's validation loader. With None nothing is selected: the last summary counts.
            verbose: write the course to the logger.
            saved: keep checkpoints under ``checkpoint_dir``, and continue from one of the same settings.
            show_progress: show progress bars.
            callback_fn: called as ``callback_fn(outer_step, valid_score)`` after each validation.

        Returns:
            ``(best_valid_score, best_valid_result)``; ``(-1, None)`` without ``valid_data``.

        Raises:
            DataError, StorageError, DivergenceError: in one line, what is wrong; what was reached is saved.
        """
        directory = Path(self.config["checkpoint_dir"]) / "farzi"
        with alone_in(directory):
            return self._fit(train_data, valid_data, verbose, saved, show_progress, callback_fn, directory)

    def _fit(self, train_data, valid_data, verbose, saved, show_progress, callback_fn, directory):
        config, options = self.config, self.options
        sequences = training_sequences(train_data.dataset)
        checksum = training_checksum(train_data.dataset, sequences)
        self.identity = Identity.of(config, type(self.model), checksum, valid_data)
        self.logger.info(set_color("Run", "pink") + f": {self.identity}")
        counts = sequences.counts(train_data.dataset.item_num)
        check_writable(directory)
        self.eval_collector.data_collect(train_data)
        self.factory = ModelFactory(type(self.model), config, train_data.dataset)
        memory.check_model(self.model, options.inner, memory.available(self.device))
        inner_model = self.factory(config["seed"], dropout=options.inner.dropout).train()
        plain_model = self.factory(config["seed"], dropout=False).train()
        student, judge = Student(inner_model, self.student.traits), Student(plain_model, self.student.traits, last_only=True)
        plan = memory.plan(config, options, student)
        if plan.by_blocks and options.outer.kernels == "compiled":
            raise OptionError("farzi_kernels=compiled: so many soft events are read in blocks of items, which cannot be compiled; choose eager")
        latent_dim = plan.latent_dim if plan.by_blocks else None
        costs = memory.measure(student, judge, options.summary.length, self.device, options.outer.teacher, latent_dim)
        memory.check_plan(plan, costs, memory.available(self.device), memory.available(torch.device("cpu")))
        self.pool = build_pool(
            config, options.pool, self.factory, self.student.traits, sequences, checksum, valid_data, directory,
            show_progress,
        )  # fmt: skip
        with interruptible(lambda: "while evaluating popularity"):
            popularity = self._score_of_popularity(counts, train_data, valid_data) if valid_data else None
        if valid_data and not self._is_better(self.pool.score, popularity):
            self.logger.warning(
                f"Pool: its best model has {self.valid_metric} {self.pool.score:.4f} on validation, popularity {popularity:.4f}: "
                "there is next to nothing to distil; more data, or another learning_rate, model or number of epochs, may help"
            )
        self.interpolation, self._chain = self._interpolated(sequences, counts, valid_data)
        fingerprint = self.identity.fingerprint
        self._latent_dims = options.summary.latent_dims
        with interruptible(lambda: "while choosing the start"):
            choice = directory / f"start-{fingerprint}.json" if saved else None
            self.start = self._choose_start(sequences, counts, valid_data, choice)
        self._candidates = None
        teacher = self.teacher(last_only=True)
        distiller = Distiller(
            student,
            judge,
            self.start,
            options.inner,
            options.outer,
            self._initial_parameters,
            sequences,
            config["seed"],
            teacher=teacher,
            experts=self._experts(),
            ranks=options.summary.tucker_ranks,
        )
        checkpoint = directory / f"distillation-{fingerprint}.pt" if saved else None
        record = self._resume(distiller, checkpoint) or {
            "losses": [],
            "validations": [],
            "seconds": 0.0,
            "step_seconds": 0.0,
            "best": {"score": None, "step": 0, "waited": 0, "result": None, "tensors": None},
            "stopped_early": False,
            "finished": False,
        }
        self.saved_model_file = str(checkpoint) if checkpoint else self.saved_model_file
        if not record["finished"]:
            distiller.generated = self._generated_windows(teacher, sequences, counts, show_progress)
        self._distil(distiller, record, checkpoint, valid_data, verbose, show_progress, callback_fn)
        self.step_seconds = record["step_seconds"]
        best = record["best"]
        tensors = best["tensors"] if best["tensors"] is not None else distiller.summary.tensors
        self.inner = replace(distiller.recipe, learning_rate=best.get("inner_learning_rate", distiller.recipe.learning_rate))
        self.summary = self._as_kept(
            Summary(*(t.to(self.device) for t in tensors), options.summary.temperature, self.start.inputs)
        )
        self.history = {
            "outer_steps": distiller.steps_done,
            "best_step": best["step"] if valid_data else distiller.steps_done,
            "seconds": record["seconds"],
            "skipped": distiller.skipped,
            "reductions": distiller.recovery.reductions,
            "stopped_early": record["stopped_early"],
            "losses": record["losses"],
            "validations": record["validations"],
            "interpolation": self.interpolation and self.interpolation._asdict(),
        }
        if not valid_data:
            return -1, None
        self.best_valid_score, self.best_valid_result = best["score"], best["result"]
        if self._is_better(self.pool.score, popularity) and not self._is_better(best["score"], popularity):
            self.logger.warning(
                f"Summary: students have {self.valid_metric} {best['score']:.4f} on validation, popularity {popularity:.4f}, the pool's "
                f"best model {self.pool.score:.4f}: it is no use yet; more farzi_sequences, farzi_inner_steps or farzi_outer_steps may help"
            )
        return self.best_valid_score, self.best_valid_result

    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        """Train a fresh model on the best summary and evaluate it with RecBole's evaluator.

        Args:
            eval_data: RecBole's evaluation loader.
            load_best_model: train on :attr:`summary`; False evaluates the weights that :attr:`model` has now.
            model_file: not used here.
            show_progress: show progress bars.
        """
        if load_best_model:
            if self.summary is None:
                raise OptionError("there is no summary yet: call fit before evaluate")
            self.train_student(self.summary, self._student_seed(0))
        return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)

    def train_student(self, summary, seed):
        """Train :attr:`model` from scratch on a summary by the recipe; what a :class:`SummaryTrainer` does, quietly."""
        inner = self.inner
        fresh = self.factory(seed, dropout=inner.dropout).train()
        student = Student(fresh, self.student.traits).forget_users()
        optimizer = recipe_optimizer(fresh, inner)
        events = summary.training_events(student.traits)
        with seeded(seed):  # dropout draws from the global generators
            for rows in batch_order(len(summary.latent), inner.batch_size, inner.steps, seed):
                optimizer.zero_grad()
                loss = student.training_loss_on(rows_of(events, rows))
                self._check_nan(loss)
                loss.backward()
                optimizer.step()
        self.model.load_state_dict(fresh.state_dict())

    def _score_of_popularity(self, counts, train_data, valid_data):
        """What everybody's most frequent items reach on validation: who is no better has learnt nothing of histories."""
        trainer = RowTrainer(self.config, Popularity(counts).to(self.device))
        with contextlib.closing(trainer.tensorboard):
            trainer.eval_collector.data_collect(train_data)
            return calculate_valid_score(trainer.evaluate(valid_data, load_best_model=False), self.valid_metric)

    def _is_better(self, score, other):
        return score > other if self.valid_metric_bigger else score < other

    def _student_seed(self, number):
        return self.config["seed"] + 500 + number

    def _as_kept(self, summary):
        """A summary with the precision that it is stored with, so that what is validated is what is kept."""
        return summary.rounded(self.options.summary.bits)

    def _choose_start(self, sequences, counts, valid_data, choice):
        """The best on validation of a few starts, on other histories each; which one it was is kept in the file ``choice``."""
        options = self.options.summary
        draws = options.start_draws + options.start_covering
        if valid_data is None or draws == 1 or options.start == "random":
            self._weigh_chain(sequences, counts, valid_data)
            return self._make_start(sequences, counts, 0)
        if choice is not None and choice.is_file() and not self.config["farzi_fresh"]:
            with contextlib.suppress(StorageError, KeyError, TypeError, ValueError, RuntimeError):  # the last is PyTorch's, of what fits no tensor
                known = read_json(choice)
                if len(known["scores"]) == draws and known["draw"] == self._best_of(known["scores"]) and known["latent_dim"] in options.latent_dims:
                    histories, part = self._checked(known["histories"], len(counts)), known["part_of_chain"]
                    if self._chain is not None:
                        self._take_of_chain(PARTS_OF_CHAIN[PARTS_OF_CHAIN.index(part)])
                    self._latent_dims = (known["latent_dim"],)
                    return self._start_on(histories, sequences, counts)
        self._latent_dims = options.latent_dims
        self._weigh_chain(sequences, counts, valid_data)
        scores, best = [], None
        for draw in range(draws):
            histories = self._histories(sequences, counts, draw)
            start = self._start_on(histories, sequences, counts)
            scores.append(self._score_of_start(start, valid_data))
            covering = ", covering" if draw >= options.start_draws else ""
            self.logger.info(set_color("Start", "pink") + f": on histories {draw + 1} of {draws}{covering}, valid {scores[-1]:.4f}")
            if self._best_of(scores) == draw:
                best = start, histories
        if choice is not None:
            known = {"draw": self._best_of(scores), "scores": [float(score) for score in scores], "histories": best[1].tolist()}
            write_json(choice, {**known, "latent_dim": best[0].latent.shape[2], "part_of_chain": self._part_of_chain})
        return best[0]

    def _checked(self, histories, vocabulary):
        """Histories of a file as a tensor."""
        options, items = self.options.summary, torch.tensor(histories)
        if items.shape != (options.sequences, options.length) or items.dtype != torch.int64 or not 1 <= items.min() <= items.max() < vocabulary:
            raise ValueError("these are no histories of this summary")
        return items

    def _best_of(self, scores):
        scores = np.asarray(scores, dtype=np.float64)
        return int(np.argmax(scores) if self.valid_metric_bigger else np.argmin(scores))

    def _make_start(self, sequences, counts, draw):
        return self._start_on(self._histories(sequences, counts, draw), sequences, counts)

    def _start_on(self, histories, sequences, counts):
        begun = time.perf_counter()
        start, ranks = self._start_as_made(histories, sequences, counts), self.options.summary.tucker_ranks
        if ranks is not None:  # what is distilled can be no nearer to it
            start = replace(start, latent=compose(*decompose(start.latent, ranks)))
        kept = self._as_kept(start).to(self.device)
        self.starts += 1
        self.starting_seconds += time.perf_counter() - begun
        return kept

    def _start_as_made(self, histories, sequences, counts):
        options, seed = self.options.summary, self.config["seed"]
        if options.start == "random":
            start = random_start(
                options.sequences, options.length, self._latent_dims[-1], len(counts), options.temperature, seed
            )
        elif options.start == "spectral":
            start = spectral_start(histories, counts, sequences, self._latent_dims[-1], options.temperature, seed)
        else:
            teacher = self.teacher(last_only=True)
            start = teacher_start(
                histories, teacher, counts, self._latent_dims, options.temperature, options.own_item, seed,
                singles=options.singles(len(counts)),
            )  # fmt: skip
            if len(self._latent_dims) > 1:  # the first start decides, for all
                asked, self._latent_dims = self._latent_dims, (start.latent.shape[2],)
                self.logger.info(set_color("Start", "pink") + f": rank {self._latent_dims[0]}, of {', '.join(map(str, asked))}")
        return start if options.inputs == "soft" else replace(start, inputs=histories)

    def _histories(self, sequences, counts, draw):
        """Of a draw of the start, item ids, shape [mu, xi]: as they come, or, after those, chosen from half of many."""
        options = self.options.summary
        rng = np.random.default_rng([self.config["seed"], 3, draw])
        if not options.start_draws <= draw < options.start_draws + options.start_covering:
            return self._some_histories(sequences, counts, options.sequences, sequences.repeats, rng)
        if self._candidates is None:
            self.logger.info(set_color("Start", "pink") + f": {options.candidates:,} histories, of which the next ones choose")
            many = np.random.default_rng([self.config["seed"], 8])
            self._candidates = self._some_histories(sequences, counts, options.candidates, False, many)
        half = rng.permutation(len(self._candidates))[: len(self._candidates) // 2]
        return covering_windows(self._candidates[half], counts, options.sequences)

    def _some_histories(self, sequences, counts, count, repeats, rng):
        options = self.options.summary
        if options.inputs != "generated":
            return pick_windows(sequences.running(), count, options.length, rng)
        begun, teacher = time.perf_counter(), self.teacher(last_only=True)
        histories = generate_windows(teacher, counts, count, options.length, repeats, int(rng.integers(2**31)))
        self._count_written(count, begun)
        return histories

    def _count_written(self, count, begun):
        self.written += count
        self.writing_seconds += time.perf_counter() - begun

    def _generated_windows(self, teacher, sequences, counts, show_progress):
        """What the outer loss reads in place of real histories, or None: a run that goes on has them written again, the same as before."""
        count, begun = self.options.outer.written, time.perf_counter()
        if count == 0:
            return None
        with interruptible(lambda: "while the teacher writes histories"), tqdm(
            total=count, ncols=100, desc=set_color("Write      ", "pink"), disable=not show_progress
        ) as bar:
            written = generate_like(teacher, sequences, counts, count, self.config["seed"], lambda done: bar.update(done - bar.n))
        self._count_written(count, begun)
        return written

    def _interpolated(self, sequences, counts, valid_data):
        """``(Interpolation, MarkovChain)`` under which validation is likeliest; ``(None, None)`` where none is asked for."""
        if not self.options.pool.chain or valid_data is None or not self.student.traits.ranks:
            return None, None
        rows, users, teacher = evaluation_rows(valid_data), valid_data.dataset.inter_feat[valid_data.dataset.uid_field], self.models_of_the_pool(last_only=True)
        likely = []
        with torch.no_grad(), interruptible(lambda: "while the teacher is mixed with a Markov chain"):
            for histories, lengths, targets, whose in zip(*(part.to(self.device).split(histories_at_once(len(counts))) for part in (*rows, users))):
                scores = teacher.row_scores(histories, lengths, whose)[:, 1 : teacher.vocabulary]
                likely.append(torch.softmax(scores.double(), dim=1).gather(1, targets[:, None] - 1)[:, 0].cpu())
        found, chain = interpolate(torch.cat(likely), Rows(*rows), sequences, item_shares(counts))
        what = f"{found.likeliest:.0%} of a Markov chain (prior {found.prior:g}, decay {found.decay:g})" if chain else "no Markov chain"
        self.logger.info(set_color("Teacher", "pink") + f": likeliest with {what}, cross-entropy {found.mixed:.4f} on validation, {found.alone:.4f} without")
        return found, chain

    def _weigh_chain(self, sequences, counts, valid_data):
        """Of the likeliest share of the chain take as much as students of a start follow best, on validation: a small summary shows few items,
        and of what counts know of the others it can tell little."""
        if self._chain is None or valid_data is None or self.options.summary.start != "teacher":
            return
        self._take_of_chain(1.0)
        histories, scores = self._histories(sequences, counts, 0), []
        for part in PARTS_OF_CHAIN:
            self._take_of_chain(part)
            scores.append(self._score_of_start(self._start_on(histories, sequences, counts), valid_data))
            of_it = f"with {self.interpolation.weight:.0%} of the chain, students of a start have valid {scores[-1]:.4f}"
            self.logger.info(set_color("Teacher", "pink") + f": {of_it}")
        self._take_of_chain(PARTS_OF_CHAIN[self._best_of(scores)])

    def _take_of_chain(self, part):
        """Have the teacher hold a part of the chain's likeliest share; of what it predicts then the rank is open."""
        self._part_of_chain, self._latent_dims = part, self.options.summary.latent_dims
        self.interpolation = self.interpolation._replace(weight=part * self.interpolation.likeliest)

    def _score_of_start(self, start, valid_data):
        try:
            return self._score(start, valid_data)[1]
        except DivergenceError:
            return -np.inf if self.valid_metric_bigger else np.inf

    def teacher(self, last_only=False):
        """What teaches: the best models of the pool, interpolated with a Markov chain
        (:class:`recbole_farzi.interpolation.Interpolated`) where students are better for it, on validation."""
        models = self.models_of_the_pool(last_only)
        weight = 0.0 if self._chain is None else self.interpolation.weight
        return models if weight == 0.0 else Interpolated(models, self._chain, weight)

    def models_of_the_pool(self, last_only=False):
        """The best models of the pool: a :class:`recbole_farzi.student.Student`, or of several an
        :class:`recbole_farzi.ensemble.Ensemble`; ``last_only`` is that of its members."""
        members = []
        for state in self.pool.models:
            model = self.factory(self.config["seed"], dropout=False)
            model.load_state_dict(state)
            model.eval()  # some of RecBole's models compute otherwise in training, without any dropout
            members.append(Student(model, self.student.traits, last_only=last_only))
        return members[0] if len(members) == 1 else Ensemble(members)

    def _initial_parameters(self, seed):
        """Where an inner trajectory begins: fresh, or partly trained on the real data (a share of them)."""
        model = self.factory(seed, dropout=self.options.inner.dropout)
        rng = np.random.default_rng([seed, 4])
        if rng.random() < self.options.outer.pretrained:
            if not self.pool.snapshots:
                raise OptionError("farzi_pretrained > 0, but the pool has no snapshot: give smaller farzi_pool_snapshots")
            model.load_state_dict(self.pool.snapshots[int(rng.integers(len(self.pool.snapshots)))])
        return self._parameters(model)

    def _parameters(self, model):
        return Student(model, self.student.traits).forget_users().parameter_dict()

    def _experts(self):
        """What trajectories are matched with: the snapshots of each model of the pool that has two."""
        if self.options.outer.objective != "trajectory":
            return ()
        model = self.factory(self.config["seed"], dropout=False)

        def parameters(snapshot):
            model.load_state_dict(snapshot)
            return self._parameters(model)

        experts = tuple(tuple(map(parameters, expert)) for expert in self.pool.experts if len(expert) > 1)
        if not experts:
            raise OptionError("farzi_objective=trajectory: no model of the pool has two snapshots; give smaller farzi_pool_snapshots")
        return experts

    def _distil(self, distiller, record, checkpoint, valid_data, verbose, show_progress, callback_fn):
        outer, best = self.options.outer, record["best"]
        bar = tqdm(
            total=outer.steps, initial=distiller.steps_done, ncols=100, disable=not show_progress,
            desc=set_color("Distil     ", "pink"),
        )  # fmt: skip
        begun, before = time.perf_counter(), record["seconds"]
        pace, saved = Pace(), distiller.steps_done

        def save():
            nonlocal saved
            record["seconds"] = before + time.perf_counter() - begun
            if checkpoint:
                with pace.saving():
                    save_tensors(checkpoint, {"distiller": distiller.state(), "record": record})
                saved = distiller.steps_done

        def where():
            # What is in memory may be half of a step: the file holds the last state that is whole.
            kept = f"; saved up to step {saved} in {checkpoint}" if checkpoint else ""
            return f"while distilling, in outer step {distiller.steps_done + 1} of {outer.steps}{kept}"

        with contextlib.closing(bar), interruptible(where):
            if valid_data and not record["validations"]:
                self._validate(distiller, record, valid_data, verbose, callback_fn)
                save()
            while distiller.steps_done < outer.steps and not record["finished"]:
                begun_step = time.process_time()
                try:
                    step = distiller.step()
                except DivergenceError as error:
                    if best["tensors"] is None and all(loss is None for loss in record["losses"]):
                        raise  # there is nothing to keep
                    self.logger.warning(f"Distillation stops after outer step {distiller.steps_done}: {error}")
                    break
                record["step_seconds"] += time.process_time() - begun_step
                record["losses"].append(None if step.skipped else step.loss)
                if step.reduced:
                    self.logger.warning(step.reduced)
                number = distiller.steps_done
                if not step.skipped:
                    self.tensorboard.add_scalar("Distil/outer_loss", step.loss, number)
                    self.tensorboard.add_scalar("Distil/meta_gradient_norm", step.gradient_norm, number)
                bar.update(1)
                bar.set_postfix_str(set_color(f"outer loss {step.loss:.4f}", "yellow"), refresh=False)
                if valid_data and (number % outer.eval_step == 0 or number == outer.steps):
                    stop = self._validate(distiller, record, valid_data, verbose, callback_fn)
                    record["stopped_early"] = record["finished"] = stop
                    save()
                elif pace.due:
                    save()
            if not record["finished"]:
                record["finished"] = True
                save()

    def _validate(self, distiller, record, valid_data, verbose, callback_fn):
        """Train fresh students on the current summary, evaluate them, keep the best summary; returns whether to stop."""
        summary = self._as_kept(distiller.summary)
        self.inner = distiller.recipe
        best, step = record["best"], distiller.steps_done
        worst = -np.inf if self.valid_metric_bigger else np.inf
        try:
            result, score = self._score(summary, valid_data)
        except DivergenceError:
            if best["score"] is None:  # the start itself cannot be trained on: nothing to fall back to
                raise
            self.logger.warning(f"outer step {step}: a student diverges on this summary, which counts as the worst")
            result, score = {}, worst
        best["score"], best["waited"], stop, update = early_stopping(
            score,
            worst if best["score"] is None else best["score"],
            best["waited"],
            max_step=self.options.outer.stopping_step - 1,
            bigger=self.valid_metric_bigger,
        )
        if update:
            rate = self.inner.learning_rate
            best.update(step=step, result=result, tensors=[t.cpu() for t in summary.tensors], inner_learning_rate=rate)
        record["validations"].append({"step": step, "metrics": result})
        if verbose:
            self.logger.info(
                set_color(f"outer step {step} evaluating", "green")
                + f" [{set_color('valid_score', 'blue')}: {score:f}{', best' if update else ''}]"
            )
            self.logger.info(set_color("valid result", "blue") + ": \n" + dict2str(result))
        self.tensorboard.add_scalar("Vaild_score", score, step)  # spelt as RecBole spells it
        if callback_fn:
            callback_fn(step, score)
        return stop

    def _score(self, summary, valid_data):
        """Metrics on validation, mean of a few fresh students, and the one that counts."""
        results = []
        for number in range(self.options.outer.eval_students):
            self.train_student(summary, self._student_seed(number))
            results.append(super().evaluate(valid_data, load_best_model=False))
        result = {key: float(np.mean([r[key] for r in results])) for key in results[0]}
        score = calculate_valid_score(result, self.valid_metric)
        if not np.isfinite(score):
            raise DivergenceError(f"a student's {self.valid_metric} on validation is {score}; {self._remedy} may help")
        return result, score

    def _resume(self, distiller, checkpoint):
        if checkpoint is None or not checkpoint.is_file() or self.config["farzi_fresh"]:
            return None
        try:
            state = load_tensors(checkpoint)
            distiller.restore(state["distiller"])
            record = state["record"]
        except (StorageError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise StorageError(
                f"the checkpoint {checkpoint} cannot be continued ({error}); remove it or set --farzi_fresh=True"
            ) from error
        done = "finished" if record["finished"] else f"continued after outer step {distiller.steps_done}"
        logging.getLogger().info(set_color("Distillation", "pink") + f": {done}, from {checkpoint}")
        return record
