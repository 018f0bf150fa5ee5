"""Studies from the command line: a tiny version of those that come with the plugin."""

import contextlib
import csv
import json
import os
import shutil
import types

import pytest
import torch

from recbole_farzi.errors import OptionError
from recbole_farzi.options import read_options
from recbole_farzi.run import main
from recbole_farzi.studies import runner, study_names
from recbole_farzi.studies.definition import Search

pytest.importorskip("optuna", reason="studies are an extra")


@pytest.fixture
def arguments(workplace, tiny_dataset, tiny_options):
    def make(study, *more, **overrides):
        kept = {k: v for k, v in tiny_options.items() if k not in ("farzi_latent_dim", "farzi_contenders")}
        options = {**kept, "data_path": tiny_dataset, "farzi_seeds": 1, "epochs": 2, **overrides}
        options = {k: v for k, v in options.items() if k not in _varied(study)}
        return ["--study", study, "-d", "tiny", "--budget", "tiny", *more, *(f"--{k}={v}" for k, v in options.items())]

    return make


def _varied(study):
    from recbole.model.sequential_recommender import SASRec

    from recbole_farzi.studies import load_study

    study = load_study(study, SASRec)
    kept = {"farzi_pool_models", "farzi_pool_snapshots"} & set(study.options)  # experts, which an objective needs
    return {name for point in study.points for name in (*point.options, *point.tune)} | kept


def read(folder, name):
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("study", study_names())
def test_a_tiny_version_of_each_study(arguments, workplace, study):
    assert main(arguments(study)) == 0
    (folder,) = (workplace / "report").glob(f"*-SASRec-{study}")
    results = json.loads((folder / "study.json").read_text())
    assert results["done"] == results["total"] > 0
    trials = read(folder, "trials.csv")
    assert all(row["state"] in ("done", "failed") for row in trials)
    assert all(float(row["valid_crossentropy"]) > 0 for row in trials if row["state"] == "done")
    observed = read(folder, "test.csv")
    assert {row["contender"] for row in observed} >= {"summary", "start", "full data"}
    intervals = [row for row in read(folder, "points.csv") if row["contender"] == "summary"]
    assert intervals and all(float(row["low"]) <= float(row["mean"]) <= float(row["high"]) for row in intervals)
    assert "plotly" in (folder / "figure.html").read_text().lower()
    assert results["title"] in (folder / "study.md").read_text()


# Two points of two candidates, with a search: the least in which anything can go wrong.
SMALL = """
title: Small
question: Does an interruption show?
groups:
  - label: tuned
    tune: {farzi_inner_learning_rate: {low: 0.001, high: 0.1, log: true}}
  - label: fixed
sizes: [{seeds: 2, candidates: 2}]
reference: fixed
"""


@pytest.fixture
def small(workplace, tiny_dataset, tiny_options, monkeypatch):
    """Function that runs a small study in a folder of its own, and gives what must not depend on how it ran."""
    (workplace / "small.yaml").write_text(SMALL)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # a run's bits depend on their number
    options = {k: v for k, v in tiny_options.items() if k != "farzi_contenders"} | {
        "data_path": tiny_dataset, "farzi_seeds": 1, "farzi_outer_steps": 2, "farzi_eval_step": 2, "epochs": 2,
    }  # fmt: skip

    def run(place, *more):
        places = {"checkpoint_dir": workplace / place / "saved", "farzi_report_path": workplace / place / "report"}
        code = main(["--study", "small.yaml", "-d", "tiny", *more, *(f"--{k}={v}" for k, v in {**options, **places}.items())])
        folder = workplace / place / "report" / "tiny-SASRec-small"
        return code, {name: (folder / name).read_text() for name in ("points.csv", "test.csv")}

    return run


@pytest.mark.slow
def test_an_interrupted_study_goes_on_to_the_same_result(small, monkeypatch, capfd):
    _, undisturbed = small("undisturbed")
    real, begun = runner.run_trial, []

    def interrupted(*args):
        begun.append(args[2])
        if len(begun) in (2, 4):
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(runner, "run_trial", interrupted)
    for _ in range(2):
        code, _ = small("interrupted")
        assert code == 130
        said = capfd.readouterr().err
        assert "run_farzi: interrupted" in said and "what is done is in" in said and "Traceback" not in said
    code, found = small("interrupted")
    assert code == 0 and found == undisturbed
    assert len(begun) == (2 + 2) + 2 + 2  # candidates and seeds of two points, and two that were begun twice: none three times


def test_a_probe_that_was_interrupted_is_measured_anew(workplace, tiny_dataset, tiny_options, monkeypatch):
    (workplace / "small.yaml").write_text(SMALL)
    options = {k: v for k, v in tiny_options.items() if k != "farzi_contenders"} | {"data_path": str(tiny_dataset), "epochs": 1}
    planner = runner._Planner("small.yaml", None, "tiny", (), options)
    points, _ = planner._points(planner.study.sizes[0])
    told = runner.budgets.Stopwatch.__call__

    def interrupted(self, share):
        told(self, share)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner.budgets.Stopwatch, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            planner._probe(points[-1])
    costs = planner._probe(points[-1])
    assert min(costs) >= 0 and costs.setup > 0 and costs.pool > 0
    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_trial", lambda *args: pytest.fail("measured again"))
        assert planner._probe(points[-1]) == costs
    (kept,) = (workplace / "saved/studies").glob("*/costs-*.json")
    for content in ("[1, 2]", "{}", '["a", 1, 2, 3]', ""):
        kept.write_text(content)
        assert planner._probe(points[-1]).setup > 0


TIMES = """
title: Times
question: Is a multiple that of the dataset's own value?
tune: {farzi_inner_learning_rate: {times: [0.5, 1, 2]}}
groups: [{label: a}]
sizes: [{}, {candidates: 1}]
"""


def test_multiples_are_those_of_what_the_property_files_say(workplace, tiny_dataset, tiny_options):
    (workplace / "times.yaml").write_text(TIMES)
    (workplace / "own.yaml").write_text("farzi_inner_learning_rate: 0.004\n")
    varied = ("farzi_contenders", "farzi_inner_learning_rate")
    options = {k: v for k, v in tiny_options.items() if k not in varied} | {"data_path": str(tiny_dataset)}
    planner = runner._Planner("times.yaml", None, "tiny", ("own.yaml",), options)
    for size, values in zip(planner.study.sizes, ((0.002, 0.004, 0.008), (0.004,))):
        (point,), _ = planner._points(size)
        assert point.tune["farzi_inner_learning_rate"].values == values
    assert planner.plan("1", None, 1, 0.0, "")["points"][0][-1]["farzi_inner_learning_rate"]["values"] == (0.002, 0.004, 0.008)
    for name, says in (("farzi_inner_optimizer", "and 'adam' is no number"), ("farzi_inner_weight_decay", "which is 0")):
        (workplace / "times.yaml").write_text(TIMES.replace("farzi_inner_learning_rate", name))
        planner = runner._Planner("times.yaml", None, "tiny", ("own.yaml",), options)
        with pytest.raises(OptionError, match=f"{name} is tuned in multiples of its own value, {says}"):
            planner._points(planner.study.sizes[0])


def test_multiples_of_a_whole_number_are_whole():
    values = Search(values=(0.5, 1, 2), times=True).of("farzi_inner_steps", 25).values
    assert values == (12, 25, 50) and all(isinstance(value, int) for value in values)


def test_equal_values_of_a_search_are_one():
    """Else a board waits for as many trials as there are values, of which Optuna makes no two alike."""
    assert Search(values=(0.9, 1, 1.1), times=True).of("farzi_inner_steps", 4).values == (4,)
    assert Search(values=(0.5, 1, 1.1), times=True).of("farzi_inner_steps", 4).values == (2, 4)


def test_a_search_that_names_a_value_twice_comes_to_an_end(small, workplace):
    search = "{farzi_inner_learning_rate: {low: 0.001, high: 0.1, log: true}}"
    (workplace / "small.yaml").write_text(SMALL.replace(search, "{farzi_inner_learning_rate: [0.01, 0.01]}"))
    code, found = small("twice")
    assert code == 0 and found["points.csv"].count("\n") > 1


def test_what_a_teacher_writes_is_part_of_a_trials_time(make_config):
    costs = runner.budgets.measured([0.0, 10.0, 14.0, 17.0], 5.0, writing=4.0, written=8, starting=1.5, starts=2)
    assert costs == runner.budgets.Costs(setup=2.0, start=0.75, window=0.5, step=0.5, validation=2.5, pool=5.0)
    options = read_options(make_config(farzi_outer_steps=3, farzi_outer_batch_size=8, farzi_start_draws=1)[0])
    none = read_options(make_config(farzi_outer_steps=3, farzi_outer_batch_size=8, farzi_start_draws=1, farzi_outer_generated=0.0)[0])
    times = [runner.budgets.seconds_of(costs, given, 0) for given in (options, none)]
    assert options.outer.written == 24 and times[0] - times[1] == 24 * 0.5


def test_each_start_that_competes_is_part_of_a_trials_time(make_config):
    costs = runner.budgets.Costs(setup=2.0, start=0.75, window=0.0, step=0.5, validation=2.5, pool=5.0)
    given = {"farzi_start_covering": 0, "farzi_eval_students": 2}
    few, many = (read_options(make_config(farzi_start_draws=draws, **given)[0]) for draws in (2, 5))
    times = [runner.budgets.seconds_of(costs, options, 0) for options in (few, many)]
    assert times[1] - times[0] == 3 * (0.75 + 2 * 2.5)  # made, and validated with two students
    random = [read_options(make_config(farzi_start="random", farzi_inputs="soft", farzi_start_draws=draws, **given)[0]) for draws in (2, 5)]
    assert len({runner.budgets.seconds_of(costs, options, 0) for options in random}) == 1


def test_each_mixture_that_competes_is_part_of_a_trials_time(make_config):
    costs = runner.budgets.Costs(setup=2.0, start=0.75, window=0.5, step=0.5, validation=2.5, pool=5.0)
    given = {"farzi_eval_students": 2, "farzi_sequences": 4}
    times = {}
    for rest in ({}, {"farzi_inputs": "real"}, {"farzi_start": "random", "farzi_inputs": "soft"}):
        mixed, plain = (read_options(make_config(farzi_pool_chain=chain, **given, **rest)[0]) for chain in (True, False))
        times[str(rest)] = runner.budgets.seconds_of(costs, mixed, 0) - runner.budgets.seconds_of(costs, plain, 0)
    assert list(times.values()) == [4 * (0.75 + 2 * 2.5) + 4 * 0.5, 4 * (0.75 + 2 * 2.5), 0]


def test_the_trainer_tells_how_long_its_starts_took(make_trainer, tiny_split):
    trainer = make_trainer(farzi_start_draws=2, farzi_start_covering=1, farzi_outer_steps=1, farzi_eval_step=1)
    trainer.fit(tiny_split.train, tiny_split.valid, saved=False)
    assert trainer.starts == 3 and trainer.starting_seconds > 0


@pytest.mark.parametrize("hidden, devices", [(None, ["0", "1", "2"]), ("2,3,5", ["2", "3", "5"])])
def test_devices_are_counted_before_recbole_hides_them(workplace, monkeypatch, hidden, devices):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False) if hidden is None else monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    visible = runner.visible_devices()
    assert visible == devices

    def planned(**given):
        options = {"device": torch.device("cuda"), "gpu_id": "0", **given}
        return types.SimpleNamespace(config=options, given=set(given))

    assert runner._devices_of(planned(), visible) == devices
    assert runner._devices_of(planned(gpu_id="1, 3"), visible) == ["1", "3"]
    assert runner._devices_of(planned(device=torch.device("cpu")), visible) == []


def test_devices_are_counted_before_any_config_is_made(arguments, monkeypatch):
    counted, asked = runner._devices_of, []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")))
    monkeypatch.setattr(runner, "_devices_of", lambda planner, visible: asked.append(visible) or counted(planner, visible))
    monkeypatch.setattr(runner, "_start_workers", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with contextlib.suppress(KeyboardInterrupt):
        main(arguments("size", "--jobs", "2"))
    assert asked == [["2", "3"]]


def test_a_process_whose_parent_was_killed_begins_no_other_trial():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_setting_of", lambda plan: None)
        patch.setattr(runner, "_run_again_what_is_lost", lambda *args: None)
        runner._work(None, None, None, None, wanted=lambda: False)


@pytest.mark.slow
def test_two_jobs_divide_the_trials(small):
    _, undisturbed = small("alone", "--jobs", "1")
    code, found = small("two", "--jobs", "2")
    assert code == 0
    assert sorted(found["test.csv"].splitlines()) == sorted(undisturbed["test.csv"].splitlines())


TUNED = """
title: Tuned
question: Is tuning cheaper than what is evaluated, and is nothing done twice?
tune: {farzi_inner_learning_rate: [0.01, 0.02]}
groups:
  - label: rivals
  - label: sole
    tune: {farzi_inner_learning_rate: [0.01]}
    instead: {farzi_window: 2}
sizes:
  - {seeds: 1, tuning: {farzi_outer_steps: 0}, options: {farzi_outer_steps: 2}}
  - {seeds: 1, options: {farzi_outer_steps: 2}}
"""


@pytest.mark.slow
def test_candidates_can_be_cheaper_and_one_without_rivals_is_evaluated_at_once(arguments, workplace, monkeypatch):
    (workplace / "tuned.yaml").write_text(TUNED)
    given = [a for a in arguments("size") if a.partition("=")[0] not in ("--farzi_outer_steps", "--farzi_window")]
    given[given.index("size")] = "tuned.yaml"
    real, begun = runner.run_trial, []

    def counted(setting, options, folder, pools, final, tell):
        begun.append((options["farzi_outer_steps"], final, options["farzi_window"]))
        return real(setting, options, folder, pools, final, tell)

    monkeypatch.setattr(runner, "run_trial", counted)
    for size, asked in (
        ("1", [(0, False, 6), (0, False, 6), (2, True, 6), (0, False, 2), (2, True, 2)]),
        ("2", [(2, False, 6), (2, False, 6), (2, True, 6), (2, True, 2), (2, True, 2)]),
    ):
        begun.clear()
        given[given.index("--budget") + 1] = size
        assert main(given) == 0
        assert begun == asked
        trials = read(workplace / "report" / "tiny-SASRec-tuned", "trials.csv")
        assert len(trials) == 5 and {row["state"] for row in trials} == {"done"}
    assert len(list((workplace / "saved" / "studies" / "pools").glob("pool-*/pool.json"))) == 1


@pytest.mark.slow
def test_what_is_lost_of_a_study_is_run_again_wherever_it_is(small, workplace, monkeypatch, capfd):
    _, undisturbed = small("here")
    (workplace / "here").rename(workplace / "there")  # its plan knew absolute places
    trials = [rows.parent for rows in sorted((workplace / "there/saved/studies").glob("*/trial-*/rows.npz"))]
    assert len(trials) == 4  # two points at two seeds
    shutil.rmtree(trials[0])
    (trials[1] / "outcome.json").write_text("[]")
    (trials[2] / "rows.npz").write_bytes(b"")
    ran, real = [], runner.run_trial

    def counted(*args):
        ran.append(args[2].name)
        return real(*args)

    monkeypatch.setattr(runner, "run_trial", counted)
    code, found = small("there")
    assert code == 0 and found == undisturbed and "Traceback" not in capfd.readouterr().err
    assert set(ran) == {trial.name for trial in trials[:3]}
    assert not (workplace / "here").exists()
    ran.clear()
    assert small("there") == (0, undisturbed) and not ran
