"""Loading a dataset through RecBole, and its split."""

import contextlib
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from recbole.data import create_dataset, data_preparation

from recbole_farzi.data.checksums import training_checksum
from recbole_farzi.data.histories import training_sequences
from recbole_farzi.data.inter_file import check_inter_file
from recbole_farzi.errors import DataError, OptionError
from recbole_farzi.sequences import Sequences

__all__ = ["Split", "load_loaders", "load_split"]


@dataclass(frozen=True)
class Split:
    """A dataset, split by RecBole.

    Attributes:
        train, valid, test: RecBole's data loaders.
        sequences: the users' training histories, :class:`recbole_farzi.sequences.Sequences`.
        counts: how often each item occurs in them, shape [V].
        checksum: SHA-256 of the training histories with their items' tokens: what is distilled.
    """

    train: Any
    valid: Any
    test: Any
    sequences: Sequences
    counts: np.ndarray
    checksum: str

    @property
    def vocabulary(self):
        """V, the number of items with padding."""
        return len(self.counts)


def load_split(config):
    """Load and split the configured dataset.

    Raises:
        DataError: the files are missing or broken, columns are missing, or nothing is left to train or evaluate on.
        OptionError: longer rankings are asked for than there are items.
    """
    check_inter_file(config)
    train, valid, test = load_loaders(config)
    sequences = training_sequences(train.dataset)
    counts = sequences.counts(train.dataset.item_num)
    return Split(train, valid, test, sequences, counts, training_checksum(train.dataset, sequences))


def load_loaders(config):
    """RecBole's three loaders of any dataset, sequential or not; nothing that RecBole once pickled is read.

    Returns:
        ``(train, valid, test)``.

    Raises:
        DataError, OptionError: as for :func:`load_split`.
    """
    name = config["dataset"]
    try:
        with _without_pickles(config):
            dataset = create_dataset(config)
            if config["benchmark_filename"] is None and not dataset.inter_feat[dataset.uid_field].duplicated().any():
                raise _nothing_left(name, "train")
            train, valid, test = data_preparation(config, dataset)
    except DataError:
        raise
    except Exception as error:  # RecBole and pandas raise many types for what is wrong with a file or a filter
        lines = str(error).strip().splitlines() or [""]
        raise DataError(f"RecBole cannot load dataset {name}: {type(error).__name__}: {lines[0]}") from error
    for part, loader in (("train", train), ("validation", valid), ("test", test)):
        if len(loader.dataset) == 0:
            raise _nothing_left(name, part)
    if config["farzi_positions"] == "every":
        _check_that_users_are_apart(name, train.dataset, {"validation": valid.dataset, "test": test.dataset})
    items = train.dataset.item_num - 1
    if max(config["topk"], default=0) > items:
        raise OptionError(f"option topk={config['topk']} asks for more items than dataset {name} has ({items})")
    return train, valid, test


def _check_that_users_are_apart(name, train, others):
    """Where the events of a history are predicted in evaluation, they must not be trained on."""
    field = train.uid_field
    for part, other in others.items():
        both = np.intersect1d(train.inter_feat[field].numpy(), other.inter_feat[field].numpy())
        if len(both):
            raise DataError(
                f"user {train.field2id_token[field][both[0]]} of dataset {name} is in the training and in the {part} part: with "
                "farzi_positions=every its training events would be tested on too"
            )


@contextlib.contextmanager
def _without_pickles(config):
    """Inside, RecBole finds no dataset or loaders that it once pickled: it reads them unasked, and a pickle can run code."""
    for option in ("dataset_save_path", "dataloaders_save_path"):
        if config[option]:
            raise DataError(f"option {option}: RecBole's saved datasets are pickles, which can run code; they are not read")
    changed = {name: config[name] for name in ("checkpoint_dir", "save_dataset", "save_dataloaders")}
    with tempfile.TemporaryDirectory() as empty:
        try:
            config["checkpoint_dir"], config["save_dataset"], config["save_dataloaders"] = empty, False, False
            yield
        finally:
            for name, value in changed.items():
                config[name] = value


def _nothing_left(name, part):
    return DataError(
        f"dataset {name} has no {part} rows after filtering and splitting; leave-one-out needs users with at least 4 "
        "events (see user_inter_num_interval)"
    )
