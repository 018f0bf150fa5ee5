"""The histories that are distilled are those of the file."""

import pytest

from .loaded import HEADER, by_user, histories, refused, targets


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
