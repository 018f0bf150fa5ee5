"""RecBole trainers for windows of real events (all positions at once) and for summaries.

Both use RecBole's own loop (``Trainer.fit``), optimiser, early stopping, logger, progress bar, TensorBoard and
evaluator; what differs is the loss of a batch and where batches come from.
"""

import copy
import logging
import time
from typing import NamedTuple, Optional

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer

from recbole_farzi.curves import Curves
from recbole_farzi.errors import DataError, DivergenceError, StorageError
from recbole_farzi.generation import histories_at_once
from recbole_farzi.interactions import cut_rows, prefix_rows
from recbole_farzi.metrics import RowCollector
from recbole_farzi.models import without_dropout
from recbole_farzi.resumption import Pace, random_streams, restore_random_streams
from recbole_farzi.sentences import following
from recbole_farzi.sequences import Sequences, Windows, batch_order
from recbole_farzi.soft_events import rows_of, soft_cross_entropy_dense
from recbole_farzi.storage import load_tensors, save_tensors
from recbole_farzi.student import Student
from recbole_farzi.update_rules import torch_optimizer

__all__ = [
    "DrawnTrainer",
    "LabelTrainer",
    "Labels",
    "RowTrainer",
    "SummaryLoader",
    "SummaryTrainer",
    "WindowLoader",
    "WindowTrainer",
    "recipe_optimizer",
    "teacher_labels",
]


ROWS_PER_WINDOW = 8  # a batch of prefixes has this many for each window that a batch of windows would have


class RowTrainer(Trainer):
    """RecBole's Trainer, which keeps the rows of its last evaluation, and its best weights in memory, not in a pickle.

    Attributes:
        rows: the ``DataStruct`` of the last :meth:`evaluate`; see :class:`recbole_farzi.metrics.RowCollector`.
        student: the model as :class:`recbole_farzi.student.Student`, or None where it is read history by history.
        state_file: file in which :meth:`fit` keeps its state at the beginnings of epochs, and from which it goes on if the
            file is there; None keeps nothing. Who set it removes it when what was trained is stored.
        seconds: time that :meth:`fit` took, with that of the processes which it continued.
        best_epoch: number of epochs after which validation was best, or None where there was no validation.
    """

    _remedy = "a smaller learning_rate"

    def __init__(self, config, model):
        super().__init__(config, model)
        self.tensorboard = Curves(self.tensorboard)
        self.eval_collector = RowCollector(config)
        self.student = None
        self._every_position = config["farzi_positions"] == "every"
        self._best_state = None
        self.best_epoch = None
        self.state_file = None
        self.seconds = 0.0
        self._pace = Pace()

    def fit(self, train_data, *args, **kwargs):
        """As RecBole's; goes on from :attr:`state_file` if there is one, to the same result as if never interrupted."""
        self._begun = time.perf_counter()
        if self.state_file is not None and self.state_file.is_file():
            self._continue(train_data)
        result = super().fit(train_data, *args, **kwargs)
        self.seconds += time.perf_counter() - self._begun
        return result

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        if self.state_file is not None and epoch_idx > self.start_epoch and self._pace.due:
            with self._pace.saving():
                save_tensors(self.state_file, self._state(train_data, epoch_idx))
        return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)

    def _state(self, train_data, epoch):
        return {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self._best_state,
            "best_epoch": self.best_epoch,
            "best_score": float(self.best_valid_score),
            "best_result": None if self.best_valid_result is None else {k: float(v) for k, v in self.best_valid_result.items()},
            "waited": self.cur_step,
            "losses": dict(self.train_loss_dict),
            "loader": loader_state(train_data),
            "random": random_streams(self.device),
            "seconds": self.seconds + time.perf_counter() - self._begun,
        }

    def _continue(self, train_data):
        try:
            state = load_tensors(self.state_file, self.device)
            epoch, waited = int(state["epoch"]), int(state["waited"])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self._best_state, self.best_epoch = state["best"], state["best_epoch"]
            self.best_valid_score, self.best_valid_result = state["best_score"], state["best_result"]
            self.train_loss_dict, self.seconds = state["losses"], state["seconds"]
            restore_loader(train_data, state["loader"])
            restore_random_streams(state["random"], self.device)
        except (StorageError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise StorageError(f"training cannot be continued from {self.state_file} ({reason}); remove it") from error
        self.start_epoch, self.cur_step = epoch, waited
        logging.getLogger().info(f"Training goes on after epoch {epoch}, from {self.state_file}")

    @property
    def rows(self):
        return self.eval_collector.rows

    def _read_as(self, student):
        self.student = student
        # where every position counts, the student's scores are evaluated, which are logarithms
        self.eval_collector.probabilities = student.traits.probabilities and not self._every_position

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        self._best_state, self.best_epoch = copy.deepcopy(self.model.state_dict()), epoch + 1

    def _check_nan(self, loss):
        if not torch.isfinite(loss):
            raise DivergenceError(
                f"training {type(self.model).__name__} gave a loss of {loss.item()}; {self._remedy} may help"
            )

    def _full_sort_batch_eval(self, batched_data):
        """As RecBole's; where every position counts, a row for each event after a history's first, and for the target."""
        if not self._every_position:
            return super()._full_sort_batch_eval(batched_data)
        interaction, _, _, targets = batched_data
        interaction, targets = interaction.to(self.device), targets.to(self.device)
        item_seq = self.config["ITEM_ID_FIELD"] + self.config["LIST_SUFFIX"]  # a model of popularity has no names of its own
        item_seq_len = self.config["ITEM_LIST_LENGTH_FIELD"]
        histories = interaction[item_seq]
        histories = histories[:, : int(interaction[item_seq_len].max())]
        wanted = following(histories, targets)
        rows = wanted.ne(0)
        if self.student is not None:
            scores = self.student.scores(histories, users=interaction[self.config["USER_ID_FIELD"]])[rows]
        else:
            numbers, places = rows.nonzero(as_tuple=True)
            prefixes, lengths = cut_rows(histories, numbers, places + 1, histories.shape[1])
            scores = self.model.full_sort_predict({item_seq: prefixes, item_seq_len: lengths})
        scores[:, 0] = -np.inf
        users = interaction[self.config["USER_ID_FIELD"]].unsqueeze(1).expand_as(rows)[rows]
        numbers = torch.arange(len(users), device=self.device)
        return Interaction({self.config["USER_ID_FIELD"]: users}), scores, numbers, wanted[rows]

    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        """As RecBole's; the best model comes from memory unless ``model_file`` is given."""
        if load_best_model and model_file is None:
            if self._best_state is not None:
                self.model.load_state_dict(self._best_state)
            load_best_model = False
        return super().evaluate(eval_data, load_best_model, model_file, show_progress)


def loader_state(loader):
    """What a loader of training batches does next, as plain values and tensors: for :func:`restore_loader`."""
    generator = getattr(loader, "generator", None)
    return {"epoch": getattr(loader, "epoch", None), "generator": None if generator is None else generator.get_state()}


def restore_loader(loader, state):
    """Have a loader go on from what :func:`loader_state` returned."""
    if state["epoch"] is not None:
        loader.epoch = state["epoch"]
    if state["generator"] is not None:
        loader.generator.set_state(state["generator"].cpu())


class WindowLoader:
    """Batches of real windows, another cut and order in each epoch; stands in for RecBole's train data loader.

    A model that must read every prefix gets windows that each end at their only target, :data:`ROWS_PER_WINDOW` times as
    many in a batch.

    Args:
        sequences: :class:`recbole_farzi.sequences.Sequences`.
        dataset: RecBole's train dataset, which evaluation metrics may ask for item counts.
        batch_size: windows in a batch.
        seed: of cuts and orders.
        least_batches: few events are gone through more than once between two validations, so that an epoch has at least
            about this many steps.

    Attributes:
        epoch: number of the coming epoch, on which its batches depend.
        by_rows: give windows with one target each.

    Raises:
        DataError: no history has two events, so that there is nothing to predict.
    """

    shuffle = True
    by_rows = False

    def __init__(self, sequences, dataset, batch_size, seed, least_batches=1):
        self.sequences = sequences
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.least_batches = least_batches
        self.epoch = 0
        self._next = None
        if all(len(items) < 2 for items in sequences.items):
            raise DataError(f"its {sequences.events} events hold no two of the same user, so nothing can be predicted")

    def _batches(self):
        """The coming epoch's batches, drawn once: RecBole asks for their number first."""
        if self._next is None:
            self._next, passes = [], 0
            while passes == 0 or len(self._next) < self.least_batches:
                rng = np.random.default_rng([self.seed, self.epoch, passes])
                if self.by_rows:
                    self._next.extend(self.sequences.rows(rng).split(self.batch_size * ROWS_PER_WINDOW))
                else:
                    self._next.extend(self.sequences.batches(self.batch_size, rng))
                passes += 1
        return self._next

    def __len__(self):
        return len(self._batches())

    def __iter__(self):
        batches = self._batches()
        self.epoch, self._next = self.epoch + 1, None
        return iter(batches)


class WindowTrainer(RowTrainer):
    """Trains on every event of real windows: the same targets as RecBole's prefixes, in one pass if the model is causal.

    Args:
        config: RecBole's Config.
        model: RecBole's model.
        traits: :class:`recbole_farzi.inspection.ModelTraits`, if known.

    Attributes:
        after_epoch: function called with the number of epochs done, before validation; or None.
    """

    def __init__(self, config, model, traits=None):
        super().__init__(config, model)
        self._read_as(Student(model, traits, config))
        self.after_epoch = None

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        train_data.by_rows = by_rows = self.student.traits.by_rows
        steps = len(train_data)

        def loss(windows):
            return self.student.training_loss(windows, last_only=by_rows)

        total = super()._train_epoch(train_data, epoch_idx, loss_func or loss, show_progress)
        if self.after_epoch is not None:
            self.after_epoch(epoch_idx + 1)
        return total / steps


class DrawnTrainer(WindowTrainer):
    """Trains on windows of events that are one item in the histories and another one, drawn for them, as targets.

    Its windows hold the *numbers* of events, from 1 on.

    Args:
        config: RecBole's Config.
        model: RecBole's model; not one whose objective is on whole sequences.
        inputs: item of each event as a part of the history, shape [events + 1]; number 0 is padding.
        targets: the item that was drawn for it, likewise.
        traits: :class:`recbole_farzi.student.ModelTraits`, if known.
    """

    def __init__(self, config, model, inputs, targets, traits=None):
        super().__init__(config, model, traits)
        self.inputs, self.targets = inputs.to(self.device), targets.to(self.device)

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        return super()._train_epoch(train_data, epoch_idx, loss_func or self.drawn_loss, show_progress)

    def drawn_loss(self, windows):
        """The model's training loss over all targets."""
        numbers, users = (windows, None) if torch.is_tensor(windows) else (windows.items, windows.users)
        targets = self.targets[numbers]
        return self.student.training_loss(
            targets if users is None else Windows(targets, users), last_only=self.student.traits.by_rows,
            inputs=self.inputs[numbers],
        )  # fmt: skip


class LabelTrainer(WindowTrainer):
    """Trains on windows of real events with soft labels in place of the next item: plain knowledge distillation.

    Its windows hold the *numbers* of events, from 1 on, as :func:`teacher_labels` gives them.

    Args:
        config: RecBole's Config.
        model: RecBole's model.
        items: item of each event, shape [events + 1]; number 0 is padding.
        labels: :class:`Labels` of the events.
        traits: :class:`recbole_farzi.student.ModelTraits`, if known.
    """

    def __init__(self, config, model, items, labels, traits=None):
        super().__init__(config, model, traits)
        self.items, self.labels = items.to(self.device), labels.to(self.device)

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        return super()._train_epoch(train_data, epoch_idx, loss_func or self.label_loss, show_progress)

    def label_loss(self, windows):
        """Mean cross-entropy against the labels over all targets, in nats an event."""
        student = self.student
        numbers, users = (windows, None) if torch.is_tensor(windows) else (windows.items, windows.users)
        if student.traits.causal:
            scores = student.scores(self.items[numbers[:, :-1]], users=users)
            known = numbers[:, 1:] > 0
            scores, targets = scores[known], numbers[:, 1:][known]
        else:
            histories, lengths, targets, rows = prefix_rows(numbers, student.length, last_only=True)
            scores = student.row_scores(self.items[histories], lengths, None if users is None else users[rows])
        scores, labels = scores[:, 1 : student.vocabulary], self.labels.at(targets)
        if labels.items is None:
            return soft_cross_entropy_dense(scores, labels.shares).mean()
        return (torch.logsumexp(scores, dim=1) - (labels.shares * scores.gather(1, labels.items)).sum(dim=1)).mean()


class Labels(NamedTuple):
    """Distributions over the items but padding, of numbered events.

    Attributes:
        shares: mass of each item, shape [events + 1, V - 1]; where labels are cut, of the k likeliest, [events + 1, k].
        items: where they are cut, which those are, less one, shape [events + 1, k]; else None.
    """

    shares: torch.Tensor
    items: Optional[torch.Tensor] = None

    def at(self, events):
        """Those of some events."""
        return Labels(*(None if tensor is None else tensor[events] for tensor in self))

    def to(self, device):
        """The same on another device."""
        return Labels(*(None if tensor is None else tensor.to(device) for tensor in self))


def teacher_labels(teacher, sequences, likeliest, batch_size=512):
    """What a trained model predicts at each event of some histories, from the events before it.

    Args:
        teacher: a trained :class:`recbole_farzi.student.Student`, or what answers as it does (``Ensemble``, ``Interpolated``).
        sequences: the histories, :class:`recbole_farzi.sequences.Sequences`.
        likeliest: items that a label keeps; the others get no mass.
        batch_size: events predicted at once, fewer where their scores take too much memory.

    Returns:
        ``(numbered, items, labels)``: the histories with the numbers of their events in place of items, and what
        :class:`LabelTrainer` reads, :class:`Labels` among it. The first event of a history has nothing before it; its label is never used.
    """
    classes = teacher.vocabulary - 1
    items = torch.from_numpy(np.concatenate([np.zeros(1, dtype=np.int64), *sequences.items]))
    ends = np.cumsum([len(history) for history in sequences.items])
    numbers = [np.arange(end - len(history), end) + 1 for history, end in zip(sequences.items, ends)]
    numbered = Sequences(list(zip(sequences.users, numbers)), sequences.length)
    cut = likeliest < classes
    labels = Labels(torch.zeros(len(items), min(likeliest, classes)), torch.zeros(len(items), likeliest, dtype=torch.int64) if cut else None)
    batch_size = min(batch_size, histories_at_once(teacher.vocabulary))
    predicted = np.concatenate([history[1:] for history in numbered.items])
    starts = np.repeat([history[0] for history in numbered.items], [len(history) - 1 for history in numbered.items])
    owners = np.repeat(sequences.users, [len(history) - 1 for history in numbered.items])
    teacher.eval()
    with torch.no_grad():
        for first in range(0, len(predicted), batch_size):
            events = torch.from_numpy(predicted[first : first + batch_size])
            begins = torch.from_numpy(np.maximum(starts[first : first + batch_size], events.numpy() - sequences.length))
            lengths = events - begins
            place = torch.arange(sequences.length)
            before = items[(begins[:, None] + place).clamp(max=len(items) - 1)]
            histories = torch.where(place < lengths[:, None], before, 0)
            users = torch.from_numpy(owners[first : first + batch_size]).to(teacher.device)
            scores = teacher.row_scores(histories.to(teacher.device), lengths.to(teacher.device), users)
            scores = scores[:, 1 : teacher.vocabulary].cpu()
            shares = torch.softmax(scores, dim=1)
            if cut:
                shares, labels.items[events] = shares.topk(likeliest, dim=1)
            labels.shares[events] = shares / shares.sum(dim=1, keepdim=True)
    return numbered, items, labels


class SummaryLoader:
    """Batches of soft events in the recipe's order, T of them; stands in for RecBole's train data loader.

    Args:
        summary: :class:`recbole_farzi.summary.Summary`.
        dataset: RecBole's dataset, which evaluation metrics may ask for item counts.
        inner: :class:`recbole_farzi.options.InnerOptions`, the recipe.
        seed: of the order.
        traits: of the model that reads them, :meth:`recbole_farzi.summary.Summary.training_events`.
    """

    shuffle = False

    def __init__(self, summary, dataset, inner, seed, traits=None):
        self.events = summary.training_events(traits)
        self.dataset = dataset
        self.order = batch_order(len(summary.latent), inner.batch_size, inner.steps, seed)

    def __len__(self):
        return len(self.order)

    def __iter__(self):
        return (rows_of(self.events, rows) for rows in self.order)


def recipe_optimizer(model, inner):
    """The optimiser of a recipe (:class:`recbole_farzi.options.InnerOptions`), fresh, for a model's parameters.

    Its learning rate follows the recipe by itself, step after step, and stays where it is after the last.
    """
    rates = inner.rates()
    optimizer = torch_optimizer(model.parameters(), inner, rates[0])
    coming = iter(rates[1:])

    def next_rate(optimizer, *_):
        for group in optimizer.param_groups:
            group["lr"] = next(coming, group["lr"])

    optimizer.register_step_post_hook(next_rate)
    return optimizer


class SummaryTrainer(RowTrainer):
    """Trains on a summary by its recipe: one epoch of T steps of its optimiser, no early stopping.

    Args:
        config: RecBole's Config.
        model: RecBole's model; its dropout is taken out of action where the recipe has none.
        inner: :class:`recbole_farzi.options.InnerOptions`.
        traits: :class:`recbole_farzi.inspection.ModelTraits`, if known.
    """

    _remedy = "a smaller farzi_inner_learning_rate or a larger farzi_inner_eps"

    def __init__(self, config, model, inner, traits=None):
        self.inner = inner
        super().__init__(config, model if inner.dropout else without_dropout(model))
        self.epochs = 1
        self.clip_grad_norm, self.enable_amp, self.enable_scaler = None, False, False  # not part of the recipe
        self._read_as(Student(model, traits, config).forget_users())

    def _build_optimizer(self, **kwargs):
        return recipe_optimizer(self.model, self.inner)

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        total = super()._train_epoch(train_data, epoch_idx, loss_func or self.student.training_loss_on, show_progress)
        return total / len(train_data)
