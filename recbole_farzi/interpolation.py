"""A trained model and a Markov chain as one teacher: each knows what the other does not.

A model of few parameters smooths over which item follows which other one; counts know it where there are enough of them.
Jelinek and Mercer, "Interpolated estimation of Markov source parameters from sparse data" (1980).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from recbole_farzi.interactions import prefix_rows
from recbole_farzi.markov import MarkovChain, transition_counts

__all__ = ["PARTS_OF_CHAIN", "Interpolated", "Interpolation", "Rows", "interpolate", "likeliest_chain"]

PRIORS = (3.0, 10.0, 30.0, 100.0, 300.0)  # pseudo-events
DECAYS = (0.0, 0.3, 0.5, 0.7, 0.9)
PARTS_OF_CHAIN = (1.0, 0.5, 0.25, 0.0)  # of its likeliest share, that a teacher may hold
LEAST = 0.01  # of the chain's weight: less is not worth its time
_SMALLEST = 1e-30


class Interpolation(NamedTuple):
    """How much of a Markov chain a teacher holds.

    Attributes:
        weight: share of the chain that teaches, from 0 to 1.
        likeliest: share under which the rows that decided are likeliest.
        prior, decay: of the chain, :class:`recbole_farzi.markov.MarkovChain`.
        alone, mixed: cross-entropy of those rows without the chain, and with the likeliest share of it, nats a row.
    """

    weight: float
    likeliest: float
    prior: float
    decay: float
    alone: float
    mixed: float


class Interpolated(nn.Module):
    """What a teacher is asked for, answered by ``(1 - weight) p_model + weight p_chain``.

    Args:
        model: :class:`recbole_farzi.student.Student` or :class:`recbole_farzi.ensemble.Ensemble` that scores all items at once.
        chain: :class:`recbole_farzi.markov.MarkovChain` over the same items.
        weight: of the chain, between 0 and 1.
    """

    def __init__(self, model, chain, weight):
        super().__init__()
        self.model, self.chain, self.weight = model, chain.to(model.device), weight
        self.traits, self.length, self.vocabulary, self.last_only = model.traits, model.length, model.vocabulary, model.last_only

    @property
    def device(self):
        """Where the model is."""
        return self.model.device

    def scores(self, item_seq):
        """Log of the probability of every item after every event; see :meth:`recbole_farzi.student.Student.scores`."""
        return self._mixed(self.model.scores(item_seq), self.chain.probabilities(item_seq))

    def row_scores(self, item_seq, lengths, users=None):
        """The same after given histories; see :meth:`recbole_farzi.student.Student.row_scores`."""
        return self._mixed(self.model.row_scores(item_seq, lengths, users), self.chain.row_probabilities(item_seq, lengths))

    def predictions(self, windows):
        """Distributions of the next event; see :meth:`recbole_farzi.student.Student.predictions`."""
        ids = windows if torch.is_tensor(windows) else windows.items
        with torch.no_grad():
            if self.traits.causal:
                chained = self.chain.probabilities(ids[:, :-1]).flatten(0, 1)
            else:
                prefixes, lengths, _, _ = prefix_rows(ids, self.length, self.last_only)
                chained = self.chain.row_probabilities(prefixes, lengths)
            modelled = self.model.predictions(windows)
            return torch.lerp(modelled, chained[:, 1:].to(modelled.dtype), self.weight)

    def similarities(self, items):
        """The model's; see :meth:`recbole_farzi.student.Student.similarities`."""
        return self.model.similarities(items)

    def _mixed(self, scores, chained):
        """Shape [..., V]: log probabilities, minus infinity for the padding."""
        logs = torch.log_softmax(scores[..., 1 : self.vocabulary], dim=-1) + math.log1p(-self.weight)
        chained = torch.log(chained[..., 1:].to(logs.dtype)) + math.log(self.weight)
        return nn.functional.pad(torch.logaddexp(logs, chained), (1, 0), value=-math.inf)


class Rows(NamedTuple):
    """Histories and what followed, on the CPU, by which a chain is chosen.

    Attributes:
        histories: item ids, shape [r, n], padded with 0 on the right.
        lengths: events in each history, at least 1, shape [r].
        targets: the item that followed, shape [r].
    """

    histories: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor


def likeliest_chain(rows, sequences, shares):
    """The Markov chain under which given rows are likeliest.

    Args:
        rows: :class:`Rows`.
        sequences: the histories whose transitions count, :class:`recbole_farzi.sequences.Sequences`.
        shares: of the items, shape [V].

    Returns:
        :class:`recbole_farzi.markov.MarkovChain`.
    """
    transitions = transition_counts(sequences, len(shares))
    found = min(_candidates(rows, transitions, shares), key=lambda candidate: -np.log(candidate[2]).mean())
    return MarkovChain(transitions, shares, *found[:2])


def interpolate(probabilities, rows, sequences, shares):
    """The weight of a Markov chain beside a model, and the chain, under which given rows are likeliest.

    Args:
        probabilities: of each row's target by the model, shape [r].
        rows, sequences, shares: see :func:`likeliest_chain`.

    Returns:
        ``(Interpolation, MarkovChain)``; both weights are the likeliest; they are 0, and the chain None, where no chain helps.
    """
    modelled = np.maximum(np.asarray(probabilities, dtype=np.float64), _SMALLEST)
    transitions = transition_counts(sequences, len(shares))

    def loss(weight, chained):
        return -np.log((1.0 - weight) * modelled + weight * chained).mean()

    alone = float(loss(0.0, 0.0))
    best = Interpolation(0.0, 0.0, PRIORS[0], DECAYS[0], alone, alone)
    for prior, decay, chained in _candidates(rows, transitions, shares):
        found = minimize_scalar(loss, bounds=(0.0, 1.0 - 1e-6), method="bounded", args=(chained,), options={"xatol": 1e-4})
        if found.fun < best.mixed:
            best = Interpolation(float(found.x), float(found.x), prior, decay, alone, float(found.fun))
    if best.weight < LEAST:
        return best._replace(weight=0.0, likeliest=0.0, mixed=alone), None
    return best, MarkovChain(transitions, shares, best.prior, best.decay)


def _candidates(rows, transitions, shares):
    """``(prior, decay, probabilities of the rows' targets)`` of every chain that may be chosen."""
    histories, lengths, targets = (np.asarray(part) for part in rows)
    known, shares = histories != 0, np.asarray(shares)
    totals = np.asarray(transitions.sum(axis=1)).ravel()[histories]
    pairs = np.zeros(histories.shape)
    pairs[known] = np.asarray(transitions[histories[known], np.broadcast_to(targets[:, None], histories.shape)[known]]).ravel()
    ages = lengths[:, None] - 1 - np.arange(histories.shape[1])
    for decay in DECAYS:
        weights = np.where(ages < 0, 0.0, np.power(decay, np.maximum(ages, 0)))
        weights /= weights.sum(axis=1, keepdims=True)
        for prior in PRIORS:
            yield prior, decay, (weights * (pairs + prior * shares[targets][:, None]) / (totals + prior)).sum(axis=1)
