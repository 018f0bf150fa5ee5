"""Loading through RecBole: its dataset, its split; and the users' training histories as sequences."""

import contextlib
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from recbole.data import create_dataset, data_preparation
from recbole.utils.enum_type import FeatureType

from recbole_farzi.atomic import MISSING_WORDS
from recbole_farzi.errors import DataError, OptionError
from recbole_farzi.sequences import Sequences, histories_from_prefixes
from recbole_farzi.storage import digest

__all__ = ["Split", "history_field", "load_split", "rows_checksum", "training_checksum", "training_sequences"]


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
    check_atomic_file(config)
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
    items = train.dataset.item_num - 1
    if max(config["topk"], default=0) > items:
        raise OptionError(f"option topk={config['topk']} asks for more items than dataset {name} has ({items})")
    sequences = training_sequences(train.dataset)
    counts = sequences.counts(train.dataset.item_num)
    return Split(train, valid, test, sequences, counts, training_checksum(train.dataset, sequences))


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


def training_sequences(dataset):
    """The users' training histories, put together again from RecBole's rows of a train split.

    Args:
        dataset: RecBole's ``SequentialDataset`` after ``build()``.
    """
    fields = (dataset.uid_field, history_field(dataset), dataset.item_list_length_field, dataset.iid_field)
    columns = [dataset.inter_feat[field].numpy() for field in fields]
    order = np.argsort(columns[0], kind="stable")  # a split of all users by time mixes their rows
    histories = histories_from_prefixes(*(column[order] for column in columns))
    return Sequences(histories, dataset.max_item_list_len)


def history_field(dataset):
    """Name of the column of histories in the rows of a RecBole ``SequentialDataset``."""
    return getattr(dataset, f"{dataset.iid_field}_list_field")


def check_atomic_file(config):
    """Refuse a missing or broken ``.inter`` file in one line that names the line of the file.

    RecBole reads on past missing fields, replaces a missing time by the mean, which silently reorders a history, drops
    users and items that pandas takes for missing values, and takes all up to the next quotation mark for one field.

    Raises:
        DataError, OptionError
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
    for option in ("field_separator", "encoding", "USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD"):
        value = config[option]
        if (not isinstance(value, str) or not value) and not (option == "encoding" and value is None):
            raise OptionError(f"option {option}={value!r} must be a text that is not empty")
    separator, encoding = config["field_separator"], config["encoding"] or "utf-8"
    needed = {config["USER_ID_FIELD"]: "token", config["ITEM_ID_FIELD"]: "token", config["TIME_FIELD"]: "float"}
    try:
        with open(path, encoding=encoding) as file:
            header = file.readline().rstrip("\r\n").split(separator)
            columns = [field.partition(":")[::2] for field in header]
            if header[0].startswith("\ufeff"):
                raise DataError(f"{path} begins with a byte order mark; set option encoding to utf-8-sig, or remove it")
            types = {t.value for t in FeatureType}
            for field, kind in columns:
                if kind not in types:
                    raise DataError(
                        f"{path}, line 1: column {field!r} has type {kind!r}; write name:type with a type of "
                        + ", ".join(sorted(types))
                    )
                if kind != needed.get(field, kind):
                    raise DataError(f"{path}, line 1: column {field} has type {kind}; it must be {needed[field]}")
            if len({field for field, _ in columns}) < len(columns):
                raise DataError(f"{path}, line 1: two columns have the same name: {', '.join(f for f, _ in columns)}")
            missing = set(needed) - {field for field, _ in columns}
            if missing:
                raise DataError(f"{path} lacks column {', '.join(sorted(missing))}; it has {', '.join(f for f, _ in columns)}")
            positions = [(i, field, kind) for i, (field, kind) in enumerate(columns) if field in needed]
            events = 0
            for number, line in enumerate(file, start=2):
                if line == "\n":
                    continue  # pandas skips it too
                values = line.rstrip("\r\n").split(separator)
                if len(values) != len(columns):
                    raise DataError(f"{path}, line {number}: {len(values)} fields where the header has {len(columns)}")
                if "\0" in line:
                    raise DataError(f"{path}, line {number} holds a NUL character")
                if '"' in line:
                    values = [_unquoted(path, number, value) for value in values]
                for i, field, kind in positions:
                    _check_value(path, number, field, kind, values[i])
                events += 1
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeError, LookupError) as error:
        raise DataError(f"{path} is not text in encoding {encoding} ({error}); set option encoding") from error
    if not events:
        raise DataError(f"{path} holds no events")


def _unquoted(path, number, value):
    """A field as pandas reads it: quotation marks count where a field begins with one."""
    if not value.startswith('"'):
        return value
    inner = value[1:-1].replace('""', "")
    if len(value) < 2 or not value.endswith('"') or '"' in inner:
        raise DataError(
            f"{path}, line {number}: {value!r} begins with a quotation mark and does not end with one; pandas would read "
            "on into the next fields"
        )
    return value[1:-1].replace('""', '"')


def _check_value(path, number, field, kind, value):
    if not value:
        raise DataError(f"{path}, line {number}: {field} is missing")
    if kind == "token":
        if value in MISSING_WORDS:
            raise DataError(f"{path}, line {number}: {field} is {value!r}, which pandas reads as missing; rename it")
        return
    try:
        finite = math.isfinite(float(value)) and value.isascii() and "_" not in value
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


def rows_checksum(loader):
    """SHA-256 of the rows of a RecBole evaluation loader, by ids; of None it is None."""
    if loader is None:
        return None
    dataset = loader.dataset
    fields = (dataset.uid_field, history_field(dataset), dataset.iid_field)
    return digest([digest(dataset.inter_feat[field]) for field in fields])
