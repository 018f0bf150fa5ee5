"""RecBole trainers for windows of real events (all positions at once) and for summaries.

Both use RecBole's own loop (``Trainer.fit``), optimiser, early stopping, logger, progress bar, TensorBoard and
evaluator; what differs is the loss of a batch and where batches come from.
"""

import copy

import numpy as np
import torch
from recbole.trainer import Trainer

from recbole_farzi.errors import DivergenceError
from recbole_farzi.metrics import RowCollector
from recbole_farzi.models import without_dropout
from recbole_farzi.sequences import batch_order
from recbole_farzi.student import Student

__all__ = ["RowTrainer", "WindowLoader", "WindowTrainer", "SummaryLoader", "SummaryTrainer", "recipe_optimizer"]


class RowTrainer(Trainer):
    """RecBole's Trainer, which keeps the rows of its last evaluation, and its best weights in memory, not in a pickle.

    Attributes:
        rows: the ``DataStruct`` of the last :meth:`evaluate`; see :class:`recbole_farzi.metrics.RowCollector`.
    """

    _remedy = "a smaller learning_rate"

    def __init__(self, config, model):
        super().__init__(config, model)
        self.eval_collector = RowCollector(config)
        self._best_state = None

    @property
    def rows(self):
        return self.eval_collector.rows

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        self._best_state = copy.deepcopy(self.model.state_dict())

    def _check_nan(self, loss):
        if not torch.isfinite(loss):
            raise DivergenceError(
                f"training {type(self.model).__name__} gave a loss of {loss.item()}; {self._remedy} may help"
            )

    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        """As RecBole's; the best model comes from memory unless ``model_file`` is given."""
        if load_best_model and model_file is None:
            if self._best_state is not None:
                self.model.load_state_dict(self._best_state)
            load_best_model = False
        return super().evaluate(eval_data, load_best_model, model_file, show_progress)


class WindowLoader:
    """Batches of real windows, another cut and order in each epoch; stands in for RecBole's train data loader.

    Args:
        sequences: :class:`recbole_farzi.sequences.Sequences`.
        dataset: RecBole's train dataset, which evaluation metrics may ask for item counts.
        batch_size: windows in a batch.
        seed: of cuts and orders.
        least_batches: few events are gone through more than once between two validations, so that an epoch has at least
            about this many steps.
    """

    shuffle = True

    def __init__(self, sequences, dataset, batch_size, seed, least_batches=1):
        self.sequences = sequences
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.least_batches = least_batches
        self._epoch = 0
        self._next = None

    def _batches(self):
        """The coming epoch's batches, drawn once: RecBole asks for their number first."""
        if self._next is None:
            self._next, passes = [], 0
            while passes == 0 or len(self._next) < self.least_batches:
                rng = np.random.default_rng([self.seed, self._epoch, passes])
                self._next.extend(self.sequences.windows(rng).split(self.batch_size))
                passes += 1
        return self._next

    def __len__(self):
        return len(self._batches())

    def __iter__(self):
        batches = self._batches()
        self._epoch, self._next = self._epoch + 1, None
        return iter(batches)


class WindowTrainer(RowTrainer):
    """Trains on every position of real windows: the same targets as RecBole's prefixes, in one pass if causal.

    Args:
        config: RecBole's Config.
        model: RecBole's model.
        traits: :class:`recbole_farzi.student.ModelTraits`, if known.

    Attributes:
        after_epoch: function called with the number of epochs done, before validation; or None.
    """

    def __init__(self, config, model, traits=None):
        super().__init__(config, model)
        self.student = Student(model, traits)
        self.after_epoch = None

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        steps = len(train_data)
        total = super()._train_epoch(train_data, epoch_idx, loss_func or self.student.real_loss, show_progress)
        if self.after_epoch is not None:
            self.after_epoch(epoch_idx + 1)
        return total / steps


class SummaryLoader:
    """Batches of soft events in the recipe's order, T of them; stands in for RecBole's train data loader.

    Args:
        distributions: ``P``, shape [mu, xi, V].
        dataset: RecBole's dataset, which evaluation metrics may ask for item counts.
        inner: :class:`recbole_farzi.options.InnerOptions`, the recipe.
        seed: of the order.
    """

    shuffle = False

    def __init__(self, distributions, dataset, inner, seed):
        self.distributions = distributions
        self.dataset = dataset
        self.order = batch_order(len(distributions), inner.batch_size, inner.steps, seed)

    def __len__(self):
        return len(self.order)

    def __iter__(self):
        return (self.distributions[rows] for rows in self.order)


def recipe_optimizer(model, inner):
    """The Adam of a recipe (:class:`recbole_farzi.options.InnerOptions`), fresh, for a model's parameters."""
    return torch.optim.Adam(
        model.parameters(), lr=inner.learning_rate, betas=inner.betas, eps=inner.eps, weight_decay=inner.weight_decay
    )


class SummaryTrainer(RowTrainer):
    """Trains on a summary by its recipe: one epoch of T steps of Adam, no early stopping.

    Args:
        config: RecBole's Config.
        model: RecBole's model; its dropout is taken out of action where the recipe has none.
        inner: :class:`recbole_farzi.options.InnerOptions`.
        traits: :class:`recbole_farzi.student.ModelTraits`, if known.
    """

    _remedy = "a smaller farzi_inner_learning_rate or a larger farzi_inner_eps"

    def __init__(self, config, model, inner, traits=None):
        self.inner = inner
        super().__init__(config, model if inner.dropout else without_dropout(model))
        self.epochs = 1
        self.clip_grad_norm, self.enable_amp, self.enable_scaler = None, False, False  # not part of the recipe
        self.student = Student(model, traits)

    def _build_optimizer(self, **kwargs):
        return recipe_optimizer(self.model, self.inner)

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        total = super()._train_epoch(train_data, epoch_idx, loss_func or self.student.soft_loss, show_progress)
        return total / len(train_data)
