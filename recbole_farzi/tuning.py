"""How a model trains on some data, chosen on validation: its learning rate, and on a summary the recipe or its own way.

Every candidate is trained with the first seed; the best on validation trains with all of them.
"""

import copy
import logging
from dataclasses import replace
from typing import NamedTuple, Optional

from recbole.utils import set_color

from recbole_farzi.contenders import Contender, ContenderFactory
from recbole_farzi.errors import DivergenceError
from recbole_farzi.experiment import Experiment

__all__ = ["Candidate", "choose", "on_full_data", "on_summary", "tuned_runs"]

RECIPE = "recipe"


class Candidate(NamedTuple):
    """One way of training.

    Attributes:
        learning_rate: of RecBole's optimiser; None: the summary's recipe.
        experiment: :class:`recbole_farzi.experiment.Experiment` that trains, evaluates and stores.
        contender: :class:`recbole_farzi.contenders.Contender`, what it trains.
    """

    learning_rate: Optional[float]
    experiment: Experiment
    contender: Contender

    @property
    def way(self):
        """In a word or two."""
        return RECIPE if self.learning_rate is None else f"{self.learning_rate:g}"


def on_full_data(config, options, split, factory, traits):
    """Candidates on all real events: the rates of ``farzi_student_learning_rates``, or ``learning_rate`` if there are none."""
    rates = options.students.learning_rates or (config["learning_rate"],)
    return [_candidate("full", rate, config, options, split, factory, traits) for rate in rates]


def on_summary(config, options, split, factory, traits, summary, inner):
    """Candidates on a summary: its recipe, and passes over it at the rates of ``farzi_student_learning_rates``.

    Args:
        summary: :class:`recbole_farzi.summary.Summary`, its items in the order of the split's.
        inner: :class:`recbole_farzi.options.InnerOptions`, the recipe.
        config, options, split, factory, traits: as for :class:`recbole_farzi.contenders.ContenderFactory`.
    """
    options = replace(options, inner=inner)
    ways = [("summary", None), *(("summary-passes", rate) for rate in options.students.learning_rates)]
    return [_candidate(kind, rate, config, options, split, factory, traits, summary) for kind, rate in ways]


def _candidate(kind, rate, config, options, split, factory, traits, summary=None):
    options = replace(options, output=replace(options.output, contenders=(kind,)))
    if rate is not None:
        config = copy.copy(config)
        config.final_config_dict = {**config.final_config_dict, "learning_rate": rate}
    makers = ContenderFactory(config, options, split, factory, traits, summary, summary, None, None)
    (contender,) = makers.contenders()
    experiment = Experiment(config, options, split, factory.model_class)
    return Candidate(rate, experiment, replace(contender, validate=True))


def choose(candidates, what):
    """Train each candidate with the first seed; the best on validation.

    Args:
        candidates: list of :class:`Candidate`; one alone is not trained.
        what: model and data in words, for the log.

    Returns:
        ``(candidate, tried)``; ``tried`` has a dict for each candidate, with ``way``, ``learning_rate``, ``valid`` (None:
        its training diverged), ``epochs`` and ``seconds``.

    Raises:
        DivergenceError: none can be trained.
    """
    if len(candidates) == 1:
        return candidates[0], []
    tried = []
    for candidate in candidates:
        plain = {"way": candidate.way, "learning_rate": candidate.learning_rate, "valid": None, "epochs": None, "seconds": 0.0}
        try:
            (run,) = candidate.experiment.runs(candidate.contender, candidate.contender.seeds[:1])
            plain.update(valid=run.valid, epochs=run.epochs, seconds=run.seconds)
        except DivergenceError as error:
            logging.getLogger().warning(f"{what}, {candidate.way}: {error}")
        tried.append(plain)
    sign = 1 if candidates[0].experiment.config["valid_metric_bigger"] else -1
    usable = [number for number, plain in enumerate(tried) if plain["valid"] is not None]
    if not usable:
        raise DivergenceError(f"{what}: training diverges in every way that was tried; give smaller farzi_student_learning_rates")
    best = max(usable, key=lambda number: sign * tried[number]["valid"])
    scores = ", ".join(f"{p['way']} {p['valid']:.4f}" if p["valid"] is not None else f"{p['way']} diverged" for p in tried)
    logging.getLogger().info(set_color("Chosen", "pink") + f": {what}: {candidates[best].way} (on validation {scores})")
    return candidates[best], tried


def tuned_runs(candidates, what):
    """All seeds of the best candidate on validation, and how it was chosen.

    Returns:
        ``(runs, chosen)``: list of :class:`recbole_farzi.results.Run`; and a dict with ``way``, ``learning_rate``, ``tried``
        (see :func:`choose`; empty where there was one candidate) and ``seconds`` of all that was tried.
    """
    best, tried = choose(candidates, what)
    seconds = sum(plain["seconds"] for plain in tried)
    chosen = {"way": best.way, "learning_rate": best.learning_rate, "tried": tried, "seconds": seconds}
    return best.experiment.runs(best.contender), chosen
