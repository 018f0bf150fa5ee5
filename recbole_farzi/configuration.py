"""From what the user gives (model, dataset, property files, overrides) to a checked RecBole Config.

Everything that can be wrong in it is found here, before any long work, and said in one line.
"""

import ast
import difflib
import functools
import inspect
import os
import re
import sys
from pathlib import Path

import recbole
import yaml
from recbole.config import Config

from recbole_farzi.atomic import NAME
from recbole_farzi.errors import DataError, OptionError
from recbole_farzi.metrics import OWN_METRICS, register_metrics
from recbole_farzi.models import resolve_model
from recbole_farzi.options import option_names

__all__ = ["build_config", "parse_overrides", "properties_directory"]

_READS = re.compile(r"""config\[\s*f?["'](\w+)["']\s*\]|config\.get\(\s*["'](\w+)["']|["'](\w+)["'] (?:not )?in (?:self\.)?config\b""")
_LONGEST_FILE = 2**18  # characters of a property file
_PATHS = ("data_path", "checkpoint_dir", "farzi_output_path", "farzi_report_path")
_RUNTIME = {"model", "dataset", "config_files", "local_rank", "nproc", "world_size", "offset", "ip", "port", "device"}


def properties_directory():
    """The plugin's property files: ``properties/`` of a checkout, or the copy inside an installed package."""
    for candidate in (Path(__file__).parent / "properties", Path(__file__).parent.parent / "properties"):
        if (candidate / "farzi.yaml").is_file():
            return candidate
    raise OptionError("the plugin's property files are missing; install recbole-farzi again")


def parse_overrides(arguments):
    """``--key=value`` arguments, as RecBole's command line has them.

    Args:
        arguments: what is left of ``sys.argv``.

    Returns:
        dict of option to value; values are read as Python literals, ``true``/``false``/``null`` or plain text.

    Raises:
        OptionError: one is not of that form, or an option is given twice with different values.
    """
    overrides = {}
    for argument in arguments:
        key, equals, text = argument[2:].partition("=")
        if not argument.startswith("--") or not equals or not key:
            raise OptionError(f"cannot read argument {argument!r}; options are written --key=value")
        value = _literal(text)
        if overrides.get(key, value) != value:
            raise OptionError(f"option {key} is given twice: {overrides[key]!r} and {value!r}")
        overrides[key] = value
    return overrides


def _literal(text):
    plain = {"true": True, "false": False, "none": None, "null": None, "~": None}
    if text.lower() in plain:
        return plain[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def not_evaluated(value):
    """RecBole passes every text of its config dict to ``eval``: this gives it one that evaluates to the plain value."""
    value = _literal(value) if isinstance(value, str) else value
    return repr(value) if isinstance(value, str) else value


def build_config(model=None, dataset=None, config_files=(), overrides=None, beside=()):
    """RecBole's Config with the plugin's properties beneath the user's.

    Args:
        model: name, ``package.module:Class`` or class; None takes ``model`` of the files or overrides, else SASRec.
        dataset: name; None takes ``dataset`` of the files or overrides, else ml-100k.
        config_files: the user's property files, later ones win.
        overrides: dict of option to value; wins over files.
        beside: other models for which the options are meant, too: what one of them reads is no unknown option.

    Returns:
        ``(config, model_class)``.

    Raises:
        OptionError, ModelError, DataError: with what is wrong and what to do.
    """
    register_metrics()
    overrides = dict(overrides or {})
    files = [Path(file) for file in config_files]
    given = [read_yaml(file) for file in files]
    merged = {key: value for content in given for key, value in content.items()} | overrides
    model = _first_given(model, merged.get("model"), "SASRec")
    dataset = _first_given(dataset, merged.get("dataset"), "ml-100k")
    model_class = resolve_model(model)
    _check_dataset_name(dataset)
    own = properties_directory()
    bases = [cls.__name__ for cls in reversed(model_class.__mro__) if cls is not model_class]  # RecBole's of which it is made
    layers = [Path(recbole.__file__).parent / "properties" / "model" / f"{name}.yaml" for name in bases]
    layers += [own / "farzi.yaml", *(own / "model" / f"{name}.yaml" for name in [*bases, model_class.__name__])]
    layers.append(own / "dataset" / f"{dataset}.yaml")
    layers = [layer for layer in layers if layer.is_file()]
    known = known_options(model_class).union(*(known_options(resolve_model(other)) for other in beside))
    for source, content in [*zip(map(str, files), given), ("the command line", overrides)]:
        check_known(content, known, source)
    for key in ("model", "dataset", "config_files"):
        overrides.pop(key, None)
    overrides = {key: not_evaluated(value) for key, value in overrides.items()}
    argv, sys.argv = sys.argv, sys.argv[:1]  # RecBole's Config reads the command line by itself; ours is parsed
    try:
        config = Config(model_class, dataset, [str(file) for file in [*layers, *files]], overrides)
    except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError, AttributeError) as error:
        raise OptionError(f"RecBole refuses these options: {_first_line(error)}") from error
    finally:
        sys.argv = argv
    expand_home(config)
    if not config["use_gpu"]:
        import torch

        config["device"] = torch.device("cpu")
    metric = config["valid_metric"].lower()
    plain = {"gauc", *(own.__name__.lower() for own in OWN_METRICS)}  # without a cut-off
    results = {m.lower() if m.lower() in plain else f"{m.lower()}@{k}" for m in config["metrics"] for k in config["topk"]}
    if metric not in results:
        raise OptionError(
            f"option valid_metric={config['valid_metric']} is not among what is evaluated: {', '.join(sorted(results))} "
            "(options metrics and topk)"
        )
    return config, model_class


def expand_home(config):
    """Home directories for ``~`` in the paths of a Config, in place: in ``--key=~/value`` and in files nobody else does it."""
    for options in (config.final_config_dict, config.external_config_dict):
        for name in _PATHS:
            if isinstance(options.get(name), str):
                options[name] = os.path.expanduser(options[name])


def _first_given(*values):
    """The first that is not None: an empty text, as from a variable of the shell that is not set, is not the default."""
    return next(value for value in values if value is not None)


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses an option given twice, and aliases: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases (*{self.peek_event().anchor}) are not supported; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), "of other spelling")
            raise yaml.YAMLError(f"option {twice} is given twice")
        return mapping


def read_yaml(path):
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OptionError(f"property file {path} is no plain file, and is read more than once; write one")
        with open(path, encoding="utf-8") as file:
            text = file.read(_LONGEST_FILE + 1)
        if len(text) > _LONGEST_FILE:
            raise OptionError(f"property file {path} is longer than {_LONGEST_FILE:,} characters, as none of options is")
        content = yaml.load(text, Loader=_PlainLoader)
    except OSError as error:
        raise OptionError(f"cannot read property file {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: its encoding, a date, a number too long
        raise OptionError(f"property file {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        raise OptionError(f"property file {path} is empty")
    if not isinstance(content, dict):
        raise OptionError(f"property file {path} must hold lines of 'option: value'")
    return content


def _check_dataset_name(name):
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise DataError(f"dataset name {name!r:.200} must be a plain name; the directory goes into data_path")
    if re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name, re.IGNORECASE):
        raise DataError(f"dataset name {name!r} is that of a device on some systems; choose another")


@functools.lru_cache(maxsize=None)
def _recbole_options():
    """Every option that RecBole's own code reads or its property files set."""
    root = Path(recbole.__file__).parent
    names = set()
    for path in root.rglob("*.py"):
        names |= _options_read(path.read_text(encoding="utf-8"))
    for path in (root / "properties").rglob("*.yaml"):
        if path.stem not in ("url", "kg_url"):  # tables of addresses, not options
            names |= set(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    return frozenset(names)


def _options_read(source):
    return {name for groups in _READS.findall(source) for name in groups if name}


def known_options(model_class):
    """RecBole's options, the plugin's, and those that the source of the model's own module reads."""
    names = set(_recbole_options()) | option_names() | _RUNTIME
    for cls in model_class.__mro__:
        module = inspect.getmodule(cls)
        if module is None or module.__name__.startswith(("torch", "recbole.", "builtins")):
            continue
        try:
            names |= _options_read(inspect.getsource(module))
        except (OSError, TypeError):  # no source at hand (a class made in a session): its options cannot be known
            continue
    return names


def check_known(content, known, source):
    for key in content:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else "; see properties/farzi.yaml and RecBole's documentation"
        raise OptionError(f"unknown option {key} in {source}{hint}")


def _first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
