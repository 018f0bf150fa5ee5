"""``run_farzi.py --study NAME``: plans a study, runs its trials, and writes its CSV and figure after every one.

What is where, NAME being ``DATASET-MODEL-STUDY``:

``CHECKPOINT_DIR/studies/NAME/``       ``plan.json`` (what was decided), ``study.db`` (Optuna) and a folder a trial
``CHECKPOINT_DIR/studies/pools/``      teachers: what is trained on the real data, once for all trials of all studies that want the same
``REPORT_PATH/NAME/``                  ``trials.csv``, ``test.csv``, ``points.csv``, ``study.md``, ``figure.html``, ``figure.svg``,
                                       ``study.json``

The same command goes on where it was interrupted; run twice at a time, on one machine or on two that share the folder, it
divides the trials. ``--jobs N`` does that with N processes here, each on a device of its own as far as there are enough.
"""

import contextlib
import json
import logging
import multiprocessing
import os
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from recbole.utils import set_color
from tqdm import tqdm

from recbole_farzi.configuration import build_config, read_yaml
from recbole_farzi.data import load_split
from recbole_farzi.errors import DataError, Interrupted, OptionError, StorageError, TakenError
from recbole_farzi.locks import alone_in
from recbole_farzi.options import read_options, read_report_options
from recbole_farzi.provenance import code, environment, settings
from recbole_farzi.storage import check_writable, digest, read_json, remove, remove_tree, write_bytes, write_json, write_text
from recbole_farzi.studies import budget as budgets
from recbole_farzi.studies import figure, generated, results as tables
from recbole_farzi.studies.board import Board, optuna_or_refuse
from recbole_farzi.studies.definition import Point, Search, Size, load_study
from recbole_farzi.studies.quantities import QUANTITIES, Facts, resolve, steps_in_time
from recbole_farzi.studies.trial import OUTCOME, ROWS, Setting, is_whole, read_outcome, run_trial

__all__ = ["run_study", "write_outputs"]

_STAY = 0.9  # share of a budget that is planned for; the rest is for what a probe does not see
_POLL = 2.0  # seconds


class _Places(NamedTuple):
    state: Path
    output: Path

    @property
    def pools(self):
        return self.state.parent / "pools"


def run_study(name, model=None, dataset=None, config_file_list=(), config_dict=None, jobs=1, budget=None, command="", devices=None):
    """Run a study, or go on with it.

    Args:
        name: of a study in ``properties/studies``, or a property file.
        model, dataset, config_file_list, config_dict: as for :func:`recbole_farzi.run.run_farzi`; they hold for all points.
        jobs: processes that run trials at a time.
        budget: a time such as ``"30m"``; the number of one of the study's sizes, counted from ``"1"``, the largest; ``"tiny"`` for
            a moment of every step; or None for the largest.
        command: for the record.
        devices: names of the CUDA devices that ``jobs`` share; None: those that are visible. RecBole's Config hides all but one, so
            that whoever made one before gives them.

    Returns:
        ``(results, folder)``: see :mod:`recbole_farzi.studies.results`.

    Raises:
        FarziError: whatever a user can mend, in one line, before any trial.
    """
    begun = time.perf_counter()
    devices = visible_devices() if devices is None else devices
    optuna_or_refuse()
    if isinstance(jobs, bool) or not isinstance(jobs, int) or not 1 <= jobs <= 256:
        raise OptionError(f"--jobs {jobs!r} must be a whole number from 1 to 256")
    budget = None if budget is None else str(budget)
    seconds = None if budget in (None, "tiny") or budget.isdecimal() else budgets.read_budget(budget)
    threads = max(1, torch.get_num_threads() // jobs)
    torch.set_num_threads(threads)  # of every process: a run's bits depend on it
    planner = _Planner(name, model, dataset, config_file_list, config_dict)
    plan = planner.plan(budget, seconds, jobs, begun, command)
    places = _Places(Path(plan["state"]), Path(plan["output"]))
    deadline = None if seconds is None else begun + seconds
    board = _board(places, plan)
    found = write_outputs(places, plan, board)
    logging.getLogger().info(set_color("Study", "pink") + f": {plan['title']}; {plan['says']}")
    workers = _start_workers(jobs, places, threads, deadline, _devices_of(planner, devices)) if jobs > 1 else []
    bar = tqdm(
        total=found["total"], initial=found["done"], ncols=100, desc=set_color("Study      ", "pink"),
        disable=not planner.config["show_progress"], smoothing=0,
    )  # fmt: skip
    try:
        with bar:
            if workers:
                _watch(workers, places, plan, board, bar)
            else:
                _work(places, plan, board, deadline, bar)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(f"{str(interrupt) or 'in a study'}; what is done is in {places.output}") from interrupt
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            worker.join()
        found = write_outputs(places, plan, board)
    if found["said"]:
        logging.getLogger().warning(found["said"])
    return found, places.output


class _Planner:
    """Reads what a study needs to know before its first trial, and decides."""

    def __init__(self, name, model, dataset, files, overrides):
        self.files = tuple(str(file) for file in files)
        overrides = dict(overrides or {})
        config, self.model_class = build_config(model, dataset, files, overrides)
        self.study = load_study(name, self.model_class)
        for point in self.study.points:
            clash = sorted((set(point.options) | set(point.tune)) & set(overrides))
            if clash:
                raise OptionError(f"option {clash[0]} is what study {self.study.name} varies; leave it out")
        model = model or config["model"]
        self.setting = Setting(
            model if isinstance(model, str) else f"{model.__module__}:{model.__qualname__}", config["dataset"], self.files,
            {**self.study.options, **overrides}, self.study.contenders,
        )  # fmt: skip
        self.overrides = overrides
        self.given = {*overrides, *self.study.options, *(key for file in files for key in read_yaml(Path(file)))}
        self.config, _ = build_config(self.setting.model, self.setting.dataset, files, self.setting.options)
        data = "generated" if any("data" in p.options for p in self.study.points) else config["dataset"]
        name = f"{data}-{self.model_class.__name__}-{self.study.name}"
        self.dataset = data
        self.places = _Places(
            Path(self.config["checkpoint_dir"]) / "studies" / name, Path(read_report_options(self.config).report_path) / name
        )
        for place in self.places:
            check_writable(place)

    def plan(self, budget, seconds, jobs, begun, command):
        """What is to be run, as plain values; also in ``plan.json``. A plan of before that still holds is taken again."""
        size, says = self.study.sizes[0], "all of it"
        if budget == "tiny":
            size, says = self.study.tiny, "tiny: shows every step, answers nothing"
        elif budget is not None and budget.isdecimal():
            size, says = self._size(int(budget)), f"size {budget} of {len(self.study.sizes)}"
        given = self._given(budget)
        old = self._old(given)
        if old is not None:
            return old
        if seconds is not None:
            size, says = self._fitting(seconds, jobs, begun)
        points, impossible = self._points(size)
        if not points:
            raise OptionError(f"no point of study {self.study.name} is possible on {self.dataset}: {next(iter(impossible.values()))}")
        plan = {
            "given": given,
            "study": self.study.name,
            "title": self.study.title,
            "question": self.study.question,
            "dataset": self.dataset,
            "model": self.model_class.__name__,
            "setting": [self.setting.model, self.setting.dataset, list(self.files), {**self.setting.options, **size.options, **self.overrides}, list(self.setting.contenders)],
            "points": [[p.key, p.label, p.series, p.x, dict(p.options), {n: s.__dict__ for n, s in p.tune.items()}] for p in points],
            "impossible": impossible,
            "seeds": size.seeds,
            "candidates": size.candidates,
            "tuning": {k: v for k, v in size.tuning.items() if k not in self.overrides},
            "reference": self.study.reference,
            "x": self.study.x,
            "log": self.study.log,
            "metric": self.study.metric or f"{self.config['metrics'][0]}@{self.config['topk'][0]}".lower(),
            "valid_metric": self.config["valid_metric"].lower(),
            "bigger": bool(self.config["valid_metric_bigger"]),
            "state": str(self.places.state),
            "output": str(self.places.output),
            "says": says,
            "command": command or f"recbole_farzi.studies.run_study({self.study.name!r})",
            "environment": environment(self.config["device"]),
        }  # fmt: skip
        plan["key"] = _key(plan)
        write_json(self.places.state / "plan.json", plan)
        return plan

    def _size(self, number):
        sizes = self.study.sizes
        if not 1 <= number <= len(sizes):
            raise OptionError(f"--budget {number}: study {self.study.name} has sizes 1 to {len(sizes)}; a time has a unit, such as 30m")
        return sizes[number - 1]

    def _given(self, budget):
        """All that a plan depends on, as text."""
        study = [self.study.name, str(self.study.options), [str(p) for p in self.study.points], str(self.study.sizes), str(self.study.tiny)]
        everything = settings(self.config, keep=lambda name: True)
        return digest([study, everything, list(self.study.contenders), budget, code(self.model_class)])

    def _old(self, given):
        try:
            plan = read_json(self.places.state / "plan.json")
            if plan["given"] != given or plan["key"] != _key(plan) or self.config["farzi_fresh"]:
                return None
        except (StorageError, KeyError, TypeError):
            return None
        here = {"state": str(self.places.state), "output": str(self.places.output)}  # a study may have been moved
        if any(plan.get(name) != place for name, place in here.items()):
            plan.update(here)
            write_json(self.places.state / "plan.json", plan)
        return plan

    def _points(self, size):
        """Points of a size with plain options, all checked; and those that are impossible on this data, with the reason."""
        points, impossible = [], {}
        for point in self.study.at(size):
            common = {**size.options, **point.instead, **self.overrides}
            options = {**{k: v for k, v in common.items() if k not in point.options and k not in point.tune}, **point.options}
            options, facts = self._facts(options)
            config, _ = self._config({**self.setting.options, **options})
            options = {**_quantities(self.setting.options), **options}
            point = replace(point, tune={name: search.of(name, config[name]) for name, search in point.tune.items()})
            seconds = options.get("step_seconds")
            try:
                options = resolve(options, lambda name: config[name], facts)
            except DataError as error:
                impossible[point.label] = str(error)
                continue
            if seconds is not None:
                options.update(self._in_time(point, options, seconds))
            for params in _corners(point.tune):
                read_options(self._config({**self.setting.options, **options, **params})[0])
            points.append(replace(point, options=options, instead={}))
        return points, impossible

    def _config(self, options):
        options = {k: v for k, v in options.items() if k not in QUANTITIES}
        if options.get("farzi_latent_dim") == "full":
            options["farzi_latent_dim"] = 1
        dataset = options.pop("dataset", self.setting.dataset)
        return build_config(self.setting.model, dataset, self.files, options)

    def _facts(self, options):
        """Options with their dataset made where it is generated, and what is known of it."""
        options = dict(options)
        if "data" in options:
            options.update(generated.make(options.pop("data"), self.places.state / "data"))
        config, _ = self._config({**self.setting.options, **options})
        key = (config["dataset"], str(config["data_path"]), config["MAX_ITEM_LIST_LENGTH"])
        if not hasattr(self, "_known"):
            self._known = {}
        if key not in self._known:
            split = load_split(config)
            self._known[key] = Facts(split.sequences.events, split.vocabulary, config["MAX_ITEM_LIST_LENGTH"])
        return options, self._known[key]

    def _fitting(self, seconds, jobs, begun):
        """The largest size that fits into a budget, as measured; and what to say about it."""
        points, _ = self._points(self.study.sizes[0])
        probed = [points[number] for number in sorted({0, len(points) // 2, len(points) - 1})] if points else []
        costs = budgets.dearest([self._probe(point) for point in probed])
        spent = time.perf_counter() - begun

        def needed(size):
            trials = []
            for point in self._points(size)[0]:
                options = read_options(self._config({**self.setting.options, **size.options, **point.options, **self.overrides})[0])
                students = options.output.seeds * len(self.study.contenders)
                one = budgets.seconds_of(costs, options, students)
                candidates = len(list(_corners(point.tune, every=True))) if point.tune else 0
                if size.tuning:
                    tuned = {**self.setting.options, **size.options, **point.options, **size.tuning, **self.overrides}
                    cheap = read_options(self._config(tuned)[0])
                    trials += [budgets.seconds_of(costs, cheap, 0)] * candidates + [one] * size.seeds
                else:
                    trials += [one] * (candidates + size.seeds - bool(candidates))
            return budgets.seconds_of_study(costs, trials, size.seeds, jobs)

        room = _STAY * seconds - spent
        size, takes, fits = budgets.choose(self.study.sizes, needed, room)
        says = f"{size.seeds} seed(s), {', '.join(f'{k}={v}' for k, v in size.options.items()) or 'all options as they are'}"
        says += f"; about {takes / 60:.0f} minutes as measured (an outer step takes {costs.step:.2f} s, a validation {costs.validation:.2f} s)"
        if not fits:
            says += f"; that is more than the {room / 60:.0f} minutes that are left: it stops in time, and the same command goes on"
        return size, says

    def _in_time(self, point, options, seconds):
        set_by_time = steps_in_time(seconds, 1.0)
        clash = sorted(set(set_by_time) & {*self.overrides, *point.options, *point.tune})
        if clash:
            raise OptionError(f"option {clash[0]} is set by step_seconds of study {self.study.name}; leave it out, or take --budget tiny")
        return steps_in_time(seconds, self._step_seconds(point, options))

    def _step_seconds(self, point, options):
        """Processor time of an outer step of a point: the mean of a few, the first one's preparations among them."""
        outcome, _ = self._probed(point, budgets.step_options({**options, **next(iter(_corners(point.tune)), {})}))
        return max(outcome["step_seconds"] / max(outcome["outer_steps"], 1), 1e-6)

    def _probed(self, point, options, watch=lambda share: None, afresh=False):
        """Outcome and folder of a trial that only measures; ``afresh`` forgets what an interrupted one has done."""
        given = {name: value for name, value in self.setting.options.items() if name not in QUANTITIES}
        setting = Setting(self.setting.model, self.setting.dataset, self.setting.files, given, self.setting.contenders)
        folder = self.places.state / f"probe-{digest([options, _of(setting)])[:12]}"
        if afresh:
            remove_tree(folder)
        outcome = run_trial(setting, {**options, "farzi_fresh": False}, folder, self.places.pools, False, watch)
        if outcome["error"]:
            raise OptionError(f"a probe of {point.label} fails: {outcome['error']}")
        return outcome, folder

    def _probe(self, point):
        watch = budgets.Stopwatch()
        params = next(iter(_corners(point.tune)), {})
        options = budgets.probe_options({**point.options, **params})
        kept = self.places.state / f"costs-{digest([point.key, options, _of(self.setting)])[:12]}.json"
        with contextlib.suppress(StorageError, TypeError, ValueError):
            return budgets.Costs(*map(float, read_json(kept)))
        outcome, _ = self._probed(point, options, watch, afresh=True)  # what was interrupted says nothing of the time
        moments = watch.moments
        moments[0] += outcome["pool_seconds"]  # the teacher is no part of a trial
        parts = (outcome[key] for key in ("pool_seconds", "writing_seconds", "written", "starting_seconds", "starts"))
        cost = budgets.measured(moments, *parts)
        write_json(kept, list(cost))
        return cost


def _key(plan):
    """What the plan's trials depend on, in a few digits."""
    return digest(json.loads(json.dumps({name: plan[name] for name in ("given", "setting", "points", "tuning")})))[:12]


def _of(setting):
    return [setting.model, setting.dataset, list(setting.files), dict(setting.options)]


def _quantities(options):
    return {name: options[name] for name in QUANTITIES if name in options}


def _corners(tune, every=False):
    """Values of tuned options: all combinations of a grid, or the ends of what is searched."""
    import itertools

    from recbole_farzi.studies.board import SEARCHED

    if every and any(not search.values for search in tune.values()):
        return [{}] * SEARCHED
    axes = [search.values or (search.low, search.high) for search in tune.values()]
    return [dict(zip(tune, values)) for values in itertools.product(*axes)]


def _points_of(plan):
    return [
        Point(key, label, series, x, options, {n: Search(**{**s, "values": tuple(s["values"])}) for n, s in tune.items()})
        for key, label, series, x, options, tune in plan["points"]
    ]


def _setting_of(plan):
    model, dataset, files, options, contenders = plan["setting"]
    options = {name: value for name, value in options.items() if name not in QUANTITIES}
    return Setting(model, dataset, tuple(files), options, tuple(contenders))


def _board(places, plan):
    return Board(places.state / "study.db", plan["key"], _points_of(plan), plan["seeds"], plan["candidates"], plan["bigger"])


def _options_of(plan, point, params, seed, final):
    base = plan["setting"][3].get("seed")
    first = base if isinstance(base, int) else 2020  # RecBole's own default
    tuning = {} if final else plan["tuning"]
    return {**point.options, **params, **tuning, "seed": first + 100_000 * seed, "farzi_fresh": False}


def _folder(places, plan, point, params, seed, final):
    return places.state / f"trial-{digest([plan['given'], plan['setting'], _options_of(plan, point, params, seed, final)])[:16]}"


def _work(places, plan, board, deadline, bar=None, gpu=None, wanted=lambda: True):
    """Run trials until there is none left, or no time for another, or they are not ``wanted``."""
    setting, longest = _setting_of(plan), 0.0
    if gpu is not None:
        setting = Setting(setting.model, setting.dataset, setting.files, {**setting.options, "gpu_id": gpu}, setting.contenders)
    _run_again_what_is_lost(setting, places, plan, board)
    while wanted():
        if deadline is not None and time.perf_counter() + longest > deadline:
            return
        task, held = board.claim(lambda task: alone_in(_folder(places, plan, *_of_task(task))))
        if task is None:
            done, total = board.counts()
            if done >= total:
                return
            time.sleep(_POLL)  # others are at the trials that the rest depends on
            continue
        begun = time.perf_counter()

        def tell(share):
            if bar is not None:
                left = "" if not longest else f", {max(0.0, 1 - share) * longest / 60:.0f} min left of it"
                bar.set_postfix_str(set_color(f"{task.point.label}: {100 * share:.0f}%{left}", "yellow"))

        with held:
            tell(0.0)
            folder, options = _folder(places, plan, *_of_task(task)), _options_of(plan, *_of_task(task))
            outcome = run_trial(setting, options, folder, places.pools, task.final or _is_sole(plan, task), tell)
            board.tell(task, outcome["valid"])
        longest = max(longest, time.perf_counter() - begun)
        if bar is not None:
            _show(bar, write_outputs(places, plan, board))


def _of_task(task):
    return task.point, task.params, task.seed, task.final


def _is_sole(plan, task):
    """Whether a candidate has no rival, so that it is sure to be evaluated on test: then at once."""
    return not plan["tuning"] and all(len(search.values) == 1 for search in task.point.tune.values())


def _run_again_what_is_lost(setting, places, plan, board):
    """Trials that have ended, but of which a file was removed or damaged since."""
    for task in board.ended():
        folder = _folder(places, plan, *_of_task(task))
        if is_whole(folder, task.final):
            continue
        with contextlib.suppress(TakenError), alone_in(folder):
            logging.getLogger().warning(f"{task.point.label}: what is lost of {folder} is computed again")
            remove(folder / OUTCOME)
            run_trial(setting, _options_of(plan, *_of_task(task)), folder, places.pools, task.final)


def _show(bar, found):
    bar.total = found["total"]
    bar.n = found["done"]
    bar.refresh()


def visible_devices():
    """Names of the CUDA devices that this process may use, as the variable ``CUDA_VISIBLE_DEVICES`` has them."""
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def _devices_of(planner, visible):
    """Devices of the processes of ``--jobs``: those of RecBole's option ``gpu_id`` where it is given, or all that are visible."""
    if not visible or planner.config["device"].type != "cuda":
        return []
    if "gpu_id" in planner.given:
        return [name.strip() for name in str(planner.config["gpu_id"]).split(",")]
    return visible


def _start_workers(jobs, places, threads, deadline, devices):
    context = multiprocessing.get_context("spawn")
    left = None if deadline is None else deadline - time.perf_counter()
    workers = [
        context.Process(
            target=_worker, args=(str(places.state), threads, left, devices[number % len(devices)] if devices else None), daemon=True
        )
        for number in range(jobs)
    ]
    for worker in workers:
        worker.start()
    return workers


def _worker(state, threads, left, gpu):
    """A process of ``--jobs``."""
    logging.getLogger().setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    parent, plan = os.getppid(), read_json(Path(state) / "plan.json")
    places = _Places(Path(plan["state"]), Path(plan["output"]))
    try:
        until = None if left is None else time.perf_counter() + left
        _work(places, plan, _board(places, plan), until, gpu=gpu, wanted=lambda: os.getppid() == parent)  # not after it was killed
    except KeyboardInterrupt:
        pass


def _watch(workers, places, plan, board, bar):
    before = None
    while any(worker.is_alive() for worker in workers):
        counts = board.counts()
        if counts != before:
            _show(bar, write_outputs(places, plan, board))
            before = counts
        time.sleep(_POLL)
    broken = [worker.exitcode for worker in workers if worker.exitcode]
    if broken:
        raise StorageError(f"{len(broken)} of {len(workers)} processes of the study ended with an error; the same command goes on")


def write_outputs(places, plan, board):
    """Write CSV, figure and the rest from what is there by now; returns the results."""
    points = []
    for point in _points_of(plan):
        best, trials = board.best(point), []
        candidates = _corners(point.tune) if point.tune and all(s.values for s in point.tune.values()) else board.tried(point)
        for params in candidates if point.tune else []:
            trials.append(_trial(places, plan, point, params, 0, False))
        if best is not None:
            trials += [_trial(places, plan, point, best, seed, True) for seed in range(plan["seeds"])]
        errors = list(dict.fromkeys(trial["error"] for trial in trials if trial.get("error")))
        points.append(
            {
                "label": point.label, "series": point.series, "x": point.x, "options": dict(point.options),
                "tuned": best or {}, "trials": trials, "bigger": plan["bigger"], "estimates": {}, "differences": {},
                "errors": errors if board.failed(point) or (best is not None and errors) else [],
            }
        )  # fmt: skip
    for label, reason in plan["impossible"].items():
        points.append(
            {"label": label, "series": "", "x": label, "options": {}, "tuned": {}, "trials": [], "bigger": plan["bigger"],
             "estimates": {}, "differences": {}, "errors": [reason]}
        )  # fmt: skip
    done, total = board.counts()
    found = {
        **{name: plan[name] for name in (
            "study", "title", "question", "dataset", "model", "command", "environment", "seeds", "reference", "x", "log",
            "metric", "valid_metric", "says",
        )},
        "date": date.today().isoformat(),
        "points": points,
        "done": done,
        "total": total,
        "minutes": sum(t.get("seconds") or 0.0 for p in points for t in p["trials"] if not t["again"]) / 60,
        "said": "" if done >= total else f"{done} of {total} trials are done; the same command goes on",
    }  # fmt: skip
    tables.add_estimates(found, lambda trial: Path(plan["state"]) / trial["folder"] / ROWS)
    found["metrics"] = list(dict.fromkeys(m for p in points for e in p["estimates"].values() for m in e))
    drawn = {**found, "points": [p for p in points if p["trials"]]}
    out = places.output
    write_text(out / "trials.csv", tables.trials_csv(found))
    write_text(out / "test.csv", tables.test_csv(found))
    write_text(out / "points.csv", tables.points_csv(found))
    write_text(out / "study.md", tables.study_markdown(found))
    write_text(out / "figure.html", figure.draw_html(drawn))
    if figure.svg_is_possible():
        write_bytes(out / "figure.svg", figure.draw_svg(drawn))
    write_json(out / "study.json", json.loads(json.dumps(found, default=str)))
    return found


def _trial(places, plan, point, params, seed, final):
    """A trial as plain values: what it is, and its outcome as far as there is one."""
    folder = _folder(places, plan, point, params, seed, final)
    outcome = read_outcome(folder) or {}
    again = final and seed == 0 and bool(point.tune) and not plan["tuning"]  # the candidate that was chosen, evaluated on test
    ended = bool(outcome) and (not final or bool(outcome["error"]) or "test" in outcome)
    state = "failed" if outcome.get("error") else "done" if ended else "open"
    if not final:
        outcome = {name: value for name, value in outcome.items() if name != "test"}
    return {
        "params": params, "seed": seed, "final": final, "folder": folder.name, "again": again, "state": state,
        **(outcome if ended else {}),
    }  # fmt: skip
