"""What a summary is compared with: popularity, and samples of the real data of the same size."""

import numpy as np
import torch
from recbole.model.abstract_recommender import SequentialRecommender

from recbole_farzi.sequences import Sequences

__all__ = ["Popularity", "random_users"]


class Popularity(SequentialRecommender):
    """Ranks items by how often they occur in the training data, the same for everybody.

    Scores are log shares, add-one-half smoothed, so that its cross-entropy is that of a unigram model.

    Args:
        config: RecBole's Config.
        dataset: RecBole's dataset.
        counts: occurrences of each item, shape [V].
    """

    def __init__(self, config, dataset, counts):
        super().__init__(config, dataset)
        shares = torch.as_tensor(np.asarray(counts), dtype=torch.float64) + 0.5
        shares[0] = 0.0
        self.register_buffer("scores", torch.log(shares / shares.sum()).float())
        self.unused = torch.nn.Parameter(torch.zeros(1))  # RecBole's Trainer builds an optimiser for any model

    def full_sort_predict(self, interaction):
        return self.scores.repeat(len(interaction[self.ITEM_SEQ]), 1)


def random_users(sequences, events, rng):
    """Whole histories of random users, until there are ``events`` events; the last history is cut to fit.

    Args:
        sequences: the real histories.
        events: how many events to take.
        rng: ``numpy.random.Generator``.

    Returns:
        :class:`recbole_farzi.sequences.Sequences`.
    """
    chosen, left = [], events
    for number in rng.permutation(len(sequences)):
        if left <= 0:
            break
        items = sequences.items[number][:left]
        chosen.append((sequences.users[number], items))
        left -= len(items)
    return Sequences(chosen, sequences.length)
