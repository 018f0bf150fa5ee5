"""Which trial is next: the state of a study in Optuna's SQLite storage, which several processes or machines may share.

Each point has two Optuna studies: ``KEY/POINT``, the search of its tuned options on validation, and ``KEY/POINT/seeds``, its
best candidate at every distillation seed. A trial is claimed by asking Optuna for it and by a lock of the operating
system's on its folder (:mod:`recbole_farzi.locks`), which goes with its process: what Optuna has as running and nobody
holds was interrupted, and whoever finds it goes on with it.
"""

import contextlib
import functools
import itertools
import math
import sqlite3
from typing import NamedTuple

from recbole_farzi.errors import OptionError, StorageError, TakenError

__all__ = ["Board", "Counts", "Task", "optuna_or_refuse"]

SEARCHED = 8
"""Candidates of an option that is searched for, where the size of the study does not say."""


class Task(NamedTuple):
    """One trial: a point, its tuned options, a distillation seed (counted from 0), and where Optuna has it.

    Attributes:
        final: it is evaluated on test; otherwise it is a candidate, which validation alone decides about.
    """

    point: object
    params: dict
    seed: int
    final: bool
    study: str
    number: int


class Counts(NamedTuple):
    """Trials that are done, and all of them; running ones are counted in neither before they end."""

    done: int
    total: int


def optuna_or_refuse():
    """The module.

    Raises:
        OptionError: it is not installed; in one line, with what to do.
    """
    try:
        import optuna
    except ImportError as error:
        raise OptionError("studies need Optuna, which is not installed: pip install 'recbole-farzi[studies]' (or .[studies])") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _in_one_line(method):
    """What SQLite says of a file that is damaged, locked, removed or on a full disk, as the plugin's own error."""

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return method(self, *args, **kwargs)
        except (SQLAlchemyError, self._optuna.exceptions.OptunaError) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise StorageError(
                f"the study's storage {self._path} fails ({reason}); the same command goes on once it can be used, or without it: "
                "trials that have ended are not run again"
            ) from error

    return call


class Board:
    """The trials of a study.

    Args:
        path: the SQLite file; made if it is not there.
        key: text that changes with everything that trials depend on.
        points: :class:`recbole_farzi.studies.definition.Point` of each.
        seeds: distillation seeds of each point.
        candidates: of each search; None tries all values, or :data:`SEARCHED`.
        bigger: whether more is better on validation.
    """

    def __init__(self, path, key, points, seeds, candidates, bigger):
        self._optuna = optuna_or_refuse()
        self.points, self.seeds, self.key = list(points), seeds, key
        self.searched = candidates or SEARCHED
        self._direction = "maximize" if bigger else "minimize"
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # SQLAlchemy and Optuna read signs such as ? and { in an address as their own: the place is told to SQLite itself.
            connect = functools.partial(sqlite3.connect, path.resolve(), timeout=120, check_same_thread=False)
            self._storage = self._optuna.storages.RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})
            self._studies = {}
            for point in self.points:
                if point.tune:
                    self._open(self._search_name(point), point)
        except Exception as error:  # SQLAlchemy and sqlite3 raise many types for damaged or foreign files
            reason = " ".join(str(error).split())[:200]
            raise StorageError(f"{path} cannot be used as the study's storage ({reason}); remove it to begin anew") from error

    @_in_one_line
    def claim(self, lock):
        """The next trial that nobody works on.

        Args:
            lock: function from a :class:`Task` to a context manager that raises TakenError where another process holds it.

        Returns:
            ``(task, held)``: ``held`` is to be closed when the trial has ended; ``(None, None)`` if there is none now.
        """
        for point in self.points:
            study, final = self._stage(point)
            if study is None:
                continue
            for task in self._open_tasks(study, point, final):
                held = contextlib.ExitStack()
                try:
                    held.enter_context(lock(task))
                except TakenError:
                    continue
                if self._is_open(study, task.number):
                    return task, held
                held.close()
        return None, None

    @_in_one_line
    def tell(self, task, value):
        """A trial has ended with a value on validation; None or a number that is not finite: it failed."""
        state = self._optuna.trial.TrialState
        good = value is not None and math.isfinite(value)
        self._studies[task.study].tell(
            task.number, values=value if good else None, state=state.COMPLETE if good else state.FAIL, skip_if_finished=True
        )

    @_in_one_line
    def best(self, point):
        """Tuned options of the best candidate; ``{}`` where nothing is tuned; None while the search goes on or if all failed."""
        if not point.tune:
            return {}
        study = self._studies[self._search_name(point)]
        trials = study.get_trials(deepcopy=False)
        if sum(trial.state.is_finished() for trial in trials) < self._candidates(point):
            return None
        good = [trial for trial in trials if trial.state.name == "COMPLETE"]
        if not good:
            return None
        sign = -1 if self._direction == "maximize" else 1
        return min(good, key=lambda trial: (sign * trial.value, trial.number)).params

    @_in_one_line
    def tried(self, point):
        """Tuned options of the candidates that were begun, in their order."""
        if not point.tune:
            return []
        trials = self._studies[self._search_name(point)].get_trials(deepcopy=False)
        return [dict(trial.params) for trial in trials if trial.params]

    @_in_one_line
    def failed(self, point):
        """Whether no candidate of a point could be used, so that it has no final trials."""
        if not point.tune:
            return False
        trials = self._studies[self._search_name(point)].get_trials(deepcopy=False)
        return len(trials) >= self._candidates(point) and all(trial.state.name == "FAIL" for trial in trials)

    @_in_one_line
    def ended(self):
        """Every :class:`Task` that has been told."""
        tasks = []
        for point in self.points:
            studies = [(self._studies[self._search_name(point)], False)] if point.tune else []
            if self.best(point) is not None:
                studies.append((self._open(self._seeds_name(point), point, self.best(point)), True))
            for study, final in studies:
                trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
                tasks += [self._task(study, point, final, trial.number, dict(trial.params)) for trial in trials]
        return tasks

    @_in_one_line
    def counts(self):
        """:class:`Counts` of the whole study."""
        done = total = 0
        for point in self.points:
            if point.tune:
                total += self._candidates(point)
                done += self._finished(self._search_name(point))
            if not self.failed(point):
                total += self.seeds
                best = self.best(point)
                if best is not None:  # perhaps another process has opened it
                    self._open(self._seeds_name(point), point, best)
                    done += self._finished(self._seeds_name(point))
        return Counts(done, total)

    def _stage(self, point):
        """The Optuna study in which a point has trials left, and whether it is that of the seeds."""
        if point.tune and self._finished(self._search_name(point)) < self._candidates(point):
            return self._studies[self._search_name(point)], False
        best = self.best(point)
        if best is None:
            return None, False
        name = self._seeds_name(point)
        study = self._open(name, point, best)
        return (study, True) if self._finished(name) < self.seeds else (None, True)

    def _open_tasks(self, study, point, final):
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state.name == "RUNNING":
                yield self._task(study, point, final, trial.number, dict(trial.params))
        waiting = sum(trial.state.name == "WAITING" for trial in trials)
        wanted = 0 if final or self._is_grid(point) else self._candidates(point) - len(trials)
        for _ in range(waiting or min(wanted, 1)):
            # A sampler begins with the same random values in every process: it is seeded by what has been asked for before.
            study.sampler = self._optuna.samplers.TPESampler(seed=len(trials), constant_liar=True)
            trial = study.ask(self._distributions(point, final))
            yield self._task(study, point, final, trial.number, dict(trial.params))

    def _task(self, study, point, final, number, params):
        if final:
            seed = params.pop("seed", 0)
            return Task(point, self.best(point), int(seed), True, study.study_name, number)
        return Task(point, params, 0, False, study.study_name, number)

    def _is_open(self, study, number):
        return not study.get_trials(deepcopy=False)[number].state.is_finished()

    def _finished(self, name):
        return sum(trial.state.is_finished() for trial in self._studies[name].get_trials(deepcopy=False))

    def _open(self, name, point, best=None):
        """An Optuna study, made with its fixed trials waiting in it if it is not there."""
        if name in self._studies:
            return self._studies[name]
        final = best is not None
        study = self._optuna.create_study(
            storage=self._storage, study_name=name, direction=self._direction, load_if_exists=True
        )  # fmt: skip
        if final:
            for seed in range(self.seeds):
                study.enqueue_trial({"seed": seed}, skip_if_exists=True)
        elif self._is_grid(point):
            for values in itertools.product(*(search.values for search in point.tune.values())):
                study.enqueue_trial(dict(zip(point.tune, values)), skip_if_exists=True)
        self._studies[name] = study
        return study

    def _distributions(self, point, final):
        kinds = self._optuna.distributions
        if final:
            return {"seed": kinds.IntDistribution(0, max(self.seeds - 1, 0))}
        return {
            name: kinds.CategoricalDistribution(search.values)
            if search.values
            else kinds.FloatDistribution(search.low, search.high, log=search.log)
            for name, search in point.tune.items()
        }

    def _is_grid(self, point):
        return all(search.values for search in point.tune.values())

    def _candidates(self, point):
        return math.prod(len(search.values) for search in point.tune.values()) if self._is_grid(point) else self.searched

    def _search_name(self, point):
        return f"{self.key}/{point.key}"

    def _seeds_name(self, point):
        return f"{self.key}/{point.key}/seeds"
