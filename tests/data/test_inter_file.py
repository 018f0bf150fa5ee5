"""What a user's broken ``.inter`` file is answered with."""

import pytest

from recbole_farzi.atomic import MISSING_WORDS
from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split
from recbole_farzi.errors import OptionError

from .loaded import GOOD, HEADER, histories, refused


def test_the_good_file_is_good(load_text):
    assert load_text(HEADER + "\n" + GOOD, topk=[5]).sequences.events == 30


def test_a_missing_dataset_says_where_it_was_looked_for(workplace, tiny_options):
    config, _ = build_config("SASRec", "nosuch", (), {**tiny_options, "data_path": "somewhere"})
    message = refused(load_split, config)
    assert message.startswith("there is no dataset nosuch: somewhere/nosuch/nosuch.inter does not exist")
    assert "--data_path" in message


@pytest.mark.parametrize(
    "line, why",
    [
        ("u9\ti9", "2 fields where the header has 3"),
        ("u9\ti9\t9\t9", "4 fields where the header has 3"),
        ("u9 i9 9", "1 fields where the header has 3"),
        ("\ti9\t9", "user_id is missing"),
        ("u9\t\t9", "item_id is missing"),
        ("u9\ti9\t", "timestamp is missing"),
        ("u9\ti9\tnan", "timestamp is 'nan', which is not a number"),
        ("u9\ti9\tinf", "timestamp is 'inf', which is not a number"),
        ("u9\ti9\t1e999", "timestamp is '1e999', which is not a number"),
        ("u9\ti9\tyesterday", "timestamp is 'yesterday', which is not a number"),
        ("u9\ti9\t2020-01-01", "timestamp is '2020-01-01', which is not a number"),
        ("u9\ti9\t1_000", "timestamp is '1_000', which is not a number"),
        ("u9\ti9\t٣", "timestamp is '٣', which is not a number"),
        ("NA\ti9\t9", "user_id is 'NA', which pandas reads as missing"),
        ("u9\tnull\t9", "item_id is 'null', which pandas reads as missing"),
        ("u9\tNone\t9", "item_id is 'None', which pandas reads as missing"),
        ('u9\t"i9\t9', "begins with a quotation mark"),
        ('u9\t"i"9\t9', "begins with a quotation mark"),
        ('u9\t"i"9"\t9', "begins with a quotation mark"),
        ('u9\t"\t9', "begins with a quotation mark"),
        ('""\ti9\t9', "user_id is missing"),
        ("u9\ti\0\t9", "holds a NUL"),
    ],
)
def test_a_broken_line_is_named(load_text, line, why):
    message = refused(load_text, f"{HEADER}\n{GOOD}{line}\nu0\ti1\t99\n")
    assert f"tiny.inter, line {GOOD.count(chr(10)) + 2}: " in message or f"tiny.inter, line {GOOD.count(chr(10)) + 2} " in message
    assert why in message


def test_words_that_pandas_takes_for_missing_are_all_known():
    parsers = pytest.importorskip("pandas._libs.parsers")
    assert MISSING_WORDS == parsers.STR_NA_VALUES


def test_quoted_names_are_read_without_their_quotation_marks(load_text):
    quoted = GOOD.replace("u1", '"u1"').replace("i3", '"i""3"').replace("i4", 'i"4')
    assert histories(load_text(f"{HEADER}\n{quoted}", topk=[5]))["u1"] == ["i0", "i1", "i2", 'i"3', 'i"4', "i5"]


@pytest.mark.parametrize(
    "header, why",
    [
        ("user_id:token\titem_id:token", "lacks column timestamp; it has user_id, item_id"),
        ("user:token\titem:token\ttimestamp:float", "lacks column item_id, user_id; it has user, item, timestamp"),
        ("user_id:token\titem_id:token\ttimestamp:number", "line 1: column 'timestamp' has type 'number'"),
        ("user_id\titem_id\ttimestamp", "line 1: column 'user_id' has type ''"),
        ("user_id:token\titem_id:token\ttimestamp:token", "timestamp has type token; it must be float"),
        ("user_id:float\titem_id:token\ttimestamp:float", "user_id has type float; it must be token"),
        ("user_id:token\titem_id:token_seq\ttimestamp:float", "item_id has type token_seq; it must be token"),
        ("user_id:token\titem_id:token\ttimestamp:float\tuser_id:token", "line 1: two columns have the same name"),
        ("u1\ti1\t5", "line 1: column 'u1' has type ''"),
    ],
)
def test_a_broken_header_is_named(load_text, header, why):
    width = header.count("\t")
    body = "".join("\t".join((line + "\t7\t7").split("\t")[: width + 1]) + "\n" for line in GOOD.splitlines())
    assert why in refused(load_text, f"{header}\n{body}")


@pytest.mark.parametrize("content", [HEADER, HEADER + "\n", HEADER + "\n\n\n"])
def test_a_file_without_events_is_refused(load_text, content):
    assert "tiny.inter holds no events" in refused(load_text, content)


def test_an_empty_file_is_refused(load_text):
    assert "tiny.inter" in refused(load_text, "")


@pytest.mark.parametrize(
    "content, encoding",
    [(f"{HEADER}\nü\ti\t1\n".encode("latin-1"), None), (f"{HEADER}\n{GOOD}".encode("utf-16"), None), (GOOD.encode(), "nosuch")],
)
def test_another_encoding_is_refused(load_text, content, encoding):
    message = refused(load_text, content, **({"encoding": encoding} if encoding else {}))
    assert "tiny.inter is not text in encoding" in message and "set option encoding" in message


def test_a_byte_order_mark_is_named(load_text):
    assert "byte order mark" in refused(load_text, f"\ufeff{HEADER}\n{GOOD}")


def test_a_folder_in_place_of_the_file_is_refused(workplace, tiny_options):
    (workplace / "tiny" / "tiny.inter").mkdir(parents=True)
    config, _ = build_config("SASRec", "tiny", (), {**tiny_options, "data_path": "."})
    assert "there is no dataset tiny" in refused(load_split, config)


@pytest.mark.parametrize(
    "option, value",
    [("USER_ID_FIELD", 5), ("ITEM_ID_FIELD", ""), ("TIME_FIELD", None), ("field_separator", ""), ("encoding", 5),
     ("encoding", "")],
)  # fmt: skip
def test_names_of_columns_that_are_no_names_are_refused(load, tiny_events, option, value):
    with pytest.raises(OptionError, match=f"option {option}={value!r} must be a text"):
        load(tiny_events, **{option: value})
