"""The whole job, from the command line and from Python, on a tiny dataset."""

import csv
import json

import pytest
import torch

import recbole_farzi
from recbole_farzi import contenders
from recbole_farzi.emission import load_summary
from recbole_farzi.errors import DivergenceError
from recbole_farzi.run import main, run_farzi


@pytest.fixture
def job(workplace, tiny_dataset, tiny_options):
    def run(model=None, **overrides):
        return run_farzi(model, "tiny", (), {**tiny_options, "data_path": str(tiny_dataset), **overrides})

    return run


@pytest.fixture(scope="module")
def whole_job(tmp_path_factory, work_in, shared_dataset, tiny_options):
    """What a job with all contenders of the tiny options gave, for the tests that only look at it."""
    with work_in(tmp_path_factory.mktemp("whole")) as folder:
        out = run_farzi(None, "tiny", (), {**tiny_options, "data_path": str(shared_dataset)})
    return {**out, "report_path": folder / out["report_path"]}


@pytest.fixture
def arguments(workplace, tiny_dataset, tiny_options):
    def make(**overrides):
        options = {**tiny_options, "data_path": tiny_dataset, "show_progress": True, **overrides}
        return ["-d", "tiny", *(f"--{key}={value}" for key, value in options.items())]

    return make


def test_the_whole_job(whole_job, shared_dataset):
    out, results = whole_job, whole_job["results"]
    found = {contender["key"]: contender for contender in results["contenders"]}
    assert list(found) == ["full", "summary", "start", "hard", "random", "random-bytes", "popularity"]
    assert [len(contender["runs"]) for contender in found.values()] == [2, 2, 2, 2, 2, 2, 1]
    assert found["summary"]["events"] == 44 == found["start"]["events"] == found["random"]["events"]
    assert found["summary"]["bytes"] == out["summary"].nbytes == 44 * 3 + 31 * 3 + 2 * 31 + 2 * 3 * 4 + 2 * 44  # Z, M, b, scales, histories
    assert found["hard"]["events"] == 5 * 44
    assert out["summary_path"] == shared_dataset / "tiny-farzi"
    summary, tokens, recipe = load_summary(out["summary_path"])
    assert torch.equal(summary.latent, out["summary"].latent)
    assert len(tokens) == 31 and recipe["inner"]["steps"] == 6
    for name in ("report.html", "report.md", "strata.csv", "comparisons.csv", "results.json", "rows.npz"):
        assert (out["report_path"] / name).stat().st_size > 0
    assert json.loads((out["report_path"] / "results.json").read_text())["contenders"] == json.loads(
        json.dumps(results["contenders"])
    )
    with open(out["report_path"] / "strata.csv", newline="") as file:
        assert {row["contender"] for row in csv.DictReader(file)} == set(found)


def test_strata_are_parts_of_the_whole(whole_job):
    """Every stratum's metric, weighted by its rows, gives the metric over all rows, for every contender and run."""
    results = whole_job["results"]
    rows = results["data"]["test_rows"]
    for kind, described in results["strata"].items():
        assert sum(stratum["rows"] for stratum in described) == rows
        for contender in results["contenders"]:
            for run in contender["runs"]:
                for metric, value in run["metrics"].items():
                    parts = sum(s[metric] * d["rows"] for s, d in zip(run["strata"][kind], described)) / rows
                    assert parts == pytest.approx(value, abs=2e-6)  # RecBole rounds to metric_decimal_place


def test_a_second_run_repeats_nothing_and_says_the_same(job, monkeypatch):
    few = {"farzi_contenders": ["full", "summary", "hard", "popularity"], "farzi_seeds": 1}
    first = job(**few)["results"]
    monkeypatch.setattr(contenders, "timed_fit", lambda *args: pytest.fail("trained again"))
    second = job(**few)["results"]
    assert second["contenders"] == first["contenders"]
    assert second["summary"] == first["summary"]
    assert second["pool"]["reused"]


def test_runs_survive_an_interruption(job, whole_job, monkeypatch):
    """Stopped in the middle of comparing; the runs that were there are not trained again, and the rest is the same."""
    original, trained = contenders.timed_fit, []

    def stop_after_three(trainer, *args):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(trainer)
        return original(trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(contenders, "timed_fit", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            job(farzi_contenders=["full", "random", "popularity"])
    resumed, whole = job(farzi_contenders=["full", "random", "popularity"])["results"], whole_job["results"]
    undisturbed = {contender["key"]: contender["runs"] for contender in whole["contenders"]}
    assert len(resumed["contenders"]) == 3
    for contender in resumed["contenders"]:
        assert [run["metrics"] for run in contender["runs"]] == [run["metrics"] for run in undisturbed[contender["key"]]]
    assert resumed["summary"]["sha256"] == whole["summary"]["sha256"]


@pytest.mark.parametrize("model", ["GRU4Rec", "NARM"])
def test_other_models(job, model):
    results = job(model, farzi_contenders=["full", "summary", "hard"], farzi_seeds=1)["results"]
    assert results["model"] == model
    assert all(run["metrics"]["crossentropy"] > 0 for c in results["contenders"] for run in c["runs"])


def test_full_data_by_recbole_s_own_prefixes(job):
    results = job(farzi_full_data="prefixes", farzi_contenders=["full"])["results"]
    assert results["options"]["farzi_full_data"] == "prefixes"


def test_the_likeliest_items_as_hard_events(job):
    results = job(farzi_hard_samples=0, farzi_contenders=["hard"])["results"]
    assert {c["key"]: c["events"] for c in results["contenders"]}["hard"] == 44


def test_popularity_ranks_by_counts(whole_job, make_config):
    """HR@5 of popularity, counted by hand from the training histories and the test rows."""
    import numpy as np

    from recbole_farzi.data import load_split

    results = whole_job["results"]
    split = load_split(make_config()[0])
    rows = split.test.dataset.inter_feat
    top = np.argsort(-split.counts, kind="stable")
    tied = split.counts[top[4]] == split.counts[top[5]]
    (popularity,) = [c for c in results["contenders"] if c["key"] == "popularity"]
    hits = np.isin(rows["item_id"].numpy(), top[:5]).mean()
    assert tied or popularity["runs"][0]["metrics"]["hit@5"] == pytest.approx(hits, abs=1e-6)
    shares = (split.counts[1:] + 0.5) / (split.counts[1:] + 0.5).sum()
    expected = -np.log(shares[rows["item_id"].numpy() - 1]).mean()
    assert popularity["runs"][0]["metrics"]["crossentropy"] == pytest.approx(expected, abs=1e-5)


def test_command_line(arguments, capsys, workplace):
    assert main([*arguments(farzi_contenders=["full", "popularity"]), "-m", "SASRec"]) == 0
    printed = capsys.readouterr().out
    assert "full data" in printed and "popularity" in printed and "HR@5" in printed
    assert (workplace / "report" / "tiny-SASRec" / "report.html").is_file()


def test_command_line_and_python_give_the_same_summary(arguments, whole_job, tiny_dataset):
    assert main(arguments(farzi_contenders=["popularity"])) == 0
    one, other = load_summary(tiny_dataset / "tiny-farzi")[0], whole_job["summary"]
    assert all(torch.equal(a, b) for a, b in zip(one.tensors, other.tensors))


def test_interrupting_says_how_to_go_on(arguments, capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(contenders, "timed_fit", interrupt)
    assert main(arguments()) == 130
    assert "goes on from here" in capsys.readouterr().err


def test_public_names():
    for name in recbole_farzi.__all__:
        assert getattr(recbole_farzi, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        recbole_farzi.nonsense


def test_metrics_of_which_less_is_better_are_marked_so(job):
    few = {"farzi_contenders": ["popularity"], "valid_metric": "CrossEntropy"}
    results = job(metrics=["Hit", "CrossEntropy", "GiniIndex"], **few)["results"]
    assert results["smaller_is_better"] == ["crossentropy", "giniindex@5", "giniindex@10"]


def test_out_of_memory_is_one_line(arguments, capsys, monkeypatch):
    def fail(*args):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(contenders, "timed_fit", fail)
    assert main(arguments()) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("run_farzi: not enough memory; lower farzi_sequences")


def test_contenders_that_cannot_be_trained_are_left_out(job, monkeypatch, caplog):
    """One has no room, another one diverges; what the job is for goes on."""

    def diverges(*args, **kwargs):
        raise DivergenceError("training SASRec gave a loss of nan")

    monkeypatch.setattr(contenders, "random_users", diverges)
    monkeypatch.setattr(contenders, "available", lambda device: 100)
    out = job(farzi_contenders=["full", "summary", "random", "teacher-labels", "svp-cf"], farzi_seeds=1)
    assert [contender["key"] for contender in out["results"]["contenders"]] == ["full", "summary"]
    assert (out["report_path"] / "report.html").stat().st_size > 0
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "random users is left out of the comparison: training SASRec gave a loss of nan" in said
    assert "teacher's labels is left out of the comparison: its labels take 0.0 GiB, and 0.0 are free" in said
    assert "SVP-CF, events is left out of the comparison: what users have met takes 0.0 GiB, and 0.0 are free" in said
