"""Rows of events as RecBole's data loaders give them."""

import random
from types import SimpleNamespace

import numpy as np
import torch

from recbole_farzi.interactions import cut_rows, interaction, prefix_rows, replayable, sequence_rows

IDS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 2, 0, 0]])
MODEL = SimpleNamespace(
    ITEM_SEQ="seq", ITEM_SEQ_LEN="length", USER_ID="user", POS_ITEM_ID="item", NEG_ITEM_ID="neg_item",
    LABEL_FIELD="label", NEG_ITEM_SEQ="neg_seq",
)  # fmt: skip


def test_rows_are_the_last_events_before_their_ends():
    events, lengths = cut_rows(IDS, torch.tensor([0, 0, 1]), torch.tensor([2, 5, 3]), 4)
    assert events.tolist() == [[3, 4, 0, 0], [4, 5, 6, 7], [8, 9, 2, 0]]
    assert lengths.tolist() == [2, 4, 3]


def test_every_event_but_the_first_is_a_target_once():
    events, lengths, targets, rows = prefix_rows(IDS, 3)
    assert events.tolist() == [[3, 0, 0], [3, 4, 0], [3, 4, 5], [4, 5, 6], [8, 0, 0], [8, 9, 0]]
    assert (lengths.tolist(), targets.tolist()) == ([1, 2, 3, 3, 1, 2], [4, 5, 6, 7, 9, 2])
    assert rows.tolist() == [0, 0, 0, 0, 1, 1]


def test_the_last_events_alone():
    events, lengths, targets, rows = prefix_rows(torch.cat([IDS, torch.tensor([[5, 0, 0, 0, 0]])]), 4, last_only=True)
    assert (events.tolist(), targets.tolist(), rows.tolist()) == ([[3, 4, 5, 6], [8, 9, 0, 0]], [7, 2], [0, 1])


def test_whole_sequences_come_with_beginnings_of_them():
    events, lengths, targets, rows = sequence_rows(IDS, 4)
    assert events[:2].tolist() == [[4, 5, 6, 7], [8, 9, 2, 0]]
    for row, length, target, number in zip(events, lengths, targets, rows):
        kept = row[row > 0]
        assert len(kept) == length >= 2 and kept[-1] == target
        text = " ".join(map(str, IDS[number].tolist()))
        assert " ".join(map(str, kept.tolist())) in text
    events, *_ = sequence_rows(IDS, 4, last_only=True)
    assert events.tolist() == [[4, 5, 6, 7], [8, 9, 2, 0]]


def make(reads, **changed):
    events, lengths, targets, _ = prefix_rows(IDS, 4)
    return interaction(MODEL, events, lengths, torch.ones_like(lengths), targets, 10, reads, **changed)


def test_only_what_is_read_is_there():
    assert set(make(())) == {"seq", "length", "user", "item"}
    assert set(make(None)) == {"seq", "length", "user", "item", "neg_item", "label", "neg_seq"}


def test_negatives_are_real_items_and_replayed():
    torch.manual_seed(3)
    one = make({"neg_item"})["neg_item"]
    torch.manual_seed(3)
    assert torch.equal(one, make({"neg_item"})["neg_item"])
    many = torch.cat([make({"neg_item"})["neg_item"] for _ in range(100)])
    assert set(many.tolist()) == set(range(1, 10))


def test_a_pointwise_model_gets_each_row_with_its_target_and_with_a_negative():
    rows = make({"label", "neg_seq"})
    half = len(rows) // 2
    assert rows["label"].tolist() == [1.0] * half + [0.0] * half
    assert torch.equal(rows["seq"][:half], rows["seq"][half:])
    assert rows["item"][:half].tolist() == [4, 5, 6, 7, 9, 2]
    assert torch.equal(rows["neg_seq"] > 0, rows["seq"] > 0)


def test_a_transform_is_recboles():
    def mask(dataset, rows):
        rows["masked"] = rows["seq"] + dataset.num("item")
        return rows

    assert torch.equal(make((), transform=mask)["masked"], make(())["seq"] + 10)


def test_what_a_model_writes_into_its_rows_does_not_come_back():
    events, lengths, targets, _ = prefix_rows(IDS, 4)
    rows = interaction(MODEL, events, lengths, torch.ones_like(lengths), targets, 10, ())
    rows["length"][:] = 1
    assert lengths.tolist() == [1, 2, 3, 4, 1, 2]


def test_pythons_and_numpys_random_numbers_follow_pytorchs():
    def draw():
        with replayable():
            return random.random(), random.randint(1, 1000), np.random.rand()

    before = random.getstate(), np.random.get_state()[1].tolist()
    torch.manual_seed(1)
    first, second = draw(), draw()
    torch.manual_seed(1)
    assert draw() == first != second
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert random.randint.__self__ is random._inst


def test_how_often_negatives_are_drawn_does_not_move_other_draws():
    def draw(times):
        torch.manual_seed(1)
        with replayable():
            for _ in range(times):
                random.randint(1, 5)
            return random.random()

    assert draw(1) == draw(7)
