"""Summaries as files: exact, whole, refused when tampered with, and good for plain RecBole."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import recbole_farzi
from recbole_farzi import storage
from recbole_farzi.emission import align, emit, load_summary, plain_properties, summary_digest
from recbole_farzi.errors import DataError, StorageError
from recbole_farzi.summary import Summary

TOKENS = ["[PAD]", "i1", "two", "3", "é", "a,b"]


def some_summary(seed=0, sequences=3, length=4, d=2, vocabulary=len(TOKENS)):
    generator = torch.Generator().manual_seed(seed)
    return Summary(
        torch.randn(sequences, length, d, generator=generator),
        torch.randn(d, vocabulary, generator=generator),
        torch.randn(vocabulary, generator=generator),
        0.7,
    )


@pytest.fixture
def write(tmp_path):
    def run(summary=None, tokens=TOKENS, name="tiny-farzi", evaluation=None, maximum=3, hard=None):
        summary = summary or some_summary(vocabulary=len(tokens))
        evaluation = evaluation or {"valid": [("u1", [1, 2], 3)], "test": [("u1", [1, 2, 3], 4)]}
        hard = summary.hard(2, 0) if hard is None else hard
        return emit(tmp_path / "out" / name, summary, hard, tokens, evaluation, {"inner": {"steps": 5}}, maximum)

    return run


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def bits(tensor):
    return tensor.view(torch.int32)


# --- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_soft_files_hold_every_bit(write, seed):
    summary = some_summary(seed)
    back, tokens, recipe = load_summary(write(summary))
    assert torch.equal(bits(back.latent), bits(summary.latent))
    assert torch.equal(bits(back.decoder[:, 1:]), bits(summary.decoder[:, 1:]))
    assert torch.equal(bits(back.bias[1:]), bits(summary.bias[1:]))
    assert back.temperature == summary.temperature and tokens == TOKENS
    assert recipe["inner"] == {"steps": 5} and recipe["summary_sha256"] == summary_digest(back) == summary_digest(summary)
    assert torch.equal(back.distributions(), summary.distributions())  # the padding item has no mass, whatever it held


@pytest.mark.parametrize(
    "values",
    [
        [0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 1.1754944e-38],  # zeros, denormal numbers, the least normal one
        [3.4028235e38, -3.4028235e38, 1.0000001, 0.99999994, 16777217.0, 0.1],
        np.random.default_rng(0).integers(0, 0x7F800000, size=3000).astype(np.uint32).view(np.float32),  # any bits but nan
    ],
    ids=["small", "large", "any"],
)
def test_no_number_is_too_small_or_too_large(write, values):
    values = torch.from_numpy(np.asarray(values, dtype=np.float32))
    n = len(values) // 6
    latent, decoder = values[: 2 * n].view(n, 1, 2), torch.zeros(2, len(TOKENS))
    decoder[:, 1:3] = values[2 * n : 2 * n + 4].view(2, 2) if n > 1 else values[2:6].view(2, 2)
    bias = torch.cat([torch.zeros(1), values[-5:]])
    back, _, _ = load_summary(write(Summary(latent, decoder, bias, 1 / 3), hard=torch.ones(1, 3, dtype=torch.long)))
    assert torch.equal(bits(back.latent), bits(latent)) and torch.equal(bits(back.decoder), bits(decoder))
    assert torch.equal(bits(back.bias), bits(bias)) and back.temperature == 1 / 3


def test_shapes_of_one(write):
    summary = some_summary(sequences=1, length=1, d=1, vocabulary=2)
    evaluation = {"valid": [("u", [1], 1)], "test": [("u", [1], 1)]}
    back, tokens, _ = load_summary(write(summary, ["[PAD]", "only"], evaluation=evaluation))
    assert back.latent.shape == (1, 1, 1) and tokens == ["[PAD]", "only"] and torch.equal(back.latent, summary.latent)


@pytest.mark.parametrize(
    "token",
    ["é", "数据", "a:b", "a,b", "it's", 'in"side', "#1", "1e5", "007", "-1", "true", "a\\tb", "\u2028", "\x1c", "🎬", "[PAD]x",
     "a|b;c"],
)  # fmt: skip
def test_names_with_odd_characters_come_back(write, token):
    tokens = ["[PAD]", token, "i2", "i3", "i4", "i5"]
    folder = write(tokens=tokens)
    assert load_summary(folder)[1] == tokens
    assert f"u1\t{token} i2\ti3\n" in (folder / "tiny-farzi.valid.inter").read_text(encoding="utf-8")


@pytest.mark.parametrize("token", ["", "a b", "a\tb", "a\nb", "a\rb", "a\0b", '"a"', '"a', "NA", "null", "nan", "None"])
def test_names_that_would_not_come_back_are_refused(write, tmp_path, token):
    with pytest.raises(DataError) as caught:
        write(tokens=["[PAD]", "i1", token])
    assert repr(token) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_same_summary_gives_the_same_files(write, tmp_path):
    first = contents(write())
    assert contents(write()) == first
    assert set(first) == {"recipe.json"} | {
        f"tiny-farzi.{kind}" for kind in ("latent", "item", "inter", "train.inter", "valid.inter", "test.inter", "yaml")
    }


def test_hard_rows_are_the_prefixes_of_the_hard_sequences(write):
    summary = some_summary()
    folder, hard = write(summary, maximum=2), summary.hard(2, 0).tolist()
    lines = (folder / "tiny-farzi.train.inter").read_text(encoding="utf-8").splitlines()[1:]
    expected = [
        f"farzi-{s}\t{' '.join(TOKENS[i] for i in items[max(0, end - 2):end])}\t{TOKENS[items[end]]}"
        for s, items in enumerate(hard)
        for end in range(1, len(items))
    ]  # fmt: skip
    assert lines == expected
    events = (folder / "tiny-farzi.inter").read_text(encoding="utf-8").splitlines()[1:]
    assert events == [f"farzi-{s}\t{TOKENS[i]}\t{t}" for s, items in enumerate(hard) for t, i in enumerate(items)]


def with_inputs(summary, seed=3):
    generator = torch.Generator().manual_seed(seed)
    shape = summary.latent.shape[:2]
    return replace(summary, inputs=torch.randint(1, len(summary.bias), shape, generator=generator))


def test_items_of_the_histories_come_back_and_stand_before_the_hard_events(write):
    summary = with_inputs(some_summary())
    folder, hard = write(summary, maximum=2), summary.hard(2, 0).tolist()
    back, _, recipe = load_summary(folder)
    assert torch.equal(back.inputs, summary.inputs)
    assert recipe["summary_sha256"] == summary_digest(back) != summary_digest(replace(back, inputs=None))
    assert back.nbytes == replace(back, inputs=None).nbytes + 2 * 12
    lines = (folder / "tiny-farzi.train.inter").read_text(encoding="utf-8").splitlines()[1:]
    histories = [row for row in summary.inputs.tolist() for _ in range(2)]
    assert lines == [
        f"farzi-{s}\t{' '.join(TOKENS[i] for i in histories[s][max(0, end - 2):end])}\t{TOKENS[items[end]]}"
        for s, items in enumerate(hard)
        for end in range(1, len(items))
    ]  # fmt: skip


@pytest.mark.parametrize("change", [("\ttwo\n", "\ti1\n"), ("\ttwo\n", "\tnosuch\n"), ("\titem_id:token", "\titem:token")])
def test_changed_items_of_the_histories_are_refused(write, change):
    summary = some_summary()
    folder = write(replace(summary, inputs=torch.full(summary.latent.shape[:2], 2)))
    file = folder / "tiny-farzi.latent"
    text = file.read_text(encoding="utf-8")
    assert change[0] in text
    file.write_text(text.replace(*change, 1), encoding="utf-8")
    with pytest.raises(StorageError) as caught:
        load_summary(folder)
    assert "\n" not in str(caught.value)


def test_items_of_the_histories_are_put_in_the_order_of_a_dataset():
    summary = with_inputs(some_summary())
    wanted = [TOKENS[0], *reversed(TOKENS[1:])]
    aligned = align(summary, TOKENS, wanted)
    for mine, theirs in zip(summary.inputs.flatten().tolist(), aligned.inputs.flatten().tolist()):
        assert TOKENS[mine] == wanted[theirs]


# --- whole or not at all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()], ids=["full", "interrupt"]
)
def test_an_emission_that_fails_midway_leaves_the_former_one(write, monkeypatch, number, error):
    folder = write(some_summary(1))
    before, calls, fsync = contents(folder.parent), [], os.fsync

    def failing(handle):
        calls.append(handle)
        if len(calls) == number:
            raise error
        fsync(handle)

    monkeypatch.setattr(storage.os, "fsync", failing)
    with pytest.raises(StorageError if isinstance(error, OSError) else KeyboardInterrupt):
        write(some_summary(2))
    assert len(calls) == number and contents(folder.parent) == before


def test_rows_that_cannot_be_made_leave_the_former_emission(write):
    folder = write()
    before = contents(folder.parent)

    def rows():
        yield "u1", [1], 2
        raise RuntimeError("lost the data")

    with pytest.raises(RuntimeError):
        write(some_summary(2), evaluation={"valid": rows(), "test": []})
    assert contents(folder.parent) == before


def test_a_new_emission_replaces_the_former(write):
    write(some_summary(1))
    folder = write(some_summary(2))
    assert torch.equal(load_summary(folder)[0].latent, some_summary(2).latent)
    assert [p.name for p in folder.parent.iterdir()] == ["tiny-farzi"]


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_what_is_no_emission_is_never_replaced(write, tmp_path, what):
    place = tmp_path / "out" / "tiny-farzi"
    if what == "file":
        place.parent.mkdir()
        place.write_text("mine")
    else:
        mine = place if what == "folder" else tmp_path / "elsewhere"
        mine.mkdir(parents=True)
        (mine / "thesis.tex").write_text("mine")
        if what == "link":
            place.parent.mkdir()
            place.symlink_to(mine)
    before = contents(tmp_path)
    with pytest.raises(StorageError) as caught:
        write()
    assert str(place) in str(caught.value) and contents(tmp_path) == before


@pytest.mark.parametrize("name", ["..", "a b", ".hidden", "a\tb"])
def test_names_that_recbole_could_not_be_given_are_refused(write, name):
    with pytest.raises(StorageError, match="give a plain name"):
        write(name=name)


# --- files that are not what they should be ---------------------------------------------------------------------------


def refused(folder):
    with pytest.raises(StorageError) as caught:
        load_summary(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["recipe.json", "tiny-farzi.latent", "tiny-farzi.item"])
@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe\x00", b"user_id:token\nu1\n", b"[" * 100_000])
def test_missing_and_foreign_files_are_refused_by_name(write, name, content):
    folder = write()
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    assert name in refused(folder)


@pytest.mark.parametrize("name", ["recipe.json", "tiny-farzi.latent", "tiny-farzi.item"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.98])
def test_truncated_files_are_refused(write, name, share):
    folder = write()
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    refused(folder)


def lines_changed(folder, name, change):
    path = folder / f"tiny-farzi.{name}"
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join(change(lines)), encoding="utf-8")


def cell(line, column, value):
    return lambda lines: [
        "\t".join(value if (i, j) == (line, column) else c for j, c in enumerate(row.split("\t"))) for i, row in enumerate(lines)
    ]


@pytest.mark.parametrize(
    "name, change",
    [
        ("latent", cell(2, 3, "1e0 2e0")),
        ("latent", cell(2, 3, "1e0")),
        ("latent", cell(2, 3, "1e0 word")),
        ("latent", cell(2, 3, "nan nan")),
        ("latent", cell(12, 1, "nan")),
        ("latent", cell(12, 1, "inf")),
        ("latent", cell(12, 1, "-5")),
        ("latent", cell(12, 1, "5")),
        ("latent", cell(12, 1, "")),
        ("latent", lambda lines: [lines[0], lines[2], lines[1], *lines[3:]]),
        ("latent", lambda lines: lines[:-2] + [""]),
        ("latent", lambda lines: lines + lines[1:2]),
        ("latent", lambda lines: [lines[0] + "\tmore:float", *lines[1:]]),
        ("item", cell(1, 0, "other")),
        ("item", cell(1, 1, "1e0 2e0")),
        ("item", cell(1, 2, "1e0")),
        ("item", cell(1, 2, "word")),
        ("item", lambda lines: [lines[0], lines[2], lines[1], *lines[3:]]),
        ("item", lambda lines: lines[:-2] + [""]),
        ("item", lambda lines: [line if i == 0 or not line else "extra\t" + line for i, line in enumerate(lines)]),
    ],
)
def test_changed_soft_files_are_refused(write, name, change):
    folder = write()
    lines_changed(folder, name, change)
    refused(folder)


def test_swapped_names_are_refused(write):
    """Every number is in its place; the items are others."""
    folder = write()
    path = folder / "tiny-farzi.item"
    other = {"i1": "two", "two": "i1"}
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").split("\n"))
    path.write_text("\n".join("\t".join([other.get(row[0], row[0]), *row[1:]]) for row in rows), encoding="utf-8")
    assert "checksum differs" in refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"format": None}, {"name": None}, {"name": 5}, {"name": "../tiny-farzi"}, {"name": "/etc/passwd"},
        {"name": "other"}, {"temperature": 0.8}, {"temperature": "warm"}, {"temperature": None}, {"temperature": [1]},
        {"summary_sha256": None}, {"summary_sha256": "0" * 64}, {"items_sha256": None},
    ],
    ids=str,
)  # fmt: skip
def test_changed_recipes_are_refused(write, change):
    folder = write()
    recipe = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps({**recipe, **change}))
    refused(folder)


@pytest.mark.parametrize("recipe", ["[]", "5", "null", '"text"', "{}"])
def test_other_json_is_no_recipe(write, recipe):
    folder = write()
    (folder / "recipe.json").write_text(recipe)
    assert "is no recipe that this version reads" in refused(folder)


def test_files_of_another_summary_are_refused(write, tmp_path):
    folder = write(some_summary(1))
    latent = (folder / "tiny-farzi.latent").read_bytes()
    folder = write(some_summary(2))
    (folder / "tiny-farzi.latent").write_bytes(latent)
    assert "checksum differs" in refused(folder)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    assert "No such file" in refused(tmp_path / "nosuch")


# --- plain RecBole ----------------------------------------------------------------------------------------------------

PLAIN = """
import json, sys
import recbole_farzi  # repairs RecBole; nothing else of it
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer

small = dict(hidden_size=8, inner_size=16, n_layers=1, epochs=2, topk=[5], valid_metric="NDCG@5", metrics=["Hit", "NDCG"],
             show_progress=False, data_path=sys.argv[1], state="ERROR", train_batch_size=64)
arguments, sys.argv = sys.argv, sys.argv[:1]


def rows(loader):
    dataset = loader.dataset
    feat, users = dataset.inter_feat, dataset.field2id_token["user_id"]
    items = dataset.field2id_token["item_id"]
    columns = (feat[name].tolist() for name in ("user_id", "item_id_list", "item_length", "item_id"))
    return sorted((str(users[u]), [str(items[i]) for i in row[:n]], str(items[t])) for u, row, n, t in zip(*columns))


def run(files, **more):
    config = Config("SASRec", arguments[2], files, {**small, **more})
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    trainer = Trainer(config, SASRec(config, train.dataset))
    _, best = trainer.fit(train, valid, saved=False, show_progress=False)
    return {
        "items": dataset.item_num - 1, "train": len(train.dataset), "valid": rows(valid), "test": rows(test),
        "best": dict(best), "result": dict(trainer.evaluate(test, load_best_model=False)),
    }


benchmark = run([arguments[3]])
whole = run([], load_col={"inter": ["user_id", "item_id", "timestamp"]}, train_neg_sample_args=None, MAX_ITEM_LIST_LENGTH=10)
plugin = sorted(name for name in sys.modules if name.startswith("recbole_farzi"))
print("RESULT" + json.dumps({"benchmark": benchmark, "whole": whole, "plugin": plugin}))
"""


def real_rows(loader):
    dataset = loader.dataset
    feat, users, items = dataset.inter_feat, dataset.field2id_token["user_id"], dataset.field2id_token["item_id"]
    columns = (feat[name].tolist() for name in ("user_id", "item_id_list", "item_length", "item_id"))
    return sorted([str(users[u]), [str(items[i]) for i in row[:n]], str(items[t])] for u, row, n, t in zip(*columns))


def test_plain_recbole_trains_on_the_hard_files_and_evaluates_on_the_real_rows(workplace, tiny_split):
    tokens = tiny_split.train.dataset.field2id_token["item_id"]
    ids = {str(token): number for number, token in enumerate(tokens)}
    evaluation = {
        part: [(user, [ids[item] for item in history], ids[target]) for user, history, target in real_rows(loader)]
        for part, loader in (("valid", tiny_split.valid), ("test", tiny_split.test))
    }
    summary = some_summary(sequences=4, length=11, d=3, vocabulary=tiny_split.vocabulary)
    folder = emit(workplace / "out" / "tiny-farzi", summary, summary.hard(3, 0), tokens, evaluation, {}, 10)
    (workplace / "plain.py").write_text(PLAIN, encoding="utf-8")
    root = Path(recbole_farzi.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "plain.py", str(folder.parent), folder.name, str(plain_properties(folder))],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.split("RESULT")[1])
    assert found["plugin"] == ["recbole_farzi", "recbole_farzi.compat", "recbole_farzi.errors", "recbole_farzi.version"]

    benchmark = found["benchmark"]
    assert benchmark["items"] == tiny_split.vocabulary - 1  # the whole catalogue, whether drawn or not
    assert benchmark["train"] == 4 * 3 * 10
    assert benchmark["valid"] == real_rows(tiny_split.valid) and benchmark["test"] == real_rows(tiny_split.test)
    assert set(benchmark["result"]) == {"hit@5", "ndcg@5"} and 0 <= benchmark["result"]["hit@5"] <= 1

    hard = [[str(tokens[i]) for i in items] for items in summary.hard(3, 0).tolist()]
    whole = found["whole"]  # RecBole's own leave-one-out of NAME.inter
    assert whole["test"] == sorted([f"farzi-{s}", items[-11:-1][-10:], items[-1]] for s, items in enumerate(hard))
    assert whole["valid"] == sorted([f"farzi-{s}", items[:-2], items[-2]] for s, items in enumerate(hard))


def test_a_summary_is_put_in_the_order_of_a_dataset():
    summary = Summary(torch.randn(2, 3, 2), torch.arange(8.0).view(2, 4), torch.arange(4.0), 1.0)
    aligned = align(summary, ["[PAD]", "a", "b", "c"], ["[PAD]", "c", "a", "b"])
    assert aligned.decoder.tolist() == [[0, 3, 1, 2], [4, 7, 5, 6]]
    assert aligned.bias.tolist() == [0, 3, 1, 2]
    assert torch.equal(aligned.latent, summary.latent)
    for other in (["[PAD]", "a", "b"], ["[PAD]", "a", "b", "d"]):
        with pytest.raises(DataError, match="another catalogue"):
            align(summary, ["[PAD]", "a", "b", "c"], other)
