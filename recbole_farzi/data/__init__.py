"""Data: loading and splitting through RecBole, the users' histories, checks of files, checksums."""

from recbole_farzi.data.checksums import rows_checksum, training_checksum
from recbole_farzi.data.histories import evaluation_rows, history_field, training_sequences
from recbole_farzi.data.split import Split, load_loaders, load_split

__all__ = [
    "Split",
    "evaluation_rows",
    "history_field",
    "load_loaders",
    "load_split",
    "rows_checksum",
    "training_checksum",
    "training_sequences",
]
