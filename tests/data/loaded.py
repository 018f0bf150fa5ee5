"""What is in a loaded split, in the user's own tokens, and what should be."""

import numpy as np
import pytest

from recbole_farzi.errors import DataError

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
GOOD = "\n".join(f"u{u}\ti{i}\t{i}" for u in range(5) for i in range(8)) + "\n"


def refused(load, *args, **kwargs):
    with pytest.raises(DataError) as caught:
        load(*args, **kwargs)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def by_user(events):
    """Each user's items in the order of time, straight from the events; RecBole sorts times as 32-bit numbers."""
    order = sorted(range(len(events)), key=lambda i: np.float32(events[i][2]))  # stable
    users = {}
    for i in order:
        users.setdefault(events[i][0], []).append(events[i][1])
    return users


def tokens(split, number):
    dataset = split.train.dataset
    items = split.sequences.items[number]
    user = dataset.id2token(dataset.uid_field, split.sequences.users[number])
    return str(user), [str(token) for token in dataset.id2token(dataset.iid_field, items)]


def histories(split):
    found = dict(tokens(split, number) for number in range(len(split.sequences)))
    assert len(found) == len(split.sequences)  # one history a user
    return found


def targets(loader):
    dataset = loader.dataset
    rows = dataset.inter_feat
    users = dataset.id2token(dataset.uid_field, rows[dataset.uid_field].numpy())
    return dict(zip(map(str, users), map(str, dataset.id2token(dataset.iid_field, rows[dataset.iid_field].numpy()))))
