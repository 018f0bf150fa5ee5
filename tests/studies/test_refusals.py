"""A study that cannot be run is refused in one line, before any trial."""

import builtins

import pytest

from recbole_farzi.run import main

pytest.importorskip("optuna", reason="studies are an extra")


@pytest.fixture
def fails(workplace, tiny_dataset, capfd):
    def run(*arguments):
        assert main([*arguments, "-d", "tiny", f"--data_path={tiny_dataset}", "--MAX_ITEM_LIST_LENGTH=10"]) == 1
        out, err = capfd.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("run_farzi: "), err
        assert not list(workplace.glob("saved/studies/*/trial-*"))
        return err[len("run_farzi: ") : -1]

    return run


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["--study", "nosuch"], "there is no study 'nosuch'; there are failure, inner-optimizer, latent-dim, objective, size, unroll"),
        (["--study", "size", "--jobs", "0"], "--jobs 0 must be a whole number from 1 to 256"),
        (["--study", "size", "--jobs", "many"], "--jobs 'many' must be a whole number"),
        (["--study", "size", "--budget", "soon"], "--budget 'soon' must be a time such as 90s, 30m or 1h30m, the number of a size, or tiny"),
        (["--study", "size", "--budget", "9"], "--budget 9: study size has sizes 1 to 7; a time has a unit, such as 30m"),
        (["--study", "inner-optimizer", "--farzi_inner_optimizer=sgd"], "option farzi_inner_optimizer is what study "),
        (["--study", "size", "--cold_start", "x.pth"], "give one of --cold_start, --study"),
        (
            ["--study", "objective", "--use_gpu=False", "--topk=[5]", "--farzi_outer_steps=3"],
            "option farzi_outer_steps is set by step_seconds of study objective; leave it out, or take --budget tiny",
        ),
        (["--jobs", "2"], "--jobs and --budget belong to --study"),
        (["--study", "size", "-m", "SASRec", "GRU4Rec"], "a study takes one model"),
    ],
)
def test_arguments_that_make_no_sense(fails, arguments, line):
    assert line in fails(*arguments)


@pytest.mark.parametrize(
    "text, line",
    [
        ("title: T\nquestion: Q\n", "study mine.yaml: groups is missing"),
        ("title: T\nquestion: Q\ngroups: [{label: a, colour: red}]\n", "study mine.yaml: a group has an unknown key colour"),
        ("title: T\nquestion: Q\ngroups: [{label: a, options: {farzi_windw: 2}}]\n", "did you mean farzi_window?"),
        ("title: T\nquestion: Q\ngroups: [{label: a}, {label: a}]\n", "study mine.yaml: two points are the same: a"),
        ("title: T\nquestion: Q\ngroups: [{label: a, tune: {seed: {low: 2, high: 1}}}]\n", "tune: seed must be a list"),
        ("title: T\nquestion: Q\ngroups: [{label: a, tune: {seed: {times: [0]}}}]\n", "tune: seed: times must be a list of numbers"),
        ("title: T\nquestion: Q\nreference: b\ngroups: [{label: a}]\n", "reference 'b' is the label of no point"),
        ("title: [\n", "mine.yaml is not valid YAML"),
    ],
)
def test_a_file_that_is_no_study(fails, workplace, text, line):
    (workplace / "mine.yaml").write_text(text)
    assert line in fails("--study", "mine.yaml")


def test_without_optuna(fails, monkeypatch):
    real = builtins.__import__

    def no_optuna(name, *args, **kwargs):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_optuna)
    assert fails("--study", "size").startswith("studies need Optuna, which is not installed: pip install")
