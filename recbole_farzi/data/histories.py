"""The users' training histories as sequences, put together again from RecBole's rows."""

import numpy as np

from recbole_farzi.sentences import Sentences
from recbole_farzi.sequences import Sequences, histories_from_prefixes

__all__ = ["history_field", "training_sequences"]


def training_sequences(dataset):
    """The users' training histories, put together again from RecBole's rows of a train split.

    Args:
        dataset: RecBole's ``SequentialDataset`` after ``build()``.
    """
    fields = (dataset.uid_field, history_field(dataset), dataset.item_list_length_field, dataset.iid_field)
    columns = [dataset.inter_feat[field].numpy() for field in fields]
    order = np.argsort(columns[0], kind="stable")  # a split of all users by time mixes their rows
    histories = histories_from_prefixes(*(column[order] for column in columns))
    kind = Sentences if dataset.config["farzi_positions"] == "every" else Sequences
    return kind(histories, dataset.max_item_list_len)


def history_field(dataset):
    """Name of the column of histories in the rows of a RecBole ``SequentialDataset``."""
    return getattr(dataset, f"{dataset.iid_field}_list_field")


def evaluation_rows(loader):
    """``(histories [r, n], lengths [r], targets [r])`` of a RecBole evaluation loader: item ids, padded with 0 on the right."""
    dataset = loader.dataset
    return tuple(dataset.inter_feat[name] for name in (history_field(dataset), dataset.item_list_length_field, dataset.iid_field))
