"""``.inter`` files of every kind of wrong: a right result, or one line of the plugin's own; never anything else."""

import copy

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split
from recbole_farzi.data.inter_file import check_inter_file
from recbole_farzi.errors import FarziError

from .counting import outcomes

HEADER = b"user_id:token\titem_id:token\ttimestamp:float\n"


@pytest.fixture
def load(workplace, tiny_options):
    """Function from the bytes of a file (or from what writes it) to the loaded split, or the plugin's error; anything else is the test's failure."""
    folder = workplace / "data" / "tiny"
    folder.mkdir(parents=True)
    config, _ = build_config("SASRec", "tiny", (), {**tiny_options, "data_path": str(folder.parent), "topk": [1]})

    def run(content, only_check=False):
        path = folder / "tiny.inter"
        content(path) if callable(content) else path.write_bytes(content)
        try:
            return (check_inter_file if only_check else load_split)(copy.deepcopy(config))
        except FarziError as error:
            message = str(error)
            assert message and "\n" not in message and len(message) < 2000, message
            return error

    return run


def histories(split):
    dataset = split.train.dataset
    users, items = dataset.field2id_token[dataset.uid_field], dataset.field2id_token[dataset.iid_field]
    return {str(users[user]): [str(items[i]) for i in history] for user, history in zip(split.sequences.users, split.sequences.items)}


def by_hand(content):
    """The users' training histories, read from the bytes without pandas and RecBole: in the order of 32-bit times, ties as in
    the file; the last two events are held out (one of 3, none of fewer than 3)."""
    users = {}
    lines = content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for line in lines[1:]:
        if line.strip("\n"):
            user, item, time = (part[1:-1].replace('""', '"') if part[:1] == '"' else part for part in line.split("\t"))
            users.setdefault(user, []).append((np.float32(float(time)), item))
    out = {}
    for user, events in users.items():
        items = [item for _, item in sorted(events, key=lambda event: event[0])]
        held_out = min(2, max(0, len(items) - 2))
        if len(items) - held_out > 1:
            out[user] = items[: len(items) - held_out]
    return out


def judge(result, content, counts):
    if isinstance(result, Exception):
        counts["one clear error"] += 1
        return
    assert histories(result) == by_hand(content)
    assert np.isfinite(result.counts).all()
    counts["right result"] += 1


# --- files that are well formed, of any content -----------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\0\"", exclude_categories=["Cs"]), min_size=1, max_size=8)
ids = st.one_of(st.integers(-(2**70), 2**70).map(str), st.sampled_from(["a", "b", "c", "-1", "0", "00", "1.0", "1e5", "nan", "NA"]), names)
times = st.one_of(
    st.integers(0, 50).map(str), st.integers(-(2**63), 2**64).map(str), st.floats(width=32).map(repr),
    st.sampled_from(["1e400", "-0.0", "1e-320", " 5", "5 ", "0x10", "1_0", "+3", "٣", "", "True", "1,5", "1e"]),
)  # fmt: skip
plain = st.tuples(st.sampled_from(["u1", "u2", "u3"]), st.sampled_from(["i1", "i2", "i3", "i4"]), st.integers(0, 9).map(str))
odd = st.tuples(ids, ids, times)


@given(events=st.lists(st.one_of(plain, plain, plain, odd), min_size=0, max_size=40), newline=st.sampled_from(["\n", "\r\n"]))
@example(events=[], newline="\n")
@example(events=[("u1", "i1", "1")] * 6, newline="\n")  # one user, one item, one time
@example(events=[("u1", f"i{i}", "1") for i in range(5)], newline="\r\n")  # one user
@example(events=[(f"u{i}", "i1", "1") for i in range(5)], newline="\n")  # one item, nobody with two events
def _any_content(load, counts, events, newline):
    content = HEADER.replace(b"\n", newline.encode()) + "".join("\t".join(event) + newline for event in events).encode("utf-8")
    judge(load(content), content, counts)


def test_files_of_any_content(load):
    with outcomes("atomic files of any content") as counts:
        _any_content(load, counts)
    assert counts["right result"] and counts["one clear error"]


# --- a good file, broken in any way -----------------------------------------------------------------------------------

GOOD = HEADER + b"".join(b"u%d\ti%d\t%d\n" % (u, (3 * u + i) % 7, 10 * i) for u in range(4) for i in range(6))

SNIPPETS = [
    b"\0", b"\t", b"\t\t", b"\n", b"\r", b"\r\n", b"\n\n", b"\"", b"\"\"", b"'", b"\\", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3", b"\xe2\x80\xa8",
    b"\x1a", b"\x85", b"\xc2\x85", b"nan", b"NaN", b"inf", b"-1", b"9" * 40, b"9" * 400, b"1e309", b"NULL", b"#", b",", b" ", b":token", b"\x0b",
    b"\x0c", b"u1\ti1\t1\n", b"user_id:token\t", b"x" * 5000,
]  # fmt: skip


@st.composite
def broken(draw):
    content = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["insert", "delete", "flip", "truncate", "repeat", "swap"]))
        if kind == "insert":
            content[at:at] = draw(st.sampled_from(SNIPPETS))
        elif kind == "delete":
            del content[at : at + draw(st.integers(1, 30))]
        elif kind == "flip" and content:
            content[min(at, len(content) - 1)] = draw(st.integers(0, 255))
        elif kind == "truncate":
            del content[at:]
        elif kind == "repeat":
            content[at:at] = content[at : at + 40]
        else:
            lines = bytes(content).split(b"\n")
            one, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
            lines[one], lines[other] = lines[other], lines[one]
            content = bytearray(b"\n".join(lines))
    return bytes(content)


@given(content=broken())
@example(content=b"")
@example(content=HEADER)
@example(content=HEADER.rstrip())
@example(content=b"\n" * 50)
@example(content=b"\xef\xbb\xbf" + GOOD)
@example(content=GOOD.replace(b"\n", b"\r"))
@example(content=GOOD.replace(b"u1", b'"u1"'))
@example(content=GOOD.replace(b"u1", b'"u1'))
@example(content=GOOD[:-1])
@example(content=GOOD[:-3])
@example(content=GOOD.decode().encode("utf-16"))
def _broken(load, counts, content):
    judge(load(content), content, counts)


def test_a_good_file_broken_in_any_way(load):
    assert histories(load(GOOD)) == by_hand(GOOD)
    with outcomes("atomic files broken in any way") as counts:
        _broken(load, counts)
    assert counts["right result"] and counts["one clear error"]


LONG = b"x" * 5000


@given(content=st.one_of(broken(), st.binary(max_size=300), st.binary(max_size=100).map(lambda tail: HEADER + tail)))
@example(content=GOOD.replace(b"\t10\n", b"\t" + LONG + b"\n", 1))  # messages quote the beginning of what is long
@example(content=GOOD.replace(b"user_id", LONG, 1))
@example(content=GOOD.replace(b"user_id:token", b"user_id:" + LONG, 1))
@example(content=GOOD.replace(b"u1", b'"' + LONG, 1))
def _checked(load, counts, content):
    counts["one clear error" if isinstance(load(content, only_check=True), Exception) else "passed the check"] += 1


def test_the_check_of_files_never_fails_otherwise(load):
    with outcomes("the check of atomic files, any bytes") as counts:
        _checked(load, counts)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [b"", HEADER, HEADER + b"u1\ti1\t1\nu1\t"])
def test_a_line_of_a_gigabyte_is_refused_without_reading_it(load, workplace, head):
    """A file with a hole: a gigabyte of NUL bytes that take no room on the disk."""

    def fill(path):
        with open(path, "wb") as file:
            file.write(head)
            file.truncate(2**30)

    assert "is longer than" in str(load(fill, only_check=True))
