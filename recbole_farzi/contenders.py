"""The ways of training a model that are compared: on everything, on the summary, on other small parts of the data.

Which take part is the option ``farzi_contenders``; a name that ends in ``-bytes`` asks for as many bytes as the summary
takes, one that does not for as many events.
"""

import functools
import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import torch

from recbole_farzi.baselines import Popularity, Scorer, hardest_events, hardest_users, head_users, popular_items, random_users
from recbole_farzi.checkpoints import check_same_data, checkpoint_config, read_checkpoint, restored
from recbole_farzi.data import evaluation_rows
from recbole_farzi.emission import summary_digest
from recbole_farzi.errors import DataError, ModelError
from recbole_farzi.interpolation import Rows, likeliest_chain
from recbole_farzi.markov import transition_counts
from recbole_farzi.memory import available
from recbole_farzi.options import is_checkpoint
from recbole_farzi.passes import PassLoader, PassTrainer
from recbole_farzi.proxy import proxy_importance
from recbole_farzi.sequences import item_shares
from recbole_farzi.storage import digest
from recbole_farzi.summary import bytes_of_an_id
from recbole_farzi.training import (
    DrawnTrainer,
    LabelTrainer,
    RowTrainer,
    SummaryLoader,
    SummaryTrainer,
    WindowLoader,
    WindowTrainer,
    teacher_labels,
)

__all__ = ["Contender", "ContenderFactory", "load_trained", "round_labels"]

_BYTES_OF_A_SHARE = 2  # of an item's probability, or popularity, as a 16-bit float
_SMALLEST = 1e-30
_LEAST_STEPS = 20  # between two validations of training on real events, however few there are


# Label and description of the contenders that have other names where sentences are read.
_WORDS = {
    "last": {
        "popularity": ("popularity", "every user gets the items that are most frequent in training"),
        "random": ("random users", "events of random users (others for each seed)"),
    },
    "every": {
        "popularity": ("unigram", "each word by its share of the training text"),
        "random": ("random sentences", "words of random sentences (others for each seed)"),
    },
}


@dataclass(frozen=True)
class Contender:
    """One way of training a model, to be compared with others.

    Attributes:
        key: short name, also the name of its stored runs.
        label: name for people.
        note: what it is, in a sentence.
        events: events that it trains on; None where nobody knows.
        bytes: size of its training data; None where nobody knows.
        seeds: of its runs.
        run: function from a seed, a function that shows progress, and the file in which an unfinished training is kept
            (or None), to ``(trainer, seconds)``: a trained RecBole trainer that can evaluate, and the time that
            training took.
        depends: whatever its result depends on beside data and settings, as a plain value.
        seeded: whether its result depends on the seed at all.
        validate: whether its runs are evaluated on validation, too, so that something can be chosen by them.
    """

    key: str
    label: str
    note: str
    events: Optional[int]
    bytes: Optional[int]
    seeds: tuple
    run: Callable[[int, Callable[[str], None], Optional[Path]], Any]
    depends: Any = None
    seeded: bool = True
    validate: bool = False


def load_trained(file, config):
    """A checkpoint that is to be compared with what a run trains.

    Args:
        file: of RecBole's.
        config: of the run.

    Returns:
        ``(state, Config, class)`` of the model, for :func:`recbole_farzi.checkpoints.restored`.

    Raises:
        StorageError, OptionError: it is missing, or no checkpoint of RecBole's, or its settings are refused.
        DataError: it was trained on other data than the run's.
        ModelError: it does not read histories.
    """
    settings, state = read_checkpoint(file)
    check_same_data(file, settings, config.final_config_dict, "this run", loaded=False)
    own = {name: config[name] for name in ("data_path", "use_gpu", "gpu_id", "show_progress") if config[name] is not None}
    own["data_path"] = str(Path(own["data_path"]).parent)  # RecBole has put the dataset's name behind it
    model_config, model_class = checkpoint_config(settings, (), own)
    if model_config["MODEL_TYPE"] != config["MODEL_TYPE"]:
        raise ModelError(f"{file} is of {model_class.__name__}, which does not read histories; compare it by --cold_start")
    return state, model_config, model_class


class ContenderFactory:
    """Makes the contenders of a distilled dataset.

    Args:
        config: RecBole's Config.
        options: :class:`recbole_farzi.options.Options`.
        split: :class:`recbole_farzi.data.Split`.
        factory: :class:`recbole_farzi.models.ModelFactory` of the student.
        traits: :class:`recbole_farzi.student.ModelTraits` of the student.
        summary: the :class:`recbole_farzi.summary.Summary` that was distilled.
        start: the one from which distillation started.
        teacher: function that gives what is trained on the real data (:meth:`recbole_farzi.trainer.FarziTrainer.teacher`).
        teacher_digest: text that changes with the teacher.
        pool: :class:`recbole_farzi.pool.Pool` of models of the same settings, which are full data's first runs; or None.
    """

    def __init__(self, config, options, split, factory, traits, summary, start, teacher, teacher_digest, pool=None):
        self.config, self.options, self.split = config, options, split
        self.factory, self.traits = factory, traits
        self.summary, self.start = summary, start
        self.teacher, self.teacher_digest = teacher, teacher_digest
        self.pool = pool
        self.seeds = tuple(config["seed"] + 1000 + number for number in range(options.output.seeds))
        self.name = factory.model_class.__name__
        self._words = _WORDS[config["farzi_positions"]]
        self._bytes_of_an_event = bytes_of_an_id(split.vocabulary)

    def contenders(self):
        """All that the options ask for, in that order."""
        return [self._make(name) for name in self.options.output.contenders]

    def _make(self, name):
        if name == "full":
            return self._full()
        if name == "summary":
            note = f"{self.name} on the distilled soft events alone, temperature, steps and learning rate of its recipe"
            return self._soft(name, "summary (soft)", note, self.summary)
        if name == "summary-passes":
            return self._passes(name)
        if name == "start":
            note = f"{self.name} on the soft events from which distillation started, the same recipe"
            return self._soft(name, f"{self.options.summary.start} start, not distilled", note, self.start)
        if name == "popularity":
            return Contender(
                name, *self._words["popularity"],
                self.split.sequences.events, self.split.vocabulary * _BYTES_OF_A_SHARE, (self.config["seed"],),
                self._popularity, seeded=False,
            )  # fmt: skip
        if name == "teacher":
            note = "what teaches the summary, itself: the mean of the pool's models, with a Markov chain where farzi_pool_chain mixes one in"
            return self._scored(name, "teacher", note, None, None, lambda: self.teacher().row_scores, self.teacher_digest)
        if name == "markov":
            note = "which item follows which in the training events, smoothed; prior and decay chosen on validation"
            return self._scored(name, "Markov chain", note, self._bytes_of_chain, 0.0, self._chain)
        if is_checkpoint(name):
            return self._trained(name)
        if name.startswith("hard"):
            return self._hard(name)
        return self._part(name)

    def _trained(self, file):
        """A model that RecBole has trained on this data, as its checkpoint holds it."""
        state, config, model_class = load_trained(file, self.config)

        def run(seed, tell, state_file=None):
            trainer = RowTrainer(self.config, restored(file, state, config, model_class, self.split.train.dataset))
            trainer.eval_collector.data_collect(self.split.train)
            return trainer, None

        label = f"{model_class.__name__} ({Path(file).stem})"
        key = re.sub(r"[^\w.+-]+", "-", f"{model_class.__name__}-{Path(file).stem}")
        note = f"the trained {model_class.__name__} of {Path(file).name}, as it was given"
        content = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        return Contender(key, label, note, None, None, (self.config["seed"],), run, content, seeded=False)

    def _full(self):
        sequences, how = self.split.sequences, self.options.output.full_data
        note = f"{self.name} on all training events, early stopping on validation"
        size = sequences.events * self._bytes_of_an_event
        if how == "prefixes":
            return Contender("full", "full data", note, sequences.events, size, self.seeds, self._on_prefixes, how)
        # The seeds of the pool's models: trained once, they are teachers and full data both.
        seeds = tuple(self.config["seed"] + number for number in range(len(self.seeds)))
        return Contender("full", "full data", note, sequences.events, size, seeds, self._as_pooled, how)

    def _as_pooled(self, seed, tell, state_file=None):
        """Training on all events: the pool's model of that seed, if training again would give the same."""
        sequences, dataset, size = self.split.sequences, self.split.train.dataset, self.config["train_batch_size"]
        plain = WindowLoader(sequences, dataset, size, seed)
        plain.by_rows = self.traits.by_rows
        found = self.pool.model_of(seed) if self.pool and len(plain) >= _LEAST_STEPS else None
        if found is None:
            return self._on_windows(sequences, seed, tell, state_file)
        trainer = WindowTrainer(self.config, self.factory(seed), self.traits)
        trainer.eval_collector.data_collect(self.split.train)
        state, seconds = found
        trainer.model.load_state_dict(state)
        return trainer, seconds

    def _soft(self, key, label, note, summary):
        def run(seed, tell, state_file=None):
            inner = self.options.inner
            trainer = SummaryTrainer(self.config, self.factory(seed), inner, self.traits)
            loader = SummaryLoader(summary, self.split.train.dataset, inner, seed, self.traits)
            return trainer, timed_fit(trainer, loader, None, tell)

        depends = [summary_digest(summary), asdict(self.options.inner)]
        return Contender(key, label, note, summary.events, summary.nbytes, self.seeds, run, depends)

    def _passes(self, key):
        inner, own = self.options.inner, self.options.students

        def run(seed, tell, state_file=None):
            trainer = PassTrainer(self.config, self.factory(seed), max(1, own.steps // own.eval_step), self.traits)
            loader = PassLoader(self.summary, self.split.train.dataset, inner.batch_size, own.eval_step, seed, self.traits)
            return trainer, timed_fit(trainer, loader, self.split.valid, tell, state_file)

        note = (
            f"{self.name} on the distilled soft events alone, with RecBole's optimiser and options in place of the recipe, early "
            "stopping on validation"
        )
        depends = [summary_digest(self.summary), inner.batch_size, own.steps, own.eval_step]
        return Contender(
            key, "summary, passes", note, self.summary.events, self.summary.nbytes, self.seeds, run, depends
        )

    def _hard(self, name):
        _, _, tail = name.partition("-")
        inputs = 0 if self.summary.inputs is None else self.summary.inputs.numel() * self._bytes_of_an_event
        fitting = max(1, (self.summary.nbytes - inputs) // (self._bytes_of_an_event * self.summary.events))
        draws = self.options.output.hard_samples if not tail else fitting if tail == "bytes" else int(tail)
        hard = self.summary.hard(draws, self.config["seed"])
        what = "likeliest items" if draws == 0 else "1 draw" if draws == 1 else f"{draws} draws"
        how = "the likeliest items" if draws == 0 else f"{what} of each sequence"
        same = ", as many as take the summary's bytes" if tail == "bytes" else ""
        note = f"{self.name} on hard events, {how}{same}; any RecBole can train on them; early stopping on validation"
        label = f"hard, {what}" + (", same bytes" if tail == "bytes" else "")
        inputs = self.summary.inputs
        if inputs is None or self.traits.objective == "sequence":  # what is masked is what is predicted: one sequence
            run, size, depends = functools.partial(self._on_windows, self._as_sequences(hard)), hard.numel(), digest(hard)
        else:
            run, size = functools.partial(self._on_drawn, inputs.cpu(), hard), hard.numel() + inputs.numel()
            depends = [digest(hard), digest(inputs.cpu())]
        return Contender(name, label, note, hard.numel(), size * self._bytes_of_an_event, self.seeds, run, depends)

    def _as_sequences(self, rows):
        return type(self.split.sequences)(list(enumerate(rows.numpy())), self.split.sequences.length)

    def _on_drawn(self, inputs, hard, seed, tell, state_file=None):
        """Hard events as targets, each after the items of its history; the numbers of events stand in for both."""
        histories = inputs.repeat_interleave(len(hard) // len(inputs), dim=0)
        numbers = torch.arange(1, hard.numel() + 1).view(hard.shape)
        items, targets = (torch.nn.functional.pad(ids.reshape(-1), (1, 0)) for ids in (histories, hard))
        trainer = DrawnTrainer(self.config, self.factory(seed), items, targets, self.traits)
        return trainer, timed_fit(
            trainer, self._windows(self._as_sequences(numbers), seed), self.split.valid, tell, state_file
        )

    def _part(self, name):
        """A part of the real data: as many events as the summary has, or as fit in its bytes."""
        part, same_bytes = name.removesuffix("-bytes"), name.endswith("-bytes")
        if part == "teacher-labels":
            return self._labels(name, same_bytes)
        everything = self.split.sequences.events
        events = min(self.summary.nbytes // self._bytes_of_an_event if same_bytes else self.summary.events, everything)
        label, what = {
            "random": self._words["random"],
            "head": ("head users", "events of the users with the longest histories"),
            "popular-items": ("popular items", "events of the most popular items"),
            "svp-cf": ("SVP-CF, events", "events that a small proxy model finds hardest (SVP-CF)"),
            "svp-cf-users": ("SVP-CF, users", "events of the users whom a small proxy model finds hardest (SVP-CF)"),
        }[part]
        size = "as take the summary's bytes" if same_bytes else "as the summary has events"
        note = f"{self.name} on as many real {what} {size}, early stopping on validation"

        def run(seed, tell, state_file=None):
            return self._on_windows(self._chosen(part, events, seed), seed, tell, state_file)

        label += ", same bytes" if same_bytes else ""
        return Contender(name, label, note, events, events * self._bytes_of_an_event, self.seeds, run, events)

    def _chosen(self, part, events, seed):
        sequences = self.split.sequences
        if part == "random":
            return random_users(sequences, events, np.random.default_rng(seed))
        if part == "head":
            return head_users(sequences, events)
        if part == "popular-items":
            return popular_items(sequences, events, self.split.counts)
        return (hardest_events if part == "svp-cf" else hardest_users)(sequences, events, self._importance)

    @functools.cached_property
    def _importance(self):
        self._check_room("what users have met takes", len(self.split.sequences) * self.split.vocabulary)
        return proxy_importance(
            self.split.sequences, self.split.vocabulary, self.config["seed"], self.config["device"]
        )

    def _labels(self, name, same_bytes):
        """Plain knowledge distillation: random real events, labelled by the teacher's predictions."""
        events = min(self.summary.events, self.split.sequences.events)
        items, of_an_id = self.split.vocabulary - 1, self._bytes_of_an_event
        likeliest = items
        if same_bytes:
            left = self.summary.nbytes - events * of_an_id
            if left < events * items * _BYTES_OF_A_SHARE:
                likeliest = min(max(1, left // (events * (of_an_id + _BYTES_OF_A_SHARE))), items)
        of_a_label = likeliest * (of_an_id + _BYTES_OF_A_SHARE) if likeliest < items else items * _BYTES_OF_A_SHARE
        size = events * (of_an_id + of_a_label)

        def run(seed, tell, state_file=None):
            self._check_room("its labels take", events * likeliest * (4 if likeliest == items else 12), self.config["device"])
            sample = self._chosen("random", events, seed)
            numbered, ids, labels = teacher_labels(self.teacher(), sample, likeliest)
            round_labels(labels.shares)  # to what their size counts
            trainer = LabelTrainer(self.config, self.factory(seed), ids, labels, self.traits)
            return trainer, timed_fit(trainer, self._windows(numbered, seed), self.split.valid, tell, state_file)

        cut = "" if likeliest == items else f", cut to the {likeliest} likeliest items each"
        note = (
            f"{self.name} on the real events of random users (others for each seed), as many as the summary has, each "
            f"labelled with what the summary's teacher predicts there{cut}: plain knowledge distillation; "
            "early stopping on validation"
        )
        label = "teacher's labels" + (", same bytes" if same_bytes else "")
        return Contender(name, label, note, events, size, self.seeds, run, [events, likeliest, self.teacher_digest])

    def _check_room(self, what, size, device="cpu"):
        """Refuse a contender that holds ``size`` bytes in main memory, and on a device, and there are not so many."""
        room = min(available(torch.device("cpu")), available(torch.device(device)))
        if size > room:
            raise DataError(f"{what} {size / 2**30:,.1f} GiB, and {room / 2**30:,.1f} are free")

    def _windows(self, sequences, seed):
        size = self.config["train_batch_size"]
        return WindowLoader(sequences, self.split.train.dataset, size, seed, least_batches=_LEAST_STEPS)

    def _on_windows(self, sequences, seed, tell, state_file=None):
        trainer = WindowTrainer(self.config, self.factory(seed), self.traits)
        return trainer, timed_fit(trainer, self._windows(sequences, seed), self.split.valid, tell, state_file)

    def _on_prefixes(self, seed, tell, state_file=None):
        trainer = RowTrainer(self.config, self.factory(seed))
        self.split.train.generator.manual_seed(seed)  # RecBole's loader goes on where the last training left it
        return trainer, timed_fit(trainer, self.split.train, self.split.valid, tell, state_file)

    def _popularity(self, seed, tell, state_file=None):
        return self._untrained(Popularity(self.split.counts))

    def _scored(self, key, label, note, size, seconds, made, depends=None):
        """What scores histories and is not trained here; ``made`` gives its function, in ``seconds``, where anybody knows."""

        def run(seed, tell, state_file=None):
            return self._untrained(Scorer(made(), self.config))[0], seconds

        return Contender(key, label, note, self.split.sequences.events, size, (self.config["seed"],), run, depends, seeded=False)

    def _untrained(self, model):
        trainer = RowTrainer(self.config, model.to(self.config["device"]))
        trainer.eval_collector.data_collect(self.split.train)
        return trainer, 0.0

    def _chain(self):
        chain = likeliest_chain(Rows(*evaluation_rows(self.split.valid)), self.split.sequences, item_shares(self.split.counts))
        chain = chain.to(self.config["device"])
        return lambda histories, lengths, users: torch.log(chain.row_probabilities(histories, lengths))

    @property
    def _bytes_of_chain(self):
        """Every transition that occurs, two items and a share; and the items' shares."""
        pairs = transition_counts(self.split.sequences, self.split.vocabulary).nnz
        return pairs * (2 * self._bytes_of_an_event + _BYTES_OF_A_SHARE) + self.split.vocabulary * _BYTES_OF_A_SHARE


def round_labels(labels):
    """In place: distributions that 16-bit floats hold up to a factor, which makes them sum to one again.

    Args:
        labels: shares of items, shape [n, k]; a row of zeros stays one.
    """
    for label in labels:  # one at a time: over a large vocabulary there is no room for all of them twice
        label.copy_((label / label.max().clamp_min(_SMALLEST)).half())
        label.div_(label.sum().clamp_min(_SMALLEST))


def timed_fit(trainer, train_data, valid_data, tell, state_file=None):
    """RecBole's ``fit``, which goes on from ``state_file`` if it is there; returns the seconds that training took (with its
    validations), those of earlier processes included."""
    trainer.state_file = state_file

    def after_epoch(epoch, score):
        tell(f", epoch {epoch + 1}, valid {score:.4f}")

    trainer.fit(train_data, valid_data, verbose=False, saved=True, show_progress=False, callback_fn=after_epoch)
    return trainer.seconds
