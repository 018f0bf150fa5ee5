"""A ``.inter`` file as RecBole and pandas will read it: what is wrong with it is said before they misread it."""

import math
from pathlib import Path

from recbole.utils.enum_type import FeatureType

from recbole_farzi.atomic import MISSING_WORDS
from recbole_farzi.errors import DataError, OptionError

__all__ = ["check_inter_file"]

_LONGEST_LINE = 16 * 2**20  # characters


def check_inter_file(config):
    """Refuse a missing or broken ``.inter`` file in one line that names the line of the file.

    RecBole reads on past missing fields, replaces a missing time by the mean, which silently reorders a history, drops
    users and items that pandas takes for missing values, and takes all up to the next quotation mark for one field.

    Raises:
        DataError, OptionError
    """
    name, directory = config["dataset"], Path(config["data_path"])
    if config["benchmark_filename"] is not None:
        for part in config["benchmark_filename"]:
            _check_benchmark_file(config, directory / f"{name}.{part}.inter")
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
            lines = _lines(path, file)
            header = next(lines, "").rstrip("\r\n").split(separator)
            columns = [field.partition(":")[::2] for field in header]
            if header[0].startswith("\ufeff"):
                raise DataError(f"{path} begins with a byte order mark; set option encoding to utf-8-sig, or remove it")
            types = {t.value for t in FeatureType}
            for field, kind in columns:
                if kind not in types:
                    raise DataError(
                        f"{path}, line 1: column {field!r:.200} has type {kind!r:.200}; write name:type with a type of "
                        + ", ".join(sorted(types))
                    )
                if kind != needed.get(field, kind):
                    raise DataError(f"{path}, line 1: column {field} has type {kind:.200}; it must be {needed[field]}")
            if len({field for field, _ in columns}) < len(columns):
                raise DataError(f"{path}, line 1: two columns have the same name: {', '.join(f for f, _ in columns):.500}")
            missing = set(needed) - {field for field, _ in columns}
            if missing:
                raise DataError(f"{path} lacks column {', '.join(sorted(missing))}; it has {', '.join(f for f, _ in columns):.500}")
            positions = [(i, field, kind) for i, (field, kind) in enumerate(columns) if field in needed]
            events = 0
            for number, line in enumerate(lines, start=2):
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


def _check_benchmark_file(config, path):
    """Refuse a missing or broken file of rows ``user, history, next``, and histories that are too long for the model, which
    RecBole would look up beyond its last position."""
    if not path.is_file():
        raise DataError(
            f"there is no dataset {config['dataset']} with a split of its own: {path} does not exist; put it there, say "
            "where it is with --data_path=DIRECTORY, or make it with python -m recbole_farzi.data.convert"
        )
    separator, encoding = config["field_separator"], config["encoding"] or "utf-8"
    item, maximum = config["ITEM_ID_FIELD"], config["MAX_ITEM_LIST_LENGTH"]
    needed = [config["USER_ID_FIELD"], item + config["LIST_SUFFIX"], item]
    try:
        with open(path, encoding=encoding, newline="\n") as file:
            lines = _lines(path, file)
            columns = [field.partition(":")[0] for field in next(lines, "").rstrip("\r\n").split(separator)]
            missing = set(needed) - set(columns)
            if missing:
                raise DataError(f"{path} lacks column {', '.join(sorted(missing))}; it has {', '.join(columns):.500}")
            place = columns.index(needed[1])
            for number, line in enumerate(lines, start=2):
                values = line.rstrip("\r\n").split(separator)
                if len(values) != len(columns):
                    raise DataError(f"{path}, line {number}: {len(values)} fields where the header has {len(columns)}")
                history = values[place].split(config["seq_separator"])
                if not all(history):
                    raise DataError(f"{path}, line {number}: a history that is empty or holds an empty item")
                if len(history) > maximum:
                    raise DataError(
                        f"{path}, line {number}: a history of {len(history)} events, and the model reads {maximum}; set "
                        f"MAX_ITEM_LIST_LENGTH={len(history)} or more"
                    )
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeError, LookupError) as error:
        raise DataError(f"{path} is not text in encoding {encoding} ({error}); set option encoding") from error


def _lines(path, file):
    """A text file's lines; one that is no line at all is not read to its end."""
    number = 0
    while line := file.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            raise DataError(f"{path}, line {number} is longer than {_LONGEST_LINE:,} characters: is this a text file?")
        yield line


def _unquoted(path, number, value):
    """A field as pandas reads it: quotation marks count where a field begins with one."""
    if not value.startswith('"'):
        return value
    inner = value[1:-1].replace('""', "")
    if len(value) < 2 or not value.endswith('"') or '"' in inner:
        raise DataError(
            f"{path}, line {number}: {value!r:.200} begins with a quotation mark and does not end with one; pandas would read "
            "on into the next fields"
        )
    return value[1:-1].replace('""', '"')


def _check_value(path, number, field, kind, value):
    if not value:
        raise DataError(f"{path}, line {number}: {field} is missing")
    if kind == "token":
        if value in MISSING_WORDS:
            raise DataError(f"{path}, line {number}: {field} is {value!r:.200}, which pandas reads as missing; rename it")
        return
    try:
        finite = math.isfinite(float(value)) and value.isascii() and "_" not in value
    except ValueError:
        finite = False
    if not finite:
        raise DataError(f"{path}, line {number}: {field} is {value!r:.200}, which is not a number")


def _is_known_to_recbole(config):
    import recbole
    import yaml

    table = Path(recbole.__file__).parent / "properties" / "dataset" / "url.yaml"
    return config["dataset"] in (yaml.safe_load(table.read_text(encoding="utf-8")) or {})
