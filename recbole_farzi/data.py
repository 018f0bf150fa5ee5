"""Loading through RecBole: its dataset, its split; and the users' training histories as sequences."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from recbole.data import create_dataset, data_preparation
from recbole.utils.enum_type import FeatureType

from recbole_farzi.errors import DataError
from recbole_farzi.sequences import Sequences, histories_from_prefixes
from recbole_farzi.storage import digest

__all__ = ["Split", "load_split", "training_checksum", "training_sequences"]


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
    """
    check_atomic_file(config)
    name = config["dataset"]
    try:
        dataset = create_dataset(config)
        train, valid, test = data_preparation(config, dataset)
    except Exception as error:  # RecBole and pandas raise many types for what is wrong with a file or a filter
        lines = str(error).strip().splitlines() or [""]
        raise DataError(f"RecBole cannot load dataset {name}: {type(error).__name__}: {lines[0]}") from error
    for part, loader in (("train", train), ("validation", valid), ("test", test)):
        if len(loader.dataset) == 0:
            raise DataError(
                f"dataset {name} has no {part} rows after filtering and splitting; leave-one-out needs users with at "
                "least 4 events (see user_inter_num_interval)"
            )
    sequences = training_sequences(train.dataset)
    counts = sequences.counts(train.dataset.item_num)
    return Split(train, valid, test, sequences, counts, training_checksum(train.dataset, sequences))


def training_sequences(dataset):
    """The users' training histories, put together again from RecBole's rows of a train split.

    Args:
        dataset: RecBole's ``SequentialDataset`` after ``build()``.
    """
    rows = dataset.inter_feat
    histories = histories_from_prefixes(
        rows[dataset.uid_field].numpy(),
        rows[dataset.item_id_list_field].numpy(),
        rows[dataset.item_list_length_field].numpy(),
        rows[dataset.iid_field].numpy(),
    )
    return Sequences(histories, dataset.max_item_list_len)


def check_atomic_file(config):
    """Refuse a missing or broken ``.inter`` file in one line that names the line of the file.

    RecBole reads on past missing fields and replaces a missing time by the mean, which silently reorders a history.

    Raises:
        DataError
    """
    name, directory = config["dataset"], Path(config["data_path"])
    if config["benchmark_filename"] is not None:
        return
    path = directory / f"{name}.inter"
    if not directory.exists() and _is_known_to_recbole(config):
        return  # RecBole downloads it
    if not path.is_file():
        raise DataError(
            f"there is no dataset {name}: {path} does not exist; put RecBole's atomic files there, or say where they "
            "are with --data_path=DIRECTORY"
        )
    separator, encoding = config["field_separator"], config["encoding"] or "utf-8"
    needed = {config["USER_ID_FIELD"], config["ITEM_ID_FIELD"], config["TIME_FIELD"]}
    try:
        with open(path, encoding=encoding) as file:
            header = file.readline().rstrip("\r\n").split(separator)
            columns = [field.partition(":")[::2] for field in header]
            types = {t.value for t in FeatureType}
            for field, kind in columns:
                if kind not in types:
                    raise DataError(
                        f"{path}, line 1: column {field!r} has type {kind!r}; write name:type with a type of "
                        + ", ".join(sorted(types))
                    )
            missing = needed - {field for field, _ in columns}
            if missing:
                raise DataError(f"{path} lacks column {', '.join(sorted(missing))}; it has {', '.join(f for f, _ in columns)}")
            positions = [(i, field, kind) for i, (field, kind) in enumerate(columns) if field in needed]
            number = 1
            for number, line in enumerate(file, start=2):
                values = line.rstrip("\r\n").split(separator)
                if len(values) != len(columns):
                    raise DataError(f"{path}, line {number}: {len(values)} fields where the header has {len(columns)}")
                for i, field, kind in positions:
                    _check_value(path, number, field, kind, values[i])
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(f"{path} is not text in encoding {encoding} ({error}); set option encoding") from error
    if number == 1:
        raise DataError(f"{path} holds no events")


def _check_value(path, number, field, kind, value):
    if not value:
        raise DataError(f"{path}, line {number}: {field} is missing")
    if kind == "float":
        try:
            finite = math.isfinite(float(value))
        except ValueError:
            finite = False
        if not finite:
            raise DataError(f"{path}, line {number}: {field} is {value!r}, which is not a number")


def _is_known_to_recbole(config):
    import recbole
    import yaml

    table = Path(recbole.__file__).parent / "properties" / "dataset" / "url.yaml"
    return config["dataset"] in (yaml.safe_load(table.read_text(encoding="utf-8")) or {})


def training_checksum(dataset, sequences):
    """SHA-256 of the users' training histories, by the tokens of users and items."""
    items = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
    users = [str(token) for token in dataset.field2id_token[dataset.uid_field]]
    histories = zip(sequences.users, sequences.items)
    return digest([items, [[users[user], history.tolist()] for user, history in histories]])
