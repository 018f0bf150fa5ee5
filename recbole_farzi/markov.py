"""How often one item follows another: a smoothed first-order Markov chain that reads a whole history."""

import numpy as np
import torch
from scipy import sparse
from torch import nn

__all__ = ["MarkovChain", "transition_counts"]

_AT_ONCE = 2**20  # transitions that are added at a time: 50 MB, and those of one item more


def transition_counts(sequences, vocabulary):
    """How often item b is the next event after item a, of the same user.

    Args:
        sequences: the real histories, :class:`recbole_farzi.sequences.Sequences`.
        vocabulary: V; item 0 is padding.

    Returns:
        ``scipy.sparse.csr_array`` [V, V] of 64-bit floats.
    """
    empty = np.zeros(0, dtype=np.int64)
    before = np.concatenate([empty, *(items[:-1] for items in sequences.items)])
    after = np.concatenate([empty, *(items[1:] for items in sequences.items)])
    return sparse.coo_array((np.ones(len(before)), (before, after)), shape=(vocabulary, vocabulary)).tocsr()


class MarkovChain(nn.Module):
    """The mean of what follows each event of a history, the later an event, the more it weighs.

    With ``n(a, b)`` the transitions from a to b, ``pi`` the items' shares and ``t`` the number of events in a history ``h``::

        p(b | h) = sum over i of w_i p(b | h_i),    w_i proportional to decay^(t - i),
        p(b | a) = (n(a, b) + prior pi_b) / (n(a) + prior)

    The second line is the mean of a posterior under a Dirichlet prior (MacKay and Peto, "A hierarchical Dirichlet language
    model", Natural Language Engineering 1995).

    On CUDA, where sums have no fixed order, the same histories need not give the same bits twice.

    Args:
        transitions: see :func:`transition_counts`.
        shares: of the items in the training data, shape [V], of which that of padding is 0 and the others are more.
        prior: pseudo-events that are spread over the items by ``pi``, above 0.
        decay: from 0 (only the last event counts) to 1 (all events alike).
    """

    def __init__(self, transitions, shares, prior, decay):
        super().__init__()
        self.prior, self.decay = prior, decay
        total = np.asarray(transitions.sum(axis=1)).ravel() + prior
        values = transitions.data / np.repeat(total, np.diff(transitions.indptr))
        self.register_buffer("first", torch.from_numpy(transitions.indptr.astype(np.int64)))
        self.register_buffer("items", torch.from_numpy(transitions.indices.astype(np.int64)))
        self.register_buffer("values", torch.from_numpy(values).float())
        self.register_buffer("smoothed", torch.from_numpy(prior / total).float())
        self.register_buffer("shares", torch.as_tensor(np.asarray(shares)).float())

    def probabilities(self, item_seq):
        """Distributions of the next item after every event.

        Args:
            item_seq: ids, shape [B, n], padded with 0 on the right.

        Returns:
            Shape [B, n, V]; after padding, that after the event before it.
        """
        (rows, length), vocabulary = item_seq.shape, len(self.shares)
        known = item_seq.ne(0).to(self.shares.dtype)
        every = torch.arange(item_seq.numel(), device=item_seq.device)
        found = self._added(item_seq.reshape(-1), known.reshape(-1), every, item_seq.numel()).view(rows, length, vocabulary)
        weight = known.clone()
        for place in range(1, length):
            kept = torch.where(item_seq[:, place] == 0, 1.0, self.decay)
            found[:, place] += kept[:, None] * found[:, place - 1]
            weight[:, place] += kept * weight[:, place - 1]
        return found / weight.clamp_min(torch.finfo(weight.dtype).tiny).unsqueeze(-1)

    def row_probabilities(self, item_seq, lengths):
        """Distributions of the next item after given histories.

        Args:
            item_seq: ids, shape [r, n], padded with 0 on the right.
            lengths: events in each, at least 1, shape [r].

        Returns:
            Shape [r, V].
        """
        age = lengths.unsqueeze(1) - 1 - torch.arange(item_seq.shape[1], device=item_seq.device)
        weights = torch.where(age < 0, 0.0, torch.pow(self.decay, age.clamp_min(0).to(self.shares.dtype)))
        weights = weights / weights.sum(dim=1, keepdim=True)
        rows, places = weights.nonzero(as_tuple=True)
        return self._added(item_seq[rows, places], weights[rows, places], rows, len(item_seq))

    def _added(self, items, weights, rows, count):
        """For each of ``count`` rows the sum of ``weight * p(. | item)`` over what is its, shape [count, V]."""
        prior = self.shares.new_zeros(count).index_add_(0, rows, weights * self.smoothed[items])
        found = prior.unsqueeze(1) * self.shares
        first, sizes = self.first[items], self.first[items + 1] - self.first[items]
        parts = torch.unique_consecutive(sizes.cumsum(0) // _AT_ONCE, return_counts=True)[1].tolist()
        for first, sizes, rows, weights in zip(*(part.split(parts) for part in (first, sizes, rows, weights))):
            within = torch.arange(int(sizes.sum()), device=items.device) - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
            place = torch.repeat_interleave(first, sizes) + within
            cells = torch.repeat_interleave(rows, sizes) * len(self.shares) + self.items[place]
            found.view(-1).index_add_(0, cells, torch.repeat_interleave(weights, sizes) * self.values[place])
        return found
