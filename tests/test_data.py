"""Loading: what a user's broken file is answered with, and that histories are those of the file."""

from pathlib import Path

import numpy as np
import pytest

from recbole_farzi.atomic import MISSING_WORDS
from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split, rows_checksum
from recbole_farzi.errors import DataError, OptionError

HEADER = "user_id:token\titem_id:token\ttimestamp:float"


@pytest.fixture
def load(workplace, write_inter, tiny_options):
    """Function from events to the split of a dataset that holds them."""

    def run(events, header=HEADER, **overrides):
        path = write_inter(events, header=header)
        return load_split(build_config("SASRec", "tiny", (), {**tiny_options, "data_path": str(path), **overrides})[0])

    return run


@pytest.fixture
def load_text(workplace, tiny_options):
    """The same from the text (or bytes) of the ``.inter`` file."""

    def run(content, **overrides):
        folder = workplace / "tiny"
        folder.mkdir(exist_ok=True)
        content = content if isinstance(content, bytes) else content.encode()
        (folder / "tiny.inter").write_bytes(content)
        return load_split(build_config("SASRec", "tiny", (), {**tiny_options, "data_path": str(workplace), **overrides})[0])

    return run


def refused(load, *args, **kwargs):
    with pytest.raises(DataError) as caught:
        load(*args, **kwargs)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def by_user(events):
    """Each user's items in the order of time, straight from the events; RecBole sorts times as 32-bit numbers."""
    order = sorted(range(len(events)), key=lambda i: np.float32(events[i][2]))  # stable
    users = {}
    for i in order:
        users.setdefault(events[i][0], []).append(events[i][1])
    return users


def tokens(split, number):
    dataset = split.train.dataset
    items = split.sequences.items[number]
    user = dataset.id2token(dataset.uid_field, split.sequences.users[number])
    return str(user), [str(token) for token in dataset.id2token(dataset.iid_field, items)]


def histories(split):
    found = dict(tokens(split, number) for number in range(len(split.sequences)))
    assert len(found) == len(split.sequences)  # one history a user
    return found


def targets(loader):
    dataset = loader.dataset
    rows = dataset.inter_feat
    users = dataset.id2token(dataset.uid_field, rows[dataset.uid_field].numpy())
    return dict(zip(map(str, users), map(str, dataset.id2token(dataset.iid_field, rows[dataset.iid_field].numpy()))))


# --- histories --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maximum", [2, 3, 10, 50])
def test_histories_are_those_of_the_file_without_the_last_two_events(load, tiny_events, maximum):
    split = load(tiny_events, MAX_ITEM_LIST_LENGTH=maximum)
    expected = by_user(tiny_events)
    assert histories(split) == {user: items[:-2] for user, items in expected.items()}
    assert targets(split.valid) == {user: items[-2] for user, items in expected.items()}
    assert targets(split.test) == {user: items[-1] for user, items in expected.items()}
    assert split.sequences.length == maximum
    assert split.sequences.events == len(tiny_events) - 2 * len(expected)


def test_counts_are_those_of_training(load, tiny_events):
    split = load(tiny_events)
    names = split.train.dataset.field2id_token["item_id"]
    training = [item for items in by_user(tiny_events).values() for item in items[:-2]]
    assert {name: int(n) for name, n in zip(names[1:], split.counts[1:])} == {name: training.count(name) for name in names[1:]}
    assert split.counts[0] == 0 and split.vocabulary == len(names) == 31


@pytest.mark.parametrize("repeats", [2, 15, 40])
def test_a_history_of_one_item_over_and_over_is_whole(load, tiny_events, repeats):
    """Prefixes of such a history look alike; none may be lost or begin a history of its own."""
    same = [("same", "i1", 1000 + i) for i in range(repeats + 2)]
    assert histories(load(tiny_events + same))["same"] == ["i1"] * repeats


def test_users_of_few_events(load, tiny_events):
    """RecBole holds out as many events as leave a row to train on: two of 4 and more, one of 3, none of 2."""
    few = [(f"few{n}", f"i{i}", 10 * i) for n in (1, 2, 3, 4, 5) for i in range(n)]
    split = load(tiny_events + few)
    found = {user: items for user, items in histories(split).items() if user.startswith("few")}
    assert found == {"few2": ["i0", "i1"], "few3": ["i0", "i1"], "few4": ["i0", "i1"], "few5": ["i0", "i1", "i2"]}
    valid, test = (
        {user: item for user, item in targets(part).items() if user.startswith("few")} for part in (split.valid, split.test)
    )
    assert test == {"few3": "i2", "few4": "i3", "few5": "i4"} and valid == {"few4": "i2", "few5": "i3"}


def test_ties_in_time_keep_the_order_of_the_file(load, tiny_events):
    tied = [("tied", f"i{i}", 500) for i in (4, 2, 9, 0, 7)]
    assert histories(load(tied + tiny_events))["tied"] == ["i4", "i2", "i9"]


def test_times_are_32_bit_numbers_in_recbole(load, tiny_events):
    """Two events less than 64 seconds apart in 2004 are a tie: RecBole's limit, and the reference in these tests knows it."""
    close = [("close", f"i{i}", 1_100_000_000 + t) for i, t in [(1, 30), (2, 0), (3, 1000), (4, 2000), (5, 3000)]]
    assert histories(load(close + tiny_events))["close"] == by_user(close)["close"][:-2] == ["i1", "i2", "i3"]


@pytest.mark.parametrize("group_by", ["user", "none"])
def test_a_split_by_ratio_in_time(load, tiny_events, group_by):
    """Split for each user, or for all at one time, when rows of users are mixed: each training row is a target once."""
    split = load(tiny_events, eval_args={"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": group_by})
    found, expected = histories(split), by_user(tiny_events)
    assert all(items == expected[user][: len(items)] for user, items in found.items())
    assert sum(len(items) - 1 for items in found.values()) == len(split.train.dataset)


@pytest.mark.parametrize("order", ["RO", None])
def test_a_split_that_is_not_in_time_is_refused(load, tiny_events, order):
    args = {"split": {"RS": [0.8, 0.1, 0.1]}, **({"order": order} if order else {})}
    assert "ordering args for sequential recommendation has to be 'TO'" in refused(load, tiny_events, eval_args=args)


def test_a_user_filter_is_recboles(load, tiny_events):
    found = histories(load(tiny_events, user_inter_num_interval="[15,inf)"))
    assert found == {user: items[:-2] for user, items in by_user(tiny_events).items() if len(items) >= 15}


def test_columns_may_have_other_names_places_and_company(load, tiny_events):
    rows = [(time, "x y", item, user) for user, item, time in tiny_events]
    split = load(
        rows,
        header="when:float\tnote:token_seq\tproduct:token\tvisitor:token",
        USER_ID_FIELD="visitor",
        ITEM_ID_FIELD="product",
        TIME_FIELD="when",
        load_col={"inter": ["visitor", "product", "when"]},
    )
    assert histories(split) == {user: items[:-2] for user, items in by_user(tiny_events).items()}


def test_other_separators_and_encodings(load_text, tiny_events):
    text = "\n".join([HEADER, *("\t".join(map(str, event)) for event in tiny_events)]).replace("\t", ",").replace("i1", "é1")
    split = load_text(text.encode("latin-1"), field_separator=",", encoding="latin-1")
    renamed = [(user, item.replace("i1", "é1"), time) for user, item, time in tiny_events]
    assert histories(split) == {user: items[:-2] for user, items in by_user(renamed).items()}


@pytest.mark.parametrize("newline, end", [("\r\n", "\r\n"), ("\n", ""), ("\n", "\n\n\n"), ("\n\n", "\n")])
def test_line_ends_of_other_systems_and_empty_lines(load_text, tiny_events, newline, end):
    lines = [HEADER, *("\t".join(map(str, event)) for event in tiny_events)]
    split = load_text(newline.join(lines) + end)
    assert histories(split) == {user: items[:-2] for user, items in by_user(tiny_events).items()}


def test_loading_leaves_the_config_as_it_is_and_pickles_nothing(make_config):
    config, _ = make_config(save_dataset=True, save_dataloaders=True)
    before = dict(config.final_config_dict)
    load_split(config)
    assert config.final_config_dict == before
    assert not Path(config["checkpoint_dir"]).exists()


# --- the checksum -----------------------------------------------------------------------------------------------------


def change(events, user, position, item):
    """The events with the item of a user's event at a position (in time) replaced."""
    mine = sorted((i for i, event in enumerate(events) if event[0] == user), key=lambda i: events[i][2])
    changed = list(events)
    old = changed[mine[position]]
    assert old[1] != item
    changed[mine[position]] = (old[0], item, old[2])
    return changed


@pytest.fixture
def named_first(tiny_events):
    """The events after a user who names every item once, so that item ids do not depend on anybody else's events."""
    return [("first", f"i{i}", i) for i in range(30)] + tiny_events


def test_the_checksum_is_that_of_the_training_events(load, named_first):
    assert load(named_first).checksum == load(list(named_first)).checksum
    moved = [(user, item, time + 1000) for user, item, time in named_first]
    assert load(moved).checksum == load(named_first).checksum  # another time, the same order


@pytest.mark.parametrize("position", [0, 1, -3])
def test_the_checksum_changes_with_any_training_event(load, named_first, position):
    old = by_user(named_first)["u7"][position]
    other = change(named_first, "u7", position, "i3" if old != "i3" else "i4")
    assert load(other).checksum != load(named_first).checksum


@pytest.mark.parametrize("position", [-1, -2])
def test_the_checksum_does_not_change_with_the_held_out_events(load, named_first, position):
    old = by_user(named_first)["u7"][position]
    other = change(named_first, "u7", position, "i3" if old != "i3" else "i4")
    assert load(other).checksum == load(named_first).checksum


def test_the_checksum_knows_names(load, named_first):
    renamed = [(user, "other" if item == "i5" else item, time) for user, item, time in named_first]
    assert load(renamed).checksum != load(named_first).checksum
    renamed = [("other" if user == "u5" else user, item, time) for user, item, time in named_first]
    assert load(renamed).checksum != load(named_first).checksum


def test_results_of_other_held_out_events_are_told_apart(load, named_first):
    """The training checksum cannot: stored results on validation and test depend on these rows too."""
    old = by_user(named_first)["u7"][-1]
    one, same, other = load(named_first), load(named_first), load(change(named_first, "u7", -1, "i3" if old != "i3" else "i4"))
    assert rows_checksum(one.test) == rows_checksum(same.test) != rows_checksum(other.test)
    assert rows_checksum(one.valid) == rows_checksum(other.valid) != rows_checksum(one.test)
    assert rows_checksum(None) is None


# --- what is wrong with a file ----------------------------------------------------------------------------------------

GOOD = "\n".join(f"u{u}\ti{i}\t{i}" for u in range(5) for i in range(8)) + "\n"


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


def test_rankings_longer_than_the_catalogue_are_refused(load, tiny_events):
    load(tiny_events, topk=[30])
    with pytest.raises(OptionError, match=r"topk=\[5, 31\] asks for more items than dataset tiny has \(30\)"):
        load(tiny_events, topk=[5, 31])


# --- nothing left to do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [1, 2, 3])
def test_users_that_are_all_too_short_are_refused(load, events):
    message = refused(load, [(f"u{u}", f"i{i}", i) for u in range(9) for i in range(events)])
    assert "tiny" in message and "leave-one-out needs users with at least 4 events" in message


def test_a_filter_that_leaves_nothing_is_refused(load, tiny_events):
    message = refused(load, tiny_events, user_inter_num_interval="[1000,inf)")
    assert "tiny" in message


def test_columns_that_are_not_read_are_refused(load, tiny_events):
    assert "timestamp" in refused(load, tiny_events, load_col={"inter": ["user_id", "item_id"]})


def test_one_user_and_one_item_are_enough_to_load(load):
    split = load([("u", "i", t) for t in range(6)], topk=[1])
    assert histories(split) == {"u": ["i"] * 4} and split.vocabulary == 2
