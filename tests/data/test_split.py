"""Loading and splitting: what is left alone, and what is refused when nothing is left to do."""

from pathlib import Path

import pytest

from recbole_farzi.data import load_split
from recbole_farzi.errors import OptionError

from .loaded import histories, refused


def test_loading_leaves_the_config_as_it_is_and_pickles_nothing(make_config):
    config, _ = make_config(save_dataset=True, save_dataloaders=True)
    before = dict(config.final_config_dict)
    load_split(config)
    assert config.final_config_dict == before
    assert not Path(config["checkpoint_dir"]).exists()


def test_rankings_longer_than_the_catalogue_are_refused(load, tiny_events):
    load(tiny_events, topk=[30])
    with pytest.raises(OptionError, match=r"topk=\[5, 31\] asks for more items than dataset tiny has \(30\)"):
        load(tiny_events, topk=[5, 31])


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
