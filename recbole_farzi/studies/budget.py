"""Which size of a study fits a budget: what trials cost here is measured, on few points, before anything is decided.

A probe distils for :data:`PROBE_STEPS` outer steps and takes the time of the steps, of a validation and of what comes
before them. The first, the middle and the last point are probed; the dearest stands for all, so that a size that is said
to fit leaves room rather than runs over. The teacher that the probe needs is that of the first seed: nothing of it is lost.
"""

import re
import time
from typing import NamedTuple

from recbole_farzi.errors import OptionError
from recbole_farzi.interpolation import PARTS_OF_CHAIN

__all__ = ["Costs", "PROBE_STEPS", "choose", "seconds_of", "seconds_of_study", "read_budget"]

PROBE_STEPS = 4
TIMED_STEPS = 8
_PROBED = {"farzi_outer_steps": PROBE_STEPS, "farzi_eval_step": PROBE_STEPS - 1, "farzi_eval_students": 1, "farzi_start_draws": 1, "farzi_start_covering": 0}


class Costs(NamedTuple):
    """Seconds that a trial takes for each of its parts.

    Attributes:
        setup: reading the data, measuring memory.
        start: making a start on given histories.
        window: writing a history.
        step: an outer step.
        validation: training one student and evaluating it.
        pool: a teacher, once for each seed.
    """

    setup: float
    start: float
    window: float
    step: float
    validation: float
    pool: float


def read_budget(text):
    """Seconds of a budget such as ``90s``, ``30m``, ``2h`` or ``1h30m``.

    Raises:
        OptionError: it is not of that form.
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    parts = [float(part) if part else 0.0 for part in match.groups()] if match else [0.0]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1)))
    if seconds <= 0:
        raise OptionError(f"--budget {text!r} must be a time such as 90s, 30m or 1h30m, the number of a size, or tiny")
    return seconds


def probe_options(options):
    """Options of a trial that is probed."""
    return {**options, **_PROBED}


def step_options(options):
    """Options of a trial whose outer steps are timed."""
    return {**options, **_PROBED, "farzi_outer_steps": TIMED_STEPS, "farzi_eval_step": TIMED_STEPS}


def measured(moments, pool_seconds, writing=0.0, written=0, starting=0.0, starts=0):
    """:class:`Costs` from the moments of a probe.

    Args:
        moments: seconds at its beginning, and after its validations at steps 0, PROBE_STEPS - 1 and PROBE_STEPS.
        pool_seconds: that building its pool took.
        writing: seconds that writing histories took.
        written: number of those.
        starting: seconds that making starts took.
        starts: number of those.
    """
    begun, first, second, third = moments
    step = max((second - first) - (third - second), 0.0) / (PROBE_STEPS - 2)
    validation = max(third - second - step, 0.0)
    setup = max(first - begun - validation - writing - starting, 0.0)
    return Costs(setup, starting / max(starts, 1), writing / max(written, 1), step, validation, pool_seconds)


def dearest(costs):
    """The largest of each part."""
    return Costs(*(max(parts) for parts in zip(*costs)))


def seconds_of(costs, options, students):
    """What one trial takes.

    Args:
        costs: :class:`Costs`.
        options: :class:`recbole_farzi.options.Options` of the trial.
        students: students that are trained on test.
    """
    outer, summary = options.outer, options.summary
    draws = 1 if summary.start == "random" else summary.start_draws + summary.start_covering
    mixtures = len(PARTS_OF_CHAIN) if options.pool.chain and summary.start == "teacher" else 0
    validations = 1 + outer.steps // outer.eval_step + (draws if draws > 1 else 0) + mixtures
    histories = outer.written + summary.written + (summary.sequences if mixtures and summary.inputs == "generated" else 0)
    before = costs.setup + (draws + mixtures) * costs.start + histories * costs.window
    return before + outer.steps * costs.step + (validations * outer.eval_students + students) * costs.validation


def seconds_of_study(costs, trials, seeds, jobs):
    """What a study takes: ``trials``, seconds of each, and a teacher for each seed but the first, by ``jobs`` at a time."""
    return (sum(trials) + max(seeds - 1, 0) * costs.pool) / jobs


def choose(sizes, seconds, budget):
    """The first size, they come from the largest, that fits; the last one if none does.

    Args:
        sizes: of the study.
        seconds: function from a size to the seconds that it takes.
        budget: seconds that are left.

    Returns:
        ``(size, seconds, fits)``.
    """
    for size in sizes:
        needed = seconds(size)
        if needed <= budget:
            return size, needed, True
    return sizes[-1], needed, False


class Stopwatch:
    """Moments of a probe: to be called as ``tell``."""

    def __init__(self):
        self.moments = [time.perf_counter()]

    def __call__(self, share):
        self.moments.append(time.perf_counter())
