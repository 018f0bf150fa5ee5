"""What a study is: a property file of ``properties/studies/``, read into small typed objects and checked.

A file holds ``title`` and ``question``; ``groups``, from which the points come; and what is the same for all of them. Each
group is one point, or, with ``vary``, the cross product of its values:

==============  ====================================================================================================
``label``       name of the point, or of the group's line in the figure where it varies something
``options``     options of the plugin and of RecBole that the group has
``vary``        option to a list of values
``tune``        option to a list of values, all tried; to ``{times: [...]}``, multiples of the value that the option has
                otherwise, as a dataset's property file may set it; or to ``{low, high, log}``, searched by Optuna's TPE.
                Each point takes the value that is best on validation
``instead``     options that the group has in place of those of a size, as where a point would be too dear; the command
                line wins over them
==============  ====================================================================================================

Beside options, a group may set what depends on the data (:mod:`recbole_farzi.studies.quantities`) and ``data``, a
dataset that is generated (:mod:`recbole_farzi.studies.generated`).
"""

import itertools
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Mapping, Optional

from recbole_farzi.configuration import check_known, known_options, properties_directory, read_yaml
from recbole_farzi.errors import OptionError
from recbole_farzi.studies.quantities import QUANTITIES

__all__ = ["Point", "Search", "Size", "Study", "load_study", "study_names"]

_KEYS = {"title", "question", "options", "tune", "groups", "contenders", "reference", "figure", "sizes", "tiny"}
_OF_GROUP = {"label", "options", "vary", "tune", "instead"}
_OF_SIZE = {"seeds", "candidates", "points", "options", "tuning"}
_OF_FIGURE = {"x", "log", "metric", "categories"}


@dataclass(frozen=True)
class Search:
    """Where the value of a tuned option is looked for: ``values``, or from ``low`` to ``high``.

    ``times``: ``values`` are multiples of the option's own value, which :meth:`of` puts in their place.
    """

    values: tuple = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    times: bool = False

    def of(self, name, own):
        """The search itself, where ``own`` is the value that option ``name`` has otherwise."""
        if not self.times:
            return self
        if isinstance(own, bool) or not isinstance(own, (int, float)):
            raise OptionError(f"{name} is tuned in multiples of its own value, and {own!r} is no number")
        if own == 0:
            raise OptionError(f"{name} is tuned in multiples of its own value, which is 0")
        whole = isinstance(own, int)
        values = (round(own * value) if whole else float(f"{own * value:.4g}") for value in self.values)
        return Search(values=_distinct(values))  # multiples of small whole numbers coincide

    def thinned(self, count):
        """At most ``count`` of the values, evenly spread, the middle one if it is one."""
        if len(self.values) <= count:
            return self
        if count == 1:
            return replace(self, values=(self.values[len(self.values) // 2],))
        step = (len(self.values) - 1) / (count - 1)
        return replace(self, values=tuple(self.values[round(number * step)] for number in range(count)))


def _distinct(values):
    out = []
    for value in values:
        if value not in out:
            out.append(value)
    return tuple(out)


@dataclass(frozen=True)
class Point:
    """One setting that a study looks at.

    Attributes:
        key: short text that files and Optuna know it by.
        label: for people.
        series: the line of the figure that it belongs to.
        x: where it is on the figure's axis: a number, or a text.
        options: what sets it apart.
        tune: option to :class:`Search`.
        instead: options in place of a size's.
    """

    key: str
    label: str
    series: str
    x: Any
    options: Mapping
    tune: Mapping = field(default_factory=dict)
    instead: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Size:
    """How much of a study is run: distillation seeds of each point, candidates of each tuned option, points, options.

    ``tuning``: options that candidates have in place of those, so that tuning can be cheaper than what is then evaluated.
    """

    seeds: int = 1
    candidates: Optional[int] = None
    points: int = 1_000_000
    options: Mapping = field(default_factory=dict)
    tuning: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A study as its file has it.

    Attributes:
        name: of the file.
        title, question: for people.
        options: of all points; the command line wins over them.
        points: tuple of :class:`Point`.
        contenders: what is trained on test for each point, as for ``farzi_contenders``.
        reference: label of the point that the others are compared with, or None.
        x: name of the figure's axis; ``log``: whether it is logarithmic; ``metric``: what the figure shows. (A file may say
            ``categories: true``: points stand in a row by their labels.)
        sizes: tuple of :class:`Size`, from the largest; the first is taken where there is no budget.
        tiny: the :class:`Size` that shows every step in a moment.
    """

    name: str
    title: str
    question: str
    options: Mapping
    points: tuple
    contenders: tuple
    reference: Optional[str]
    x: str
    log: bool
    metric: Optional[str]
    sizes: tuple
    tiny: Size

    def at(self, size):
        """The points of a size, each with as many candidates as it has: points are spread evenly, the reference is kept."""
        count = min(size.points, len(self.points))
        step = (len(self.points) - 1) / (count - 1) if count > 1 else 0
        chosen = {round(number * step) for number in range(count)}
        chosen |= {number for number, point in enumerate(self.points) if point.label == self.reference}
        return [
            Point(
                point.key, point.label, point.series, point.x, point.options,
                {name: search.thinned(size.candidates or len(search.values)) for name, search in point.tune.items()}, point.instead,
            )
            for number, point in enumerate(self.points)
            if number in chosen
        ]  # fmt: skip


def studies_directory():
    return properties_directory() / "studies"


def study_names():
    """Names of the studies that come with the plugin."""
    return sorted(path.stem for path in studies_directory().glob("*.yaml"))


def load_study(name, model_class):
    """Read and check a study.

    Args:
        name: of one that comes with the plugin, or the path of a property file (it ends in .yaml).
        model_class: the student's class; its options are known beside RecBole's and the plugin's.

    Raises:
        OptionError: there is none of that name, or the file is wrong; in one line.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else studies_directory() / f"{name}.yaml"
    if not path.is_file():
        raise OptionError(f"there is no study {name!r}; there are {', '.join(study_names())}, or give a property file of your own")
    content = read_yaml(path)
    reader = _Reader(path.name, known_options(model_class) | set(QUANTITIES) | {"data"})
    return reader.study(path.stem, content)


class _Reader:
    def __init__(self, source, known):
        self.source = source
        self.known = known

    def study(self, name, content):
        self._keys(content, _KEYS, "it")
        for key in ("title", "question", "groups"):
            if not content.get(key):
                raise self._wrong(f"{key} is missing")
        common = self._options(content.get("options"), "options")
        tune = self._tune(content.get("tune"))
        figure = self._mapping(content.get("figure"), "figure")
        self._keys(figure, _OF_FIGURE, "figure")
        if not isinstance(content["groups"], list):
            raise self._wrong("groups must be a list")
        by_name = bool(figure.get("categories", False))
        points = [point for group in content["groups"] for point in self._group(group, tune, by_name)]
        keys = [point.key for point in points]
        if len(set(keys)) < len(keys):
            raise self._wrong(f"two points are the same: {next(key for key in keys if keys.count(key) > 1)}")
        reference = content.get("reference")
        if reference is not None and reference not in {point.label for point in points}:
            raise self._wrong(f"reference {reference!r} is the label of no point")
        sizes = content.get("sizes") or [{}]
        if not isinstance(sizes, list):
            raise self._wrong("sizes must be a list")
        contenders = content.get("contenders", ["summary", "start"])
        if not isinstance(contenders, list) or "summary" not in contenders:
            raise self._wrong("contenders must be a list with summary in it")
        return Study(
            name, str(content["title"]), " ".join(str(content["question"]).split()), common, tuple(points), tuple(contenders),
            reference, str(figure.get("x", "")), bool(figure.get("log", False)), figure.get("metric"),
            tuple(self._size(size) for size in sizes), self._size(content.get("tiny", {})),
        )  # fmt: skip

    def _group(self, group, tune, by_name):
        group = self._mapping(group, "a group")
        self._keys(group, _OF_GROUP, "a group")
        options = self._options(group.get("options"), "options of a group")
        vary = self._options(group.get("vary"), "vary")
        tune = self._tune(group["tune"]) if "tune" in group else tune
        instead = self._options(group.get("instead"), "instead")
        for option, values in vary.items():
            if not isinstance(values, list) or not values:
                raise self._wrong(f"vary: {option} must be a list of values")
        if not vary and "label" not in group:
            raise self._wrong("a group that varies nothing needs a label")
        series = str(group.get("label", ""))
        for values in itertools.product(*vary.values()):
            varied = dict(zip(vary, values))
            says = ", ".join(f"{_short(option)} {_value(value)}".strip() for option, value in varied.items())
            label = ", ".join(part for part in (series, says) if part)
            x = label if by_name else values[0] if len(values) == 1 else says or label
            for option in tune:
                if option in varied or option in options:
                    raise self._wrong(f"{option} is tuned and set by the same point {label}")
            yield Point(_slug(label), label, series if vary and not by_name else "", x, {**options, **varied}, tune, instead)

    def _tune(self, given):
        out = {}
        for option, where in self._options(given, "tune").items():
            if isinstance(where, list) and where:
                out[option] = Search(values=_distinct(where))
                continue
            if isinstance(where, dict) and "times" in where:
                values = where["times"]
                numbers = isinstance(values, list) and all(isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0 for v in values)
                if not numbers or not values or set(where) != {"times"}:
                    raise self._wrong(f"tune: {option}: times must be a list of numbers above 0, and stand alone")
                out[option] = Search(values=tuple(values), times=True)
                continue
            low, high = (where.get("low"), where.get("high")) if isinstance(where, dict) else (None, None)
            if not all(isinstance(end, (int, float)) for end in (low, high)) or not low < high or set(where) - {"low", "high", "log"}:
                raise self._wrong(f"tune: {option} must be a list of values, times, or low and high (and log)")
            if where.get("log") and low <= 0:
                raise self._wrong(f"tune: {option} is logarithmic, so that low must be above 0")
            out[option] = Search(low=float(low), high=float(high), log=bool(where.get("log", False)))
        return out

    def _size(self, given):
        given = self._mapping(given, "a size")
        self._keys(given, _OF_SIZE, "a size")
        for key in ("seeds", "candidates", "points"):
            if key in given and (isinstance(given[key], bool) or not isinstance(given[key], int) or given[key] < 1):
                raise self._wrong(f"{key} of a size must be a whole number of at least 1")
        parts = {name: self._options(given.get(name), f"{name} of a size") for name in ("options", "tuning")}
        return Size(**{**given, **parts})

    def _options(self, given, what):
        given = self._mapping(given, what)
        check_known(given, self.known, f"study {self.source}, {what}")
        return given

    def _mapping(self, given, what):
        if given is None:
            return {}
        if not isinstance(given, dict):
            raise self._wrong(f"{what} must be a mapping")
        return given

    def _keys(self, given, known, what):
        unknown = sorted(str(key) for key in set(given) - known)
        if unknown:
            raise self._wrong(f"{what} has an unknown key {unknown[0]}; known are {', '.join(sorted(known))}")

    def _wrong(self, message):
        return OptionError(f"study {self.source}: {message}")


def _short(option):
    return "" if option == "data" else option.removeprefix("farzi_").removeprefix("inner_").replace("_", " ")


def _value(value):
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_value(part)}" for key, part in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _slug(label):
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-")
