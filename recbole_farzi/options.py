"""The plugin's options, read once from RecBole's Config into small typed objects and checked before any work."""

import importlib.util
import re
import sys
from dataclasses import dataclass, fields, replace
from typing import Optional, Union

from recbole_farzi.errors import OptionError
from recbole_farzi.strata import read_edges
from recbole_farzi.update_rules import RULES

__all__ = [
    "SummaryOptions",
    "InnerOptions",
    "OuterOptions",
    "PoolOptions",
    "OutputOptions",
    "StudentOptions",
    "Options",
    "ReportOptions",
    "is_contender",
    "read_options",
    "read_report_options",
]

STARTS = ("teacher", "spectral", "random")
POSITIONS = ("last", "every")
SOLE_CONTENDERS = ("full", "summary", "summary-passes", "start", "hard", "popularity", "markov", "teacher")
PART_CONTENDERS = ("random", "head", "popular-items", "svp-cf", "svp-cf-users", "teacher-labels")
BITS = (8, 16, 32)
INPUTS = ("generated", "real", "soft")
MOST_WRITTEN = 4096  # windows
_CANDIDATES = 1024
_SINGLES_IN_MEMORY = 64 * 2**20  # bytes of what is predicted after single items
UNROLLS = ("last", "random", "windows")
OBJECTIVES = ("meta", "gradient", "trajectory")
FACTORISATIONS = ("latent", "tucker")
LOSSES = ("CE", "BPR", "NLL")  # which of them a model has, its own constructor says
KERNELS = ("eager", "compiled", "captured")
LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")  # RecBole falls back to Adam on any other
_LATENT_DIMS = (16, 24, 32)  # of which a teacher's start takes the smallest that is enough
_LARGEST = 1_000_000_000  # of any whole number that has no bound of its own
_LARGEST_FLOAT = 1e30  # of any other: PyTorch computes in 32 bits, and an optimiser multiplies and divides by them


@dataclass(frozen=True)
class SummaryOptions:
    """Shape and start of the summary; see ``properties/farzi.yaml``."""

    sequences: int
    length: int
    latent_dim: Optional[int]
    temperature: float
    start: str
    start_draws: int
    start_covering: int
    start_singles: Optional[int]
    own_item: float
    bits: int
    inputs: str
    factorisation: str
    tucker_ranks: Optional[tuple]  # (r1, r2), where the factorisation is Tucker's

    @property
    def latent_dims(self):
        """The rank d that is asked for, or those of which a teacher's start chooses, the larger ones only where there are more events. Ascending."""
        if self.latent_dim is not None:
            return (self.latent_dim,)
        smallest, *larger = _LATENT_DIMS
        if self.start != "teacher":
            return (smallest,)
        return (smallest, *(rank for rank in larger if rank < self.sequences * self.length))

    @property
    def candidates(self):
        """Histories of which the covering draws of the start choose, each of a half."""
        return max(_CANDIDATES, 4 * self.sequences)

    def singles(self, vocabulary):
        """Single items after which the teacher's predictions count for the start, at most, of a vocabulary (with padding)."""
        if self.start != "teacher" or self.latent_dims[-1] >= self.sequences * self.length:  # any ``M`` can then make the events
            return 0
        most = max(1, _SINGLES_IN_MEMORY // (4 * vocabulary)) if self.start_singles is None else self.start_singles
        return min(most, vocabulary - 1)

    @property
    def written(self):
        """Histories that a trained model writes for the start."""
        if self.inputs != "generated":
            return 0
        if self.start == "random":
            return self.sequences
        return self.start_draws * self.sequences + (self.candidates if self.start_covering else 0)


@dataclass(frozen=True)
class InnerOptions:
    """How a student trains on the summary: the recipe that is shipped with it."""

    steps: int
    batch_size: int
    learning_rate: float
    betas: tuple
    eps: float
    weight_decay: float
    dropout: bool
    decay: float
    optimizer: str = "adam"  # recipes of before there was a choice do not say

    def rates(self):
        """The learning rate at each of the T steps: constant at first, then falling linearly, the last one above 0."""
        falling = self.decay * self.steps
        return [
            self.learning_rate * min(1.0, (self.steps - step) / falling) if falling else self.learning_rate
            for step in range(self.steps)
        ]


@dataclass(frozen=True)
class OuterOptions:
    """How the summary itself is optimised."""

    steps: int
    learning_rate: float
    clip_norm: float
    batch_size: int
    objective: str
    teacher: float
    generated: float
    average: float
    unroll: str
    window: int
    window_from: float
    trajectories: int
    pretrained: float
    checkpoint_every: int
    block: Optional[int]
    kernels: str
    eval_step: int
    eval_students: int
    stopping_step: int

    @property
    def generated_windows(self):
        """Windows of a batch that a trained model wrote."""
        return round(self.generated * self.batch_size)

    @property
    def written(self):
        """Windows that a trained model writes for all steps; they come again after that."""
        return 0 if self.objective == "trajectory" else min(MOST_WRITTEN, self.generated_windows * self.steps)


@dataclass(frozen=True)
class PoolOptions:
    """Models trained on the real data before distillation."""

    models: int
    teachers: int
    snapshots: tuple
    chain: bool


@dataclass(frozen=True)
class OutputOptions:
    """What is trained, written and reported after distillation."""

    seeds: int
    contenders: tuple
    full_data: str
    hard_samples: int
    user_strata: Union[int, tuple]
    item_strata: Union[int, tuple]
    report_metrics: tuple
    output_path: Optional[str]
    report_path: str
    fresh: bool


@dataclass(frozen=True)
class StudentOptions:
    """How models find a recipe of their own for a summary; see ``properties/farzi.yaml``."""

    learning_rates: tuple
    steps: int
    eval_step: int


@dataclass(frozen=True)
class Options:
    """All of them."""

    summary: SummaryOptions
    inner: InnerOptions
    outer: OuterOptions
    pool: PoolOptions
    output: OutputOptions
    students: StudentOptions


def read_options(config):
    """Read and check every ``farzi_*`` option of a RecBole Config.

    Raises:
        OptionError: one is missing, of the wrong type, or senseless; the message names it, its value and what it may be.
    """
    read = _Reader(config)
    maximum = read.integer("MAX_ITEM_LIST_LENGTH", at_least=2)
    length = read.integer("farzi_length", at_least=3, optional=True)
    if length is None:
        length = maximum + 1
    elif length > maximum + 1:
        raise OptionError(
            f"farzi_length={length} is longer than the model reads: MAX_ITEM_LIST_LENGTH={maximum} allows at most "
            f"{maximum + 1}"
        )
    summary = SummaryOptions(
        sequences=read.integer("farzi_sequences", at_least=1),
        length=length,
        latent_dim=read.integer("farzi_latent_dim", at_least=1, optional=True),
        temperature=read.number("farzi_temperature", above=0.0),
        start=read.choice("farzi_start", STARTS),
        start_draws=read.integer("farzi_start_draws", at_least=1),
        start_covering=read.integer("farzi_start_covering", at_least=0),
        start_singles=read.integer("farzi_start_singles", at_least=0, optional=True),
        own_item=read.number("farzi_own_item", at_least=0.0),
        bits=read.choice("farzi_bits", BITS),
        inputs=read.choice("farzi_inputs", INPUTS),
        factorisation=read.choice("farzi_factorisation", FACTORISATIONS),
        tucker_ranks=None,
    )
    summary = replace(summary, tucker_ranks=read.tucker_ranks("farzi_tucker_ranks", summary))
    inner = InnerOptions(
        steps=read.integer("farzi_inner_steps", at_least=1),
        batch_size=read.integer("farzi_inner_batch_size", at_least=1),
        learning_rate=read.number("farzi_inner_learning_rate", above=0.0),
        betas=read.betas("farzi_inner_betas"),
        eps=read.number("farzi_inner_eps", above=0.0),
        weight_decay=read.number("farzi_inner_weight_decay", at_least=0.0),
        dropout=read.boolean("farzi_inner_dropout"),
        decay=read.number("farzi_inner_decay", at_least=0.0, at_most=1.0),
        optimizer=read.choice("farzi_inner_optimizer", RULES),
    )
    outer = OuterOptions(
        steps=read.integer("farzi_outer_steps", at_least=0),
        learning_rate=read.number("farzi_outer_learning_rate", above=0.0),
        clip_norm=read.number("farzi_outer_clip_norm", above=0.0),
        batch_size=read.integer("farzi_outer_batch_size", at_least=1, at_most=1_000_000),
        objective=read.choice("farzi_objective", OBJECTIVES),
        teacher=read.number("farzi_outer_teacher", at_least=0.0, at_most=1.0),
        generated=read.number("farzi_outer_generated", at_least=0.0, at_most=1.0),
        average=read.number("farzi_outer_average", at_least=0.0, at_most=0.9999),
        unroll=read.choice("farzi_unroll", UNROLLS),
        window=read.integer("farzi_window", at_least=1),
        window_from=read.number("farzi_window_from", at_least=0.0, at_most=1.0),
        trajectories=read.integer("farzi_trajectories", at_least=1),
        pretrained=read.number("farzi_pretrained", at_least=0.0, at_most=1.0),
        checkpoint_every=read.integer("farzi_checkpoint_every", at_least=-1),
        block=read.integer("farzi_outer_block", at_least=1, optional=True),
        kernels=read.choice("farzi_kernels", KERNELS),
        eval_step=read.integer("farzi_eval_step", at_least=1),
        eval_students=read.integer("farzi_eval_students", at_least=1),
        stopping_step=read.integer("farzi_stopping_step", at_least=1),
    )
    if inner.batch_size > summary.sequences:
        raise OptionError(
            f"farzi_inner_batch_size={inner.batch_size} is more than the summary has sequences "
            f"(farzi_sequences={summary.sequences})"
        )
    if outer.window > inner.steps:
        raise OptionError(
            f"farzi_window={outer.window} is more than the inner loop has steps (farzi_inner_steps={inner.steps})"
        )
    pool = PoolOptions(
        models=read.integer("farzi_pool_models", at_least=1),
        teachers=read.integer("farzi_pool_teachers", at_least=1, optional=True),
        snapshots=read.integers("farzi_pool_snapshots", at_least=0),
        chain=read.boolean("farzi_pool_chain") and read.choice("farzi_positions", POSITIONS) == "last",
    )
    if pool.teachers is None:
        pool = replace(pool, teachers=pool.models)
    elif pool.teachers > pool.models:
        raise OptionError(f"farzi_pool_teachers={pool.teachers} is more than the pool has models (farzi_pool_models={pool.models})")
    if outer.pretrained > 0 and not pool.snapshots:
        raise OptionError("farzi_pretrained > 0 needs partly trained models: give epochs in farzi_pool_snapshots")
    if outer.pretrained > 0 and pool.snapshots[0] > read.integer("epochs", at_least=1):
        raise OptionError(f"farzi_pool_snapshots={list(pool.snapshots)} are all after the last epoch of training (epochs)")
    _check_objective(outer, pool, read)
    if read.choice("farzi_positions", POSITIONS) == "every":
        read.check_that_every_position_can_be_predicted()
    output = OutputOptions(
        seeds=read.integer("farzi_seeds", at_least=1),
        contenders=read.contenders("farzi_contenders"),
        full_data=read.choice("farzi_full_data", ("windows", "prefixes")),
        hard_samples=read.integer("farzi_hard_samples", at_least=0),
        user_strata=read.strata("farzi_user_strata"),
        item_strata=read.strata("farzi_item_strata"),
        report_metrics=read.metrics("farzi_report_metrics"),
        output_path=read.text("farzi_output_path", optional=True),
        report_path=read.text("farzi_report_path"),
        fresh=read.boolean("farzi_fresh"),
    )
    students = StudentOptions(
        learning_rates=read.numbers("farzi_student_learning_rates", above=0.0),
        steps=read.integer("farzi_student_steps", at_least=1),
        eval_step=read.integer("farzi_student_eval_step", at_least=1),
    )
    if students.eval_step > students.steps:
        raise OptionError(
            f"farzi_student_eval_step={students.eval_step} is more than there are steps (farzi_student_steps={students.steps})"
        )
    read.check_recbole_options()
    return Options(summary, inner, outer, pool, output, students)


def _check_objective(outer, pool, read):
    if outer.generated > 0 and outer.generated_windows == 0:
        raise OptionError(
            f"farzi_outer_generated={outer.generated} of farzi_outer_batch_size={outer.batch_size} windows is not one: give more, or 0"
        )
    if outer.objective != "meta" and outer.unroll != "windows":
        raise OptionError(
            f"farzi_unroll={outer.unroll} says which steps of an inner loop are differentiated, for farzi_objective=meta; with "
            f"farzi_objective={outer.objective} leave it at windows"
        )
    if outer.objective != "trajectory":
        return
    if outer.pretrained > 0:
        raise OptionError("farzi_objective=trajectory begins from snapshots of the pool anyway: leave farzi_pretrained at 0")
    if sum(epoch <= read.integer("epochs", at_least=1) for epoch in pool.snapshots) < 2:
        raise OptionError(
            f"farzi_objective=trajectory leads from one snapshot to the next: farzi_pool_snapshots={list(pool.snapshots)} must "
            "have two epochs that training reaches (epochs)"
        )


@dataclass(frozen=True)
class ReportOptions:
    """What a report on models that are there already depends on; see ``properties/farzi.yaml``."""

    user_strata: Union[int, tuple]
    item_strata: Union[int, tuple]
    report_metrics: tuple
    report_path: str


def read_report_options(config):
    """Read and check those ``farzi_*`` options that a report on trained models needs.

    Raises:
        OptionError: as for :func:`read_options`; also where the evaluation does not rank all items.
    """
    read = _Reader(config)
    read.metrics("metrics")
    read.integers("topk", at_least=1)
    read.check_ranks_all()
    return ReportOptions(
        user_strata=read.strata("farzi_user_strata"),
        item_strata=read.strata("farzi_item_strata"),
        report_metrics=read.metrics("farzi_report_metrics"),
        report_path=read.text("farzi_report_path"),
    )


def is_contender(name):
    """Whether ``farzi_contenders`` may hold a name; what they are stands in ``properties/farzi.yaml``."""
    parts = "|".join(PART_CONTENDERS)
    pattern = rf"{'|'.join(SOLE_CONTENDERS)}|hard-\d{{1,4}}|(hard|{parts})-bytes|{parts}"
    return isinstance(name, str) and (is_checkpoint(name) or re.fullmatch(pattern, name) is not None)


def is_checkpoint(name):
    """Whether a contender is the file of a model that RecBole has trained."""
    return len(name) > 4 and name.endswith(".pth") and "\0" not in name


def option_names():
    """Names of all ``farzi_*`` options."""
    prefixes = {SummaryOptions: "", InnerOptions: "inner_", OuterOptions: "outer_", PoolOptions: "pool_", OutputOptions: "",
                StudentOptions: "student_"}  # fmt: skip
    plain = {"objective", "unroll", "window", "window_from", "trajectories", "pretrained", "checkpoint_every", "kernels",
             "eval_step", "eval_students", "stopping_step"}  # fmt: skip
    return {
        "farzi_" + ("" if f.name in plain and group is OuterOptions else prefix) + f.name
        for group, prefix in prefixes.items()
        for f in fields(group)
    } | {"farzi_positions"}


class _Reader:
    def __init__(self, config):
        self.config = config

    def _get(self, name, wanted, optional=False):
        value = self.config[name] if name in self.config else None
        if value is None and not optional:
            raise OptionError(f"option {name} is not set; it must be {wanted}")
        return value

    def number(self, name, above=None, at_least=None, at_most=None):
        wanted = "a number" + _bounds(above, at_least, at_most)
        value = self._get(name, wanted)
        # compared, not math.isfinite: a whole number may be too large to become a float
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
            raise OptionError(f"option {name}={value!r} must be {wanted}")
        _check_bounds(name, value, wanted, above, at_least, at_most)
        if abs(value) > _LARGEST_FLOAT:
            raise OptionError(f"option {name}={value!r} must be a number of at most {_LARGEST_FLOAT:g}")
        return float(value)

    def integer(self, name, at_least=None, at_most=None, optional=False):
        wanted = "a whole number" + _bounds(None, at_least, at_most)
        value = self._get(name, wanted, optional)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise OptionError(f"option {name}={value!r} must be {wanted}")
        _check_bounds(name, value, wanted, None, at_least, at_most)
        if at_most is None and value > _LARGEST:
            raise OptionError(f"option {name}={value!r} must be a whole number of at most {_LARGEST:,}")
        return value

    def integers(self, name, at_least):
        wanted = f"a list of whole numbers of at least {at_least}"
        value = self._get(name, wanted)
        if not isinstance(value, (list, tuple)) or any(
            isinstance(v, bool) or not isinstance(v, int) or v < at_least for v in value
        ):
            raise OptionError(f"option {name}={value!r} must be {wanted}")
        return tuple(sorted(set(value)))

    def tucker_ranks(self, name, summary):
        """``(r1, r2)``; half of the sequences and half of the events where it is not set."""
        value = self.config[name] if name in self.config else None
        if summary.factorisation != "tucker":
            if value is not None:
                raise OptionError(f"{name}={value!r} is for farzi_factorisation=tucker")
            return None
        most = (summary.sequences, summary.length)
        if value is None:
            return tuple(-(-size // 2) for size in most)
        whole = isinstance(value, (list, tuple)) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        if not whole or len(value) != 2 or not all(1 <= v <= size for v, size in zip(value, most)):
            raise OptionError(
                f"option {name}={value!r} must be two whole numbers from 1 to farzi_sequences={most[0]} and to the "
                f"{most[1]} events of a sequence"
            )
        return tuple(value)

    def numbers(self, name, above):
        """Different numbers in ascending order; there may be none."""
        wanted = f"a list of numbers above {above:g} and at most {_LARGEST_FLOAT:g}"
        value = self._get(name, wanted)
        if not isinstance(value, (list, tuple)) or any(
            isinstance(v, bool) or not isinstance(v, (int, float)) or not above < v <= _LARGEST_FLOAT for v in value
        ):
            raise OptionError(f"option {name}={value!r} must be {wanted}")
        return tuple(sorted({float(v) for v in value}))

    def contenders(self, name):
        names = ", ".join((*SOLE_CONTENDERS, "hard-N", *PART_CONTENDERS))
        wanted = f"a list of {names}; hard and the last {len(PART_CONTENDERS)} also with -bytes; or RecBole's checkpoints, FILE.pth"
        value = self._get(name, wanted)
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, (list, tuple)) or not value or not all(is_contender(v) for v in value):
            raise OptionError(f"option {name}={value!r} must be {wanted}")
        return tuple(dict.fromkeys(value))

    def strata(self, name):
        value = self._get(name, "a number of groups, or edges such as [1,5,10,20]")
        if isinstance(value, (str, list, tuple)):
            try:
                return read_edges(value)
            except OptionError as error:
                raise OptionError(f"option {name}: {error}") from error
        return self.integer(name, at_least=1)

    def metrics(self, name):
        """Names of RecBole's metrics that rank all items, as RecBole writes them."""
        from recbole.evaluator.register import metric_types, metrics_dict
        from recbole.utils import EvaluatorType

        known = {key: cls.__name__ for key, cls in metrics_dict.items() if metric_types[key] == EvaluatorType.RANKING}
        wanted = f"a list of {', '.join(sorted(known.values()))}"
        value = self._get(name, wanted)
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) and v.lower() in known for v in value):
            raise OptionError(f"option {name}={value!r} must be {wanted}")
        return tuple(dict.fromkeys(known[v.lower()] for v in value))

    def betas(self, name):
        wanted = "two numbers from 0 to below 1"
        value = self._get(name, wanted)
        if (
            not isinstance(value, (list, tuple))
            or len(value) != 2
            or any(isinstance(v, bool) or not isinstance(v, (int, float)) or not 0 <= v < 1 for v in value)
        ):
            raise OptionError(f"option {name}={value!r} must be {wanted}")
        return tuple(float(v) for v in value)

    def boolean(self, name):
        value = self._get(name, "True or False")
        if not isinstance(value, bool):
            raise OptionError(f"option {name}={value!r} must be True or False")
        return value

    def choice(self, name, choices):
        wanted = "one of " + ", ".join(map(str, choices))
        value = self._get(name, wanted)
        if value not in choices or isinstance(value, (bool, float)):
            raise OptionError(f"option {name}={value!r} must be {wanted}")
        return value

    def text(self, name, optional=False):
        value = self._get(name, "a text", optional)
        if value is not None and (not isinstance(value, str) or not value or "\0" in value):
            raise OptionError(f"option {name}={value!r} must be a text that is not empty")
        return value

    def check_that_every_position_can_be_predicted(self):
        """RecBole's own splits cut histories, and its own rows have one target each."""
        if not self.config["benchmark_filename"]:
            raise OptionError(
                "farzi_positions=every needs a dataset with a split of its own (option benchmark_filename; see "
                "properties/language.yaml): where RecBole splits histories, their training events would be tested on too"
            )
        if self.config["farzi_full_data"] != "windows":
            raise OptionError("farzi_positions=every needs farzi_full_data=windows: RecBole's rows have one target each")
        if self.config["farzi_outer_generated"] > 0.0:
            raise OptionError("farzi_positions=every needs farzi_outer_generated=0: what a model writes runs through the text and is no sentence")

    def check_ranks_all(self):
        mode = self.config["eval_args"]["mode"]
        modes = {mode} if isinstance(mode, str) else set(mode.values())
        if modes != {"full"}:
            raise OptionError(f"eval_args mode {mode} is not supported: the plugin ranks all items (mode: full)")

    def check_recbole_options(self):
        """RecBole's own options that it would not check, or only after long work."""
        self.number("learning_rate", above=0.0)
        self.number("weight_decay", at_least=0.0)
        for name in ("epochs", "train_batch_size", "eval_batch_size", "eval_step"):
            self.integer(name, at_least=1)
        for name in ("stopping_step", "metric_decimal_place"):
            self.integer(name, at_least=0)
        self.integer("seed", at_least=0, at_most=2_000_000_000)  # others are counted up from it, and NumPy takes 32 bits
        self.text("checkpoint_dir")
        self.integers("topk", at_least=1)
        self.metrics("metrics")
        self.boolean("show_progress")
        self.choice("learner", LEARNERS)
        if self.config["clip_grad_norm"] is not None and not isinstance(self.config["clip_grad_norm"], dict):
            raise OptionError(
                f"option clip_grad_norm={self.config['clip_grad_norm']!r} must be a mapping such as {{'max_norm': 5}}"
            )
        if (self.config["nproc"] or 1) != 1:
            raise OptionError(f"option nproc={self.config['nproc']!r} must be 1: the plugin runs in one process")
        if self.config["log_wandb"] and importlib.util.find_spec("wandb") is None:
            raise OptionError("option log_wandb needs the package wandb, which is not installed")
        self.check_ranks_all()
        self.choice("loss_type", LOSSES)


def _bounds(above, at_least, at_most):
    words = []
    if above is not None:
        words.append(f"above {above:g}")
    if at_least is not None:
        words.append(f"of at least {at_least:g}")
    if at_most is not None:
        words.append(f"at most {at_most:g}")
    return (" " + " and ".join(words)) if words else ""


def _check_bounds(name, value, wanted, above, at_least, at_most):
    if (
        (above is not None and not value > above)
        or (at_least is not None and not value >= at_least)
        or (at_most is not None and not value <= at_most)
    ):
        raise OptionError(f"option {name}={value!r} must be {wanted}")
