"""The published forms of interactions, by lines as their authors print them."""

import gzip
import json

import pytest

from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split
from recbole_farzi.data.convert import main
from recbole_farzi.data.interactions import read_amazon, read_movielens_1m, read_table
from recbole_farzi.errors import DataError


@pytest.fixture
def written(tmp_path):
    def write(name, text, encoding="utf-8"):
        data = text.encode(encoding)
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return tmp_path / name

    return write


REVIEW = {"reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "overall": 5.0, "unixReviewTime": 1252800000, "reviewText": "é"}
NEWER = {"user_id": "AGKH", "asin": "B00YQ6X8EO", "parent_asin": "B00PARENT", "rating": 5.0, "timestamp": 1588687728923}


@pytest.mark.parametrize(
    "year, name, text, expected",
    [
        ("2014", "r.csv", "A3AF,0000031887,5.0,1383523200\n", ("A3AF", "0000031887", 1383523200.0)),
        ("2018", "r.csv", "0000031887,A3AF,5.0,1383523200\r\n", ("A3AF", "0000031887", 1383523200.0)),
        ("2023", "r.csv", "user_id,parent_asin,rating,timestamp\nAG,B0,5.0,1588687728923\n", ("AG", "B0", 1588687728.923)),
        ("2014", "r.json", json.dumps(REVIEW) + "\n", ("A2SUAM1J3GNN3B", "0000013714", 1252800000.0)),
        ("2018", "r.json.gz", json.dumps(REVIEW) + "\n", ("A2SUAM1J3GNN3B", "0000013714", 1252800000.0)),
        ("2023", "r.jsonl.gz", json.dumps(NEWER) + "\n", ("AGKH", "B00PARENT", 1588687728.923)),
        ("2014", "r.csv.gz", "\nA3AF,0000031887,5.0,1383523200\n\n", ("A3AF", "0000031887", 1383523200.0)),
    ],
)
def test_amazon_reviews_of_each_release(written, year, name, text, expected):
    assert list(read_amazon(written(name, text), year)) == [expected]


def test_movielens_1m(written):
    path = written("ratings.dat", "1::1193::5::978300760\n1::661::3::978302109\n")
    assert list(read_movielens_1m(path)) == [("1", "1193", 978300760.0), ("1", "661", 978302109.0)]


@pytest.mark.parametrize(
    "text, options",
    [("u i 5\nv i 6.5\n", {}), ("u\ti\t5\tmore\n\nv\ti\t6.5\n", {}),
     ("who,what,when\nu,i,5\nv,i,6.5\n", {"separator": ",", "header": True})],
)  # fmt: skip
def test_plain_tables(written, text, options):
    assert list(read_table(written("t.txt", text), **options)) == [("u", "i", 5.0), ("v", "i", 6.5)]


@pytest.mark.parametrize(
    "reader, name, text, why",
    [
        (read_movielens_1m, "r.dat", "1::2::3::4\n1:2:3:4\n", "line 2: not of the form"),
        (lambda path: read_amazon(path, "2014"), "r.csv", "a,b,c\n", "line 1: 3 fields where the ratings of 2014 have 4"),
        (lambda path: read_amazon(path, "2018"), "r.json", "{}\n", "line 1 lacks one of reviewerID, asin"),
        (lambda path: read_amazon(path, "2018"), "r.json", "[1]\n", "line 1 lacks one of"),
        (lambda path: read_amazon(path, "2018"), "r.json", "{\n", "line 1 is not a JSON object"),
        (lambda path: read_amazon(path, "2018"), "r.json.gz", "", None),
        (read_table, "t.txt", "u i\n", "line 1: 2 fields where user, item and time are needed"),
        (read_table, "t.txt", "u i 1\nu i soon\n", "line 2: time 'soon' is not a number"),
        (read_table, "t.txt", "u i inf\n", "time 'inf' is not a number"),
        (read_table, "t.txt", "u null 5\n", "item 'null' cannot stand in an atomic file"),
        (lambda path: read_table(path, ","), "t.txt", "a b,i,5\n", "user 'a b' cannot stand"),
        (lambda path: read_table(path, ","), "t.txt", '"a,i,5\n', "begins with a quotation mark"),
    ],
)
def test_broken_lines_are_named(written, reader, name, text, why):
    path = written(name, text)
    if why is None:
        assert list(reader(path)) == []
        return
    with pytest.raises(DataError, match=why) as caught:
        list(reader(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_text_or_not_there(written, tmp_path):
    for reader, path in [
        (read_table, tmp_path / "absent"),
        (read_table, tmp_path),
        (lambda path: read_amazon(path, "2014"), written("plain.json.gz", "")),
    ]:
        if path.suffix == ".gz":
            path.write_bytes(b"this is not gzip")
        with pytest.raises(DataError, match="cannot read"):
            list(reader(path))
    (tmp_path / "latin").write_bytes("é i 5".encode("latin-1"))
    with pytest.raises(DataError, match="is not text in encoding utf-8"):
        list(read_table(tmp_path / "latin"))


def test_a_converted_dataset_is_one_that_recbole_splits(workplace, tiny_events, tiny_options, capsys):
    """Events come in the order of time, so that times that are one in 32 bits stay in order."""
    lines = [f"{user},{item},5.0,{1_600_000_000 + time}" for user, item, time in tiny_events]
    (workplace / "Tiny.csv").write_text("\n".join(lines), encoding="utf-8")
    assert main(["amazon", "Tiny.csv", "--year", "2014", "--output", "datasets"]) == 0
    assert f"events {len(tiny_events)}; users 40; items 30" in capsys.readouterr().out
    split = load_split(build_config("SASRec", "Tiny", (), {**tiny_options, "data_path": "datasets"})[0])
    dataset = split.train.dataset
    names = dataset.field2id_token["item_id"]
    users = dataset.field2id_token["user_id"][split.sequences.users]
    found = {user: [names[i] for i in items] for user, items in zip(users, split.sequences.items)}
    for user, items in found.items():
        mine = sorted((event for event in tiny_events if event[0] == user), key=lambda event: event[2])
        assert items == [item for _, item, _ in mine[:-2]]


def test_nothing_to_convert(written, tmp_path, capsys):
    path = written("empty.txt", "\n\n")
    assert main(["table", str(path), "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "convert: there is no event to convert\n"
