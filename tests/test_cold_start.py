"""Reports on trained RecBole models, in memory and as checkpoints, on which nothing was distilled."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.model.general_recommender import BPR
from recbole.model.sequential_recommender import GRU4Rec, SASRec
from recbole.trainer import Trainer

import recbole_farzi
from recbole_farzi.cold_start import report_on_checkpoints
from recbole_farzi.data import load_loaders
from recbole_farzi.errors import DataError, OptionError, StorageError
from recbole_farzi.run import main


@pytest.fixture
def plain(workplace, tiny_dataset):
    """Function that makes ``(config, train, valid, test)`` as a user of RecBole does, with RecBole's own defaults."""

    def make(model="SASRec", **overrides):
        settings = {
            "data_path": str(tiny_dataset), "MAX_ITEM_LIST_LENGTH": 10, "hidden_size": 8, "inner_size": 16, "epochs": 1,
            "embedding_size": 8, "train_neg_sample_args": None, "topk": [5, 10], "metrics": ["Recall", "NDCG"],
            "valid_metric": "NDCG@5", "state": "ERROR", "use_gpu": False, "show_progress": False,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            **({} if model != "BPR" else {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}),
            **overrides,
        }  # fmt: skip
        given = {name: repr(value) if isinstance(value, str) else value for name, value in settings.items()}
        config = Config(model, overrides.get("dataset", "tiny"), None, given)
        return config, *load_loaders(config)

    return make


def saved(config, model, train, valid):
    """The checkpoint that RecBole's trainer leaves, and the trainer."""
    trainer = Trainer(config, model)
    trainer.saved_model_file = f"saved/{len(list(Path('saved').glob('*.pth')))}.pth"  # RecBole's names change by the second
    trainer.fit(train, valid, verbose=False, saved=True, show_progress=False)
    return trainer.saved_model_file, trainer


def test_models_in_memory(plain, tmp_path):
    config, train, valid, test = plain()
    models = {"SASRec": [SASRec(config, train.dataset) for _ in range(2)], "GRU4Rec": GRU4Rec(*_of(plain, "GRU4Rec", train))}
    out = recbole_farzi.cold_start_report(models, train, test, tmp_path / "out", user_strata=[4, 9], item_strata=2)
    results = out["results"]
    found = [(c["key"], len(c["runs"])) for c in results["contenders"]]
    assert found == [("SASRec", 2), ("GRU4Rec", 1), ("popularity", 1)]
    assert results["reference"] == "SASRec"
    trainer = Trainer(config, models["SASRec"][0])
    expected = trainer.evaluate(test, load_best_model=False)
    found = results["contenders"][0]["runs"][0]["metrics"]
    assert {name: found[name] for name in expected} == {name: float(value) for name, value in expected.items()}
    for part in ("report.html", "report.md", "strata.csv", "comparisons.csv", "results.json", "rows.npz"):
        assert (tmp_path / "out" / part).stat().st_size > 0
    assert "itemcoverage@5" in found and config["metrics"] == ["Recall", "NDCG"]
    assert "SASRec and GRU4Rec on tiny, from cold to warm" in (tmp_path / "out" / "report.md").read_text()


def _of(plain, model, train):
    return plain(model)[0], train.dataset


def test_a_single_model_is_compared_with_popularity(plain, tmp_path):
    config, train, valid, test = plain()
    out = recbole_farzi.cold_start_report(SASRec(config, train.dataset), train, test, tmp_path / "out")
    assert (out["results"]["reference"], out["results"]["focus"]) == ("popularity", "SASRec")
    page = (tmp_path / "out" / "report.md").read_text()
    assert "## SASRec against" in page and "| popularity |" in page and "SASRec on tiny, from cold to warm" in page
    popularity = out["results"]["contenders"][1]["runs"][0]
    occurrences = np.bincount(train.dataset.inter_feat["item_id"].numpy(), minlength=train.dataset.item_num)
    assert popularity["seed"] is None and popularity["metrics"]["averagepopularity@5"] > occurrences[1:].mean()


def test_a_single_model_alone(plain, tmp_path):
    config, train, valid, test = plain()
    model = SASRec(config, train.dataset)
    out = recbole_farzi.cold_start_report(model, train, test, tmp_path / "out", popularity=False)
    assert out["results"]["reference"] is None and len(out["results"]["contenders"]) == 1
    assert "per cent of" not in (tmp_path / "out" / "report.md").read_text()


def test_a_general_recommender(plain, tmp_path):
    """BPR with RecBole's own random split: several held-out items a user."""
    config, train, valid, test = plain("BPR")
    out = recbole_farzi.cold_start_report({"BPR": BPR(config, train.dataset)}, train, test, None)
    assert "items/values" not in out["rows"] and "items/BPR" in out["rows"] and out["report_path"] is None
    assert "items/popularity" in out["rows"]
    first = out["results"]["strata"]["items"][0]
    assert first["users"] < first["rows"] or any(s["users"] < s["rows"] for s in out["results"]["strata"]["items"])


def test_a_model_of_another_catalogue_is_refused(plain, write_inter, tiny_events):
    config, train, valid, test = plain()
    model = SASRec(config, train.dataset)
    model.n_items += 3
    with pytest.raises(DataError, match="SASRec was trained on another dataset: it knows 33 items, this one has 30"):
        recbole_farzi.cold_start_report(model, train, test, None)


@pytest.mark.parametrize("changes, message", [
    ({"user_strata": [5, 3]}, "overlapping strata"),
    ({"user_strata": [5, 5]}, "empty strata"),
    ({"item_strata": "[1,2,x)"}, "must be whole numbers"),
    ({"item_strata": [10_000]}, "is empty: no test row lies in it"),
    ({"report_metrics": ["Hits"]}, "farzi_report_metrics=\\['Hits'\\] must be a list of"),
    ({"report_metrics": ["RMSE"]}, "must be a list of"),
    ({"reference": "GRU4Rec"}, "is none of the models: SASRec"),
])  # fmt: skip
def test_what_makes_no_sense_is_one_line(plain, changes, message):
    config, train, valid, test = plain()
    with pytest.raises(OptionError, match=message) as caught:
        recbole_farzi.cold_start_report(SASRec(config, train.dataset), train, test, None, **changes)
    assert "\n" not in str(caught.value)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_checkpoints_from_the_command_line(plain, capsys, workplace):
    config, train, valid, test = plain()
    first, trainer = saved(config, SASRec(config, train.dataset), train, valid)
    expected = trainer.evaluate(test, load_best_model=False)
    other = plain(seed=7)[0]
    second, _ = saved(other, SASRec(other, train.dataset), train, valid)
    gru = plain("GRU4Rec")[0]
    third, _ = saved(gru, GRU4Rec(gru, train.dataset), train, valid)
    argv = ["--cold_start", first, second, third, "--farzi_user_strata=[4,9]", "--use_gpu=False", "--show_progress=False"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "SASRec and GRU4Rec on tiny" in printed and "4-8 training events" in printed
    folder = workplace / "report" / "tiny-cold-start"
    results = json.loads((folder / "results.json").read_text())
    assert [len(c["runs"]) for c in results["contenders"]] == [2, 1, 1]
    found = results["contenders"][0]["runs"][0]["metrics"]
    assert {name: found[name] for name in expected} == {name: float(value) for name, value in expected.items()}
    assert not (workplace / "saved" / "farzi").exists()  # nothing was distilled
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["--report", str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_checkpoint_of_another_dataset_is_refused(plain, write_inter, tiny_events, capsys):
    config, train, valid, test = plain()
    first, _ = saved(config, SASRec(config, train.dataset), train, valid)
    write_inter([event for event in tiny_events if event[1] != "i3"], name="other")
    other, *loaders = plain(dataset="other")
    second, _ = saved(other, SASRec(other, loaders[0].dataset), loaders[0], loaders[1])
    assert main(["--cold_start", first, second]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "was trained on other data than" in error and "dataset is 'other', not 'tiny'" in error


def test_a_dataset_that_has_changed_since_is_refused(plain, write_inter, tiny_events, capsys):
    config, train, valid, test = plain()
    first, _ = saved(config, SASRec(config, train.dataset), train, valid)
    write_inter([event for event in tiny_events if event[1] != "i3"])
    assert main(["--cold_start", first, "--show_progress=False"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "does not fit dataset tiny as it is loaded here" in error


def test_files_that_are_no_checkpoints(workplace, capsys):
    class Harm:
        def __reduce__(self):
            import os

            return os.mkdir, (str(workplace / "made"),)

    torch.save({"config": Harm(), "state_dict": {}}, "harm.pth")
    (workplace / "pickle.pth").write_bytes(pickle.dumps(Harm()))
    torch.save({"state_dict": {}}, "weights.pth")
    for name in ("harm.pth", "pickle.pth", "weights.pth", "nosuch.pth"):
        with pytest.raises(StorageError) as caught:
            report_on_checkpoints([name])
        assert "\n" not in str(caught.value)
    assert not (workplace / "made").exists()


def test_texts_of_a_checkpoint_are_not_run(plain, workplace):
    """RecBole's Config evaluates the texts that it is given; those of a file must not be."""
    config, train, valid, test = plain()
    config["loss_type"] = "CE"
    config["embedding_size"] = f"__import__('os').mkdir({str(workplace / 'made')!r}) or 8"
    trainer = Trainer(config, SASRec(config, train.dataset))
    trainer._save_checkpoint(0, verbose=False)
    report_on_checkpoints([trainer.saved_model_file], overrides={"show_progress": False, "use_gpu": False})
    assert not (workplace / "made").exists()


class Runs:
    """Pickles to making a folder, which stands for any code."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        import os

        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("spelling", ["--trust-checkpoint", "--trust_checkpoint", "--trust-checkpoint=True"])
def test_a_checkpoint_that_needs_trust_runs_its_code_only_with_the_users_word(plain, workplace, capsys, caplog, spelling):
    config, train, valid, test = plain()
    good, _ = saved(config, SASRec(config, train.dataset), train, valid)
    made = workplace / "made"
    torch.save({**torch.load(good, weights_only=False), "extra": Runs(made)}, "extra.pth", pickle_protocol=4)
    argv = ["--cold_start", "extra.pth", "--use_gpu=False", "--show_progress=False"]
    for untrusted in (argv, [*argv, "--trust_checkpoint=False"]):
        assert main(untrusted) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "it wants to call" in error and error.rstrip().endswith("say --trust-checkpoint")
        assert not made.exists() and not (workplace / "report").exists()
    assert main([*argv, spelling]) == 0
    assert made.is_dir() and (workplace / "report" / "tiny-cold-start" / "results.json").is_file()
    assert [m for m in caplog.messages if "extra.pth is trusted: it calls" in m and "mkdir" in m]


def test_a_checkpoint_that_needs_no_trust_is_not_given_any(plain, workplace, monkeypatch):
    config, train, valid, test = plain()
    good, _ = saved(config, SASRec(config, train.dataset), train, valid)
    monkeypatch.setattr("recbole_farzi.compat._trusted", None)
    overrides = {"show_progress": False, "use_gpu": False}
    out = report_on_checkpoints([good], overrides=overrides, trust=True)
    assert out["results"]["contenders"][0]["key"] == "SASRec"
    (workplace / "cut.pth").write_bytes(Path(good).read_bytes()[:-100])
    with pytest.raises(StorageError) as caught:  # damaged, which trust does not mend
        report_on_checkpoints(["cut.pth"], overrides=overrides, trust=True)
    assert "--trust" not in str(caught.value)


def test_a_trusted_checkpoint_that_fails_is_one_line(workplace, capsys):
    (workplace / "made").mkdir()
    torch.save({"config": Runs(workplace / "made"), "state_dict": {}}, "harm.pth")
    assert main(["--cold_start", "harm.pth", "--trust-checkpoint"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "harm.pth: cannot be read even with trust: FileExistsError" in error


@pytest.mark.parametrize("arguments, message", [
    (["--trust-checkpoint"], "--trust_checkpoint is for the checkpoints of --cold_start"),
    (["--trust_checkpoint", "-d", "tiny"], "--trust_checkpoint is for the checkpoints of --cold_start"),
    (["--cold_start", "x", "--trust-checkpoint=perhaps"], "option trust_checkpoint=perhaps must be True or False"),
    (["--report", "x", "--cold_start", "y"], "give one of --cold_start, --report"),
    (["--report", "x", "--topk=[3]"], "takes no other argument"),
    (["--cold_start", "x", "-d", "tiny"], "leave out -m and -d"),
    (["--report", "nosuch"], "cannot read nosuch/results.json"),
])  # fmt: skip
def test_arguments_that_do_not_go_together(workplace, capsys, arguments, message):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_a_report_of_nothing_that_is_known(workplace, capsys):
    (workplace / "old").mkdir()
    (workplace / "old" / "results.json").write_text('{"format": 1}')
    assert main(["--report", "old"]) == 1
    assert "have format 1 and this version reads format 2" in capsys.readouterr().err
    assert np.array_equal([path.name for path in (workplace / "old").iterdir()], ["results.json"])
