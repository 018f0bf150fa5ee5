"""The proxy of SVP-CF: which events of a dataset a small matrix factorisation keeps ranking below others.

Selection via proxy for collaborative filtering (Sachdeva, Wu, McAuley: "On Sampling Collaborative Filtering Datasets",
WSDM 2022): while a cheap proxy trains, note for each event how often an item that the user has not met is
scored above the event's item; the mean over the epochs is the event's importance, and the most important are kept. The
proxy, its size and its training are those of the authors' code: factors and biases, pairwise loss (BPR) with one random
negative an event and epoch, Adam. Theirs counts that one negative; here the share of *all* items that the user has not
met is taken at the end of each epoch, which is what their count estimates.
"""

import numpy as np
import torch

__all__ = ["proxy_importance"]

_FACTORS, _DROPOUT, _WEIGHT_DECAY = 10, 0.3, 1e-6
_LEARNING_RATE, _BETAS, _BATCH, _EPOCHS = 0.006, (0.9, 0.98), 1024, 50
_USERS_AT_ONCE = 1024


def proxy_importance(sequences, vocabulary, seed, device="cpu", epochs=_EPOCHS):
    """Importance of each event.

    Args:
        sequences: the real histories, :class:`recbole_farzi.sequences.Sequences`.
        vocabulary: V, with padding.
        seed: of the proxy's weights and its random negatives.
        device: where the proxy trains.
        epochs: of its training.

    Returns:
        List of arrays of the shapes of ``sequences.items``: the mean over epochs of the share, from 0 to 1, of the items
        that the user has not met whose score is above that of the event's item.
    """
    sizes = [len(items) for items in sequences.items]
    generator = torch.Generator().manual_seed(seed)
    users = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    items = torch.from_numpy(np.concatenate(sequences.items))
    met = torch.zeros(len(sizes), vocabulary, dtype=torch.bool)
    met[users, items] = True
    met[:, 0] = True  # padding is nobody's negative

    def normal(*shape):
        scale = (2.0 / sum(shape)) ** 0.5  # Xavier's
        return (scale * torch.randn(*shape, generator=generator)).to(device).requires_grad_()

    of_users, of_items = normal(len(sizes), _FACTORS), normal(vocabulary, _FACTORS)
    bias = torch.zeros(vocabulary, device=device, requires_grad=True)  # a user's bias would cancel in every comparison
    adam = torch.optim.Adam([of_users, of_items, bias], lr=_LEARNING_RATE, betas=_BETAS, weight_decay=_WEIGHT_DECAY)

    def dropped(factors):
        keep = torch.rand(factors.shape, generator=generator).to(device) >= _DROPOUT
        return factors * keep / (1 - _DROPOUT)

    total = torch.zeros(len(items), dtype=torch.float64)
    for _ in range(epochs):
        for rows in torch.randperm(len(items), generator=generator).split(_BATCH):
            negatives = _unmet(met, users[rows], vocabulary, generator).to(device)
            mine, positives = users[rows].to(device), items[rows].to(device)
            user = dropped(of_users[mine])
            above = (user * dropped(of_items[positives])).sum(1) + bias[positives]
            below = (user * dropped(of_items[negatives])).sum(1) + bias[negatives]
            adam.zero_grad()
            (-torch.nn.functional.logsigmoid(above - below).mean()).backward()
            adam.step()
        with torch.no_grad():
            total += _share_above(of_users, of_items, bias, users, items, met)
    return [part.copy() for part in np.split((total / epochs).numpy(), np.cumsum(sizes)[:-1])]


def _unmet(met, users, vocabulary, generator):
    """A random item for each user that the user has not met; after many tries, any."""
    out = torch.randint(1, vocabulary, (len(users),), generator=generator)
    for _ in range(100):
        again = met[users, out].nonzero().squeeze(1)
        if not len(again):
            break
        out[again] = torch.randint(1, vocabulary, (len(again),), generator=generator)
    return out


def _share_above(of_users, of_items, bias, users, items, met):
    """For each event the share of the user's unmet items with a higher score, shape [events]."""
    out, first = [], 0
    for start in range(0, len(met), _USERS_AT_ONCE):
        unmet = ~met[start : start + _USERS_AT_ONCE]
        scores = (of_users[start : start + _USERS_AT_ONCE] @ of_items.T + bias).cpu()
        ranked = torch.sort(scores.masked_fill(~unmet, -torch.inf), dim=1).values
        last = int(torch.searchsorted(users, start + len(unmet)))
        mine, theirs = users[first:last] - start, items[first:last]
        own = torch.nn.utils.rnn.pad_sequence(
            scores[mine, theirs].split(torch.bincount(mine, minlength=len(unmet)).tolist()), batch_first=True
        )
        place = torch.arange(len(mine)) - torch.searchsorted(mine, mine)
        above = ranked.shape[1] - torch.searchsorted(ranked, own, right=True)
        out.append(above[mine, place].double() / unmet.sum(dim=1).clamp(min=1)[mine])
        first = last
    return torch.cat(out)
