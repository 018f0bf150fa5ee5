"""Rows ``history -> next item`` as RecBole's ``Interaction``, with all that its data loaders would add to them.

The ids may be real or virtual (:mod:`recbole_farzi.soft_ids`): only their places matter here.
"""

import contextlib
import random

import numpy as np
import torch
from recbole.data.interaction import Interaction

__all__ = ["RecordedInteraction", "cut_rows", "interaction", "prefix_rows", "replayable", "sequence_rows"]

_CUTS = 4  # rows of random length that a whole sequence adds, where the model's objective is on sequences


def cut_rows(ids, rows, ends, length):
    """The last ``length`` events before given ends.

    Args:
        ids: sequences, shape [B, n].
        rows: which sequence each row is cut from, shape [r].
        ends: number of events before the cut, at least 1, shape [r].
        length: columns of the result: the model's longest input.

    Returns:
        Item ids [r, length], padded with 0 on the right, and lengths [r].
    """
    starts = (ends - length).clamp(min=0)
    places = starts.unsqueeze(1) + torch.arange(length, device=ids.device)
    events = ids[rows.unsqueeze(1), places.clamp(max=ids.shape[1] - 1)]
    return events.masked_fill(places >= ends.unsqueeze(1), 0), ends.clamp(max=length)


def prefix_rows(ids, length, last_only=False):
    """Every event but the first as a target, with the events before it.

    Args:
        ids: sequences, shape [B, n + 1], padded with 0 on the right.
        length: the model's longest input.
        last_only: only each sequence's last event.

    Returns:
        ``(item_seq [r, length], lengths [r], targets [r], rows [r])``, rows being the sequence of each.
    """
    sizes = ids.ne(0).sum(dim=1)
    if last_only:
        rows = torch.arange(len(ids), device=ids.device)[sizes > 1]
        ends = sizes[rows] - 1
    else:
        rows, ends = (ids[:, 1:] != 0).nonzero(as_tuple=True)
        ends = ends + 1
    item_seq, lengths = cut_rows(ids, rows, ends, length)
    return item_seq, lengths, ids[rows, ends], rows


def sequence_rows(ids, length, last_only=False):
    """Whole sequences, and beginnings of them of random length, for models whose objective is on sequences.

    Args:
        ids: sequences, shape [B, n], padded with 0 on the right.
        length: the model's longest input.
        last_only: the whole sequences alone.

    Returns:
        As :func:`prefix_rows`; the targets are the last events, which are in ``item_seq`` too.
    """
    sizes = ids.ne(0).sum(dim=1)
    if last_only:
        rows = torch.arange(len(ids), device=ids.device)
        item_seq, lengths = cut_rows(ids, rows, sizes.clamp(min=1), length)
        return item_seq, lengths, ids[rows, sizes.clamp(min=1) - 1], rows
    shares = torch.rand(_CUTS, len(ids)).to(ids.device)  # on the CPU's generator: the same draws on every device
    ends = torch.cat([sizes.unsqueeze(0), 2 + (shares * (sizes - 1).clamp(min=0)).long()]).clamp(min=1)
    ends = torch.minimum(ends, sizes.clamp(min=1))
    rows = torch.arange(len(ids), device=ids.device).repeat(len(ends))
    ends = ends.reshape(-1)
    item_seq, lengths = cut_rows(ids, rows, ends, length)
    return item_seq, lengths, ids[rows, ends - 1], rows


def interaction(model, item_seq, lengths, users, targets, vocabulary, reads=None, transform=None):
    """RecBole's ``Interaction`` of rows, as its data loader for training would give it.

    Negative items are drawn uniformly from the catalogue. A pointwise model gets each row twice: with its target, labelled
    1, and with a negative item, labelled 0.

    Args:
        model: RecBole's model, for the names of the fields.
        item_seq: shape [r, length].
        lengths: shape [r].
        users: shape [r].
        targets: shape [r].
        vocabulary: V.
        reads: names of the fields that the model reads; what it does not read is left out. None: everything.
        transform: RecBole's transform of batches (``config["transform"]``), or None.
    """

    def read(name):
        return name is not None and (reads is None or name in reads)

    def negatives(*shape):
        return torch.randint(1, vocabulary, shape).to(item_seq.device)

    fields = {
        model.ITEM_SEQ: item_seq.clone(),  # models write into what they are given
        model.ITEM_SEQ_LEN: lengths.clone(),
        model.USER_ID: users.clone(),
        model.POS_ITEM_ID: targets.clone(),
    }
    label, negative_seq = getattr(model, "LABEL_FIELD", None), getattr(model, "NEG_ITEM_SEQ", None)
    if read(label):
        fields = {name: value.repeat(2, *[1] * (value.dim() - 1)) for name, value in fields.items()}
        fields[model.POS_ITEM_ID][len(targets) :] = negatives(len(targets))
        fields[label] = torch.arange(2, device=item_seq.device).flip(0).repeat_interleave(len(targets)).float()
    if read(negative_seq):
        fields[negative_seq] = negatives(*fields[model.ITEM_SEQ].shape) * (fields[model.ITEM_SEQ] != 0)
    if read(model.NEG_ITEM_ID):
        fields[model.NEG_ITEM_ID] = negatives(len(item_seq))
    rows = Interaction(fields)
    return rows if transform is None else transform(_Catalogue(vocabulary), rows)


class _Catalogue:
    """The one thing that RecBole's transforms ask a dataset for."""

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary

    def num(self, field):
        return self.vocabulary


class RecordedInteraction(Interaction):
    """An ``Interaction`` that remembers which of its fields were read.

    Attributes:
        read: names of the fields.
    """

    def __init__(self, rows):
        super().__init__(dict(rows.interaction))
        self.read = set()

    def __getitem__(self, index):
        if isinstance(index, str):
            self.read.add(index)
        return super().__getitem__(index)


@contextlib.contextmanager
def replayable():
    """Inside, Python's and NumPy's random numbers follow from PyTorch's, which a reverse step replays.

    ``random.randint`` has a stream of its own: RecBole draws negative items with it until one is not in the history, and
    how often that takes must not decide which events are masked.
    """
    seed = int(torch.randint(2**31, ()))
    python, numpy, randint = random.getstate(), np.random.get_state(), random.randint
    random.seed(seed)
    np.random.seed(seed)
    random.randint = random.Random(seed).randint
    try:
        yield
    finally:
        random.randint = randint
        random.setstate(python)
        np.random.set_state(numpy)
