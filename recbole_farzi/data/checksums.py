"""Checksums of what is trained and evaluated on."""

from recbole_farzi.data.histories import history_field
from recbole_farzi.storage import digest

__all__ = ["rows_checksum", "training_checksum"]


def training_checksum(dataset, sequences):
    """SHA-256 of the users' training histories, by the tokens of users and items."""
    items = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
    users = [str(token) for token in dataset.field2id_token[dataset.uid_field]]
    histories = zip(sequences.users, sequences.items)
    return digest([items, [[users[user], history.tolist()] for user, history in histories]])


def rows_checksum(loader):
    """SHA-256 of the rows of a RecBole evaluation loader, by ids; of None it is None."""
    if loader is None:
        return None
    dataset = loader.dataset
    fields = (dataset.uid_field, history_field(dataset), dataset.iid_field)
    return digest([digest(dataset.inter_feat[field]) for field in fields])
