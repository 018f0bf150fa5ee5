"""Emitted summaries that were damaged, cut, exchanged or made by another version: the same summary, or one clear error."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_farzi.emission import align, emit, load_summary
from recbole_farzi.errors import DataError, StorageError
from recbole_farzi.storage import load_tensors, read_json, save_tensors
from recbole_farzi.summary import Summary

from .counting import outcomes

TOKENS = ["[PAD]", "i1", "i2", "i3", "i4"]
SNIPPETS = [b"", b"\0", b"\t", b"\n", b"\"", b"nan", b"inf", b"-", b"9" * 400, b"1e999", b"{", b"}", b"[" * 5000, b"\xff", b" ", b"null", b"\xef\xbb\xbf"]


@pytest.fixture
def emitted(tmp_path):
    """``(folder, its files and their bytes)``."""
    generator = torch.Generator().manual_seed(0)
    summary = Summary(
        torch.randn(2, 3, 2, generator=generator), torch.randn(2, 5, generator=generator), torch.randn(5, generator=generator), 0.7
    )
    rows = {"valid": [("u1", [1, 2], 3)], "test": [("u1", [1, 2, 3], 4)]}
    recipe = {"inner": {"steps": 5, "learning_rate": 0.01}, "source": {"training_histories_sha256": "0" * 64}}
    folder = emit(tmp_path / "tiny-farzi", summary, summary.hard(1, 0), TOKENS, rows, recipe, 3)
    return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


def changed(data, content, others):
    """Bytes that were damaged in a way that is drawn."""
    kind = data.draw(st.sampled_from(["flip", "insert", "delete", "truncate", "other file", "random"]))
    at, content = data.draw(st.integers(0, len(content) - 1)), bytearray(content)
    if kind == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif kind == "insert":
        content[at:at] = data.draw(st.sampled_from(SNIPPETS))
    elif kind == "delete":
        del content[at : at + data.draw(st.integers(1, 40))]
    elif kind == "truncate":
        del content[at:]
    elif kind == "other file":
        content = bytearray(data.draw(st.sampled_from(others)))
    else:
        content = bytearray(data.draw(st.binary(max_size=100)))
    return bytes(content)


def test_damaged_files_are_refused_or_change_nothing(emitted):
    folder, files = emitted
    expected, tokens, recipe = load_summary(folder)
    read = ["recipe.json", "tiny-farzi.latent", "tiny-farzi.item"]

    @given(data=st.data())
    def try_one(data):
        for name, content in files.items():
            (folder / name).write_bytes(content)
        name = data.draw(st.sampled_from(read))
        (folder / name).write_bytes(changed(data, files[name], list(files.values())))
        try:
            summary, found, again = load_summary(folder)
        except StorageError as error:
            assert str(error) and "\n" not in str(error)
            counts["one clear error"] += 1
            return
        assert all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(summary.tensors, expected.tensors))
        assert summary.temperature == expected.temperature and found == tokens and again == recipe
        counts["the same summary"] += 1

    with outcomes("emitted summaries, damaged") as counts:
        try_one()
    assert counts["one clear error"]


def test_damaged_checkpoints_are_refused_or_change_nothing(tmp_path):
    value = {"t": torch.arange(20.0), "n": [1, 2.5, None, "text"]}
    save_tensors(tmp_path / "x.pt", value)
    whole = (tmp_path / "x.pt").read_bytes()

    @given(data=st.data())
    def try_one(data):
        (tmp_path / "x.pt").write_bytes(changed(data, whole, [pickle.dumps(value), b"PK\x03\x04"]))
        try:
            load_tensors(tmp_path / "x.pt")
        except StorageError as error:
            assert "\n" not in str(error)
            counts["one clear error"] += 1
        else:
            counts["read"] += 1

    with outcomes("checkpoints, damaged") as counts:
        try_one()
    assert counts["one clear error"]


@pytest.mark.parametrize("format_", [0, 2, "1", None, 1e300])
def test_another_version_is_refused(emitted, format_):
    folder, files = emitted
    text = files["recipe.json"].decode()
    (folder / "recipe.json").write_text(json.dumps({**json.loads(text), "format": format_}))
    with pytest.raises(StorageError, match="no recipe that this version reads"):
        load_summary(folder)


@pytest.mark.parametrize("key, value", [("inner", {"steps": 500}), ("source", {}), ("temperature", 0.8)])
def test_a_recipe_that_was_edited_is_refused(emitted, key, value):
    folder, files = emitted
    (folder / "recipe.json").write_text(json.dumps({**json.loads(files["recipe.json"]), key: value}))
    with pytest.raises(StorageError, match="checksum differs"):
        load_summary(folder)


def test_a_summary_of_another_dataset_is_refused(emitted):
    summary, tokens, _ = load_summary(emitted[0])
    for wanted in (["[PAD]", "i1", "i2", "i3"], ["[PAD]", "i1", "i2", "i3", "other"], ["[PAD]", "i1", "i2", "i3", "i4", "i5"]):
        with pytest.raises(DataError, match="another catalogue"):
            align(summary, tokens, np.array(wanted))


def test_a_summary_says_where_it_came_from(emitted):
    recipe = read_json(emitted[0] / "recipe.json")
    assert {"summary_sha256", "items_sha256", "recipe_sha256", "source"} <= set(recipe)
