"""Shares of events and bytes, and full rank, as plain options."""

import pytest

from recbole_farzi.errors import DataError, OptionError
from recbole_farzi.studies.quantities import Facts, resolve

FACTS = Facts(events=98_114, vocabulary=1_683, maximum=50)
DEFAULTS = {
    "farzi_length": None, "farzi_bits": 16, "farzi_latent_dim": 16, "farzi_sequences": 50, "farzi_inner_batch_size": 10,
    "farzi_inner_steps": 100, "farzi_window": 40,
}  # fmt: skip


def resolved(**options):
    return resolve(options, DEFAULTS.get, FACTS)


def test_a_share_of_the_events():
    assert resolved(events_share=0.026) == {"farzi_sequences": 50}
    assert resolved(events_share=0.0005) == {"farzi_sequences": 1, "farzi_inner_batch_size": 1}


@pytest.mark.parametrize("rank", [2, 16, 32])
def test_a_share_of_the_bytes_is_filled_and_not_more(rank):
    sequences = resolved(bytes_share=0.35, farzi_latent_dim=rank)["farzi_sequences"]

    def size(count):
        return 2 * (rank * (count * 51 + 1683) + 1683)

    assert size(sequences) <= 0.35 * 98_114 * 4 < size(sequences + 1)


def test_full_rank_in_bytes_counts_the_rank_that_its_events_allow():
    out = resolved(bytes_share=0.5, farzi_latent_dim="full")
    assert out["farzi_sequences"] == 1 and out["farzi_latent_dim"] == 51


def test_a_decoder_that_takes_all_bytes_is_said_to():
    with pytest.raises(DataError, match="rank 64 does not fit"):
        resolved(bytes_share=0.35, farzi_latent_dim=64)


def test_full_rank_and_what_is_lowered_to_fit():
    assert resolved(farzi_latent_dim="full")["farzi_latent_dim"] == 1682
    assert resolved(farzi_latent_dim="full", farzi_sequences=3)["farzi_latent_dim"] == 153
    assert resolved(farzi_inner_steps=25)["farzi_window"] == 25


@pytest.mark.parametrize("share", [0, -1, "a", True])
def test_senseless_shares(share):
    with pytest.raises(OptionError, match="events_share"):
        resolved(events_share=share)
