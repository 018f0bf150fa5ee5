"""Shares of events and bytes, and full rank, as plain options."""

from dataclasses import replace

import pytest
import torch

from recbole_farzi.errors import DataError, OptionError
from recbole_farzi.studies.quantities import Facts, resolve, steps_in_time
from recbole_farzi.summary import Summary

FACTS = Facts(events=98_114, vocabulary=1_683, maximum=50)
DEFAULTS = {
    "farzi_length": None, "farzi_bits": 16, "farzi_latent_dim": 16, "farzi_sequences": 50, "farzi_inner_batch_size": 10,
    "farzi_inner_steps": 100, "farzi_window": 40, "farzi_inputs": "soft",
}  # fmt: skip


def resolved(**options):
    return resolve(options, DEFAULTS.get, FACTS)


def test_a_share_of_the_events():
    assert resolved(events_share=0.026) == {"farzi_sequences": 50}
    assert resolved(events_share=0.0005) == {"farzi_sequences": 1, "farzi_inner_batch_size": 1}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("inputs", ["soft", "generated"])
@pytest.mark.parametrize("rank", [2, 16, 32])
def test_a_share_of_the_bytes_is_filled_and_not_more(rank, inputs, bits):
    sequences = resolved(bytes_share=0.7, farzi_latent_dim=rank, farzi_inputs=inputs, farzi_bits=bits)["farzi_sequences"]

    def size(count):
        summary = Summary(torch.rand(count, 51, rank), torch.rand(rank, 1683), torch.rand(1683), 1.0).rounded(bits)
        items = torch.ones(count, 51, dtype=torch.long)
        return (summary if inputs == "soft" else replace(summary, inputs=items)).nbytes

    assert size(sequences) <= 0.7 * 98_114 * 2 < size(sequences + 1)


def test_full_rank_in_bytes_counts_the_rank_that_its_events_allow():
    out = resolved(bytes_share=1.0, farzi_latent_dim="full")
    assert out["farzi_sequences"] == 1 and out["farzi_latent_dim"] == 51


def test_a_decoder_that_takes_all_bytes_is_said_to():
    with pytest.raises(DataError, match="rank 64 does not fit"):
        resolved(bytes_share=0.35, farzi_latent_dim=64)


def test_a_share_of_bytes_wants_a_rank():
    with pytest.raises(OptionError, match="wants a farzi_latent_dim"):
        resolved(bytes_share=1.0, farzi_latent_dim=None)


def test_full_rank_and_what_is_lowered_to_fit():
    assert resolved(farzi_latent_dim="full")["farzi_latent_dim"] == 1682
    assert resolved(farzi_latent_dim="full", farzi_sequences=3)["farzi_latent_dim"] == 153
    assert resolved(farzi_inner_steps=25)["farzi_window"] == 25


@pytest.mark.parametrize("share", [0, -1, "a", True])
def test_senseless_shares(share):
    with pytest.raises(OptionError, match="events_share"):
        resolved(events_share=share)


def test_equal_time_is_as_many_steps_as_take_it():
    fast, slow = steps_in_time(60, 0.1), steps_in_time(60, 1.0)
    assert (fast["farzi_outer_steps"], slow["farzi_outer_steps"]) == (600, 60)
    assert (fast["farzi_eval_step"], slow["farzi_eval_step"]) == (150, 15)  # validated as often
    for options in (fast, slow):  # the weight of what is older than a fifth of the steps
        assert options["farzi_outer_average"] ** (options["farzi_outer_steps"] / 5) == pytest.approx(0.37, abs=0.02)
    assert steps_in_time(1, 60.0) == {
        "farzi_outer_steps": 1, "farzi_eval_step": 1, "farzi_stopping_step": 5, "farzi_outer_average": 0.0
    }  # fmt: skip


@pytest.mark.parametrize("seconds", [0, -1, "a", True, float("nan"), 1e300])
def test_a_time_that_is_none(seconds):
    with pytest.raises(OptionError, match="step_seconds="):
        steps_in_time(seconds, 1.0)
