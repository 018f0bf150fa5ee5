"""Training on a summary in a model's own way: pass after pass with RecBole's optimiser, until validation gets no better.

The recipe that is shipped with a summary suits the model that distilled it. Another one may learn at another pace: STAMP's first
weights are all but 0, GRU4Rec's first hundred steps change nothing that validation sees. Here it trains as it would on real
events: ``learner``, ``learning_rate``, ``weight_decay`` and ``stopping_step`` are RecBole's options.
"""

from recbole_farzi.sequences import batch_order
from recbole_farzi.soft_events import rows_of
from recbole_farzi.student import Student
from recbole_farzi.training import RowTrainer

__all__ = ["PassLoader", "PassTrainer"]


class PassLoader:
    """Batches of soft events in random order, another one in each epoch; stands in for RecBole's train data loader.

    Args:
        summary: :class:`recbole_farzi.summary.Summary`.
        dataset: RecBole's dataset, which evaluation metrics may ask for item counts.
        batch_size: synthetic sequences in a batch, at most mu.
        steps: batches in an epoch, that is between two validations.
        seed: of the order.
        traits: of the model that reads them, :meth:`recbole_farzi.summary.Summary.training_events`.

    Attributes:
        epoch: number of the coming epoch, on which its order depends.
    """

    shuffle = True

    def __init__(self, summary, dataset, batch_size, steps, seed, traits=None):
        self.events, self.sequences = summary.training_events(traits), len(summary.latent)
        self.dataset = dataset
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.epoch = 0

    def __len__(self):
        return self.steps

    def __iter__(self):
        # the whole order again, so that an epoch goes on in the pass in which the one before it ended
        order = batch_order(self.sequences, self.batch_size, (self.epoch + 1) * self.steps, self.seed)
        self.epoch += 1
        return (rows_of(self.events, rows) for rows in order[-self.steps :])


class PassTrainer(RowTrainer):
    """Trains on a summary with RecBole's optimiser and early stopping on validation; dropout is the model's own.

    Args:
        config: RecBole's Config.
        model: RecBole's model.
        epochs: validations at most.
        traits: :class:`recbole_farzi.inspection.ModelTraits`, if known.
    """

    def __init__(self, config, model, epochs, traits=None):
        super().__init__(config, model)
        self.epochs = epochs
        self.eval_step = 1
        self._read_as(Student(model, traits, config).forget_users())

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        total = super()._train_epoch(train_data, epoch_idx, loss_func or self.student.training_loss_on, show_progress)
        return total / len(train_data)
