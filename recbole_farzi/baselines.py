"""What a summary is compared with: popularity, whatever scores histories, and parts of the real data of the same size.

Each part is a function from the real histories and a number of events to
:class:`recbole_farzi.sequences.Sequences` that hold exactly so many of them (or all, if there are fewer).
"""

import numpy as np
import torch
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_farzi.sequences import item_shares

__all__ = ["Popularity", "Scorer", "hardest_events", "hardest_users", "head_users", "popular_items", "random_users"]


class Popularity(AbstractRecommender):
    """Ranks items by how often they occur in the training data, the same for everybody, whatever rows it is asked about.

    Scores are log shares, add-one-half smoothed, so that its cross-entropy is that of a unigram model.

    Args:
        counts: occurrences of each item, shape [V].
    """

    def __init__(self, counts):
        super().__init__()
        self.register_buffer("scores", torch.log(item_shares(counts)).float())
        self.unused = torch.nn.Parameter(torch.zeros(1))  # RecBole's Trainer builds an optimiser for any model

    def full_sort_predict(self, interaction):
        rows = len(next(iter(interaction.values()))) if isinstance(interaction, dict) else len(interaction)
        return self.scores.repeat(rows, 1)


class Scorer(AbstractRecommender):
    """What scores items after histories, as RecBole's evaluator asks a model.

    Args:
        row_scores: function from histories [r, n], padded with 0 on the right, their lengths [r] and users [r], or None, to scores [r, V].
        config: RecBole's Config, whose names of columns count.
    """

    def __init__(self, row_scores, config):
        super().__init__()
        self.row_scores = row_scores
        self.columns = (config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"], config["ITEM_LIST_LENGTH_FIELD"], config["USER_ID_FIELD"])
        self.unused = torch.nn.Parameter(torch.zeros(1))  # RecBole's Trainer builds an optimiser for any model

    @torch.no_grad()
    def full_sort_predict(self, interaction):
        histories, lengths, users = (interaction[column] if column in interaction else None for column in self.columns)
        return self.row_scores(histories, lengths, users)


def random_users(sequences, events, rng):
    """Whole histories of random users, until there are ``events`` events; the last history is cut to fit.

    Args:
        sequences: the real histories.
        events: how many events to take.
        rng: ``numpy.random.Generator``.
    """
    return _whole_histories(sequences, events, rng.permutation(len(sequences)))


def head_users(sequences, events):
    """Whole histories of the most active users, the longest first; the last history is cut to fit.

    Args:
        sequences: the real histories.
        events: how many events to take.
    """
    sizes = np.array([len(items) for items in sequences.items])
    return _whole_histories(sequences, events, np.argsort(-sizes, kind="stable"))


def popular_items(sequences, events, counts):
    """All events of the most popular items, the most popular first; of the last item the first events that fit.

    Args:
        sequences: the real histories.
        events: how many events to take.
        counts: occurrences of each item, shape [V].
    """
    counts = np.asarray(counts)
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return _single_events(sequences, events, [-rank[items] for items in sequences.items])


def hardest_events(sequences, events, importance):
    """SVP-CF: the events that a small proxy model finds hardest (see :mod:`recbole_farzi.proxy`).

    Args:
        sequences: the real histories.
        events: how many events to take.
        importance: of each event, arrays of the shapes of ``sequences.items``; the most important are taken.
    """
    return _single_events(sequences, events, importance)


def hardest_users(sequences, events, importance):
    """SVP-CF by users: whole histories of the users whose events are hardest on average; the last is cut to fit.

    Args:
        sequences: the real histories.
        events: how many events to take.
        importance: as for :func:`hardest_events`.
    """
    means = np.array([np.mean(values) for values in importance])
    return _whole_histories(sequences, events, np.argsort(-means, kind="stable"))


def _whole_histories(sequences, events, order):
    chosen, left = [], events
    for number in order:
        if left <= 0:
            break
        items = sequences.items[number][: left + sequences.given]
        chosen.append((sequences.users[number], items))
        left -= len(items) - sequences.given
    return type(sequences)(chosen, sequences.length)


def _single_events(sequences, events, importance):
    """The most important events, each user's in their order; of equally important ones the earlier in the data."""
    flat = np.concatenate(importance) if importance else np.zeros(0)
    taken = np.zeros(len(flat), dtype=bool)
    taken[np.argsort(-flat, kind="stable")[:events]] = True
    parts = np.split(taken, np.cumsum([len(items) for items in sequences.items])[:-1])
    kept = [(user, items[part]) for user, items, part in zip(sequences.users, sequences.items, parts) if part.any()]
    return type(sequences)(kept, sequences.length)
