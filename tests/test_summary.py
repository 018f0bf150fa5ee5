"""The summary: its size, its soft and its hard events."""

from dataclasses import replace

import pytest
import torch

from recbole_farzi.errors import DataError
from recbole_farzi.summary import Summary


@pytest.fixture
def summary():
    generator = torch.Generator().manual_seed(0)
    return Summary(
        torch.randn(3, 5, 2, generator=generator), torch.randn(2, 9, generator=generator) * 2, torch.zeros(9), 0.7
    )


def test_size(summary):
    assert summary.events == 15
    assert summary.nbytes == 4 * (3 * 5 * 2 + 2 * 9 + 9)


def test_half_precision_halves_the_size(summary):
    rounded = summary.rounded()
    assert rounded.nbytes == summary.nbytes // 2 and rounded.latent.dtype == torch.float32
    assert torch.allclose(rounded.latent, summary.latent, rtol=1e-3)
    assert rounded.rounded().nbytes == rounded.nbytes and torch.equal(rounded.rounded().latent, rounded.latent)


def test_eight_bits_are_whole_numbers_times_a_scale_of_each_dimension(summary):
    rounded = summary.rounded(8)
    assert (summary.bits, summary.rounded().bits, rounded.bits) == (32, 16, 8)
    assert rounded.nbytes == 3 * 5 * 2 + 2 * 9 + 2 * 9 + 2 * 2 * 4  # Z, M, b, and a scale for each dimension of Z and of M
    assert all(map(torch.equal, rounded.tensors, rounded.rounded(8).tensors))
    for dimension in range(2):
        for mine, theirs in (
            (summary.latent[..., dimension], rounded.latent[..., dimension]), (summary.decoder[dimension], rounded.decoder[dimension])
        ):  # fmt: skip
            scale = mine.abs().max() / 127
            levels = theirs.double() / (theirs.double().abs().max() / 127)
            assert torch.allclose(levels, levels.round(), atol=1e-4) and levels.abs().max() == 127
            assert (mine - theirs).abs().max() <= 0.501 * scale


@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-25, 1.0, 6e4])
def test_eight_bits_hold_numbers_of_any_size(summary, size):
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        latent = torch.randn(3, 5, 2, generator=generator) * torch.tensor([size, 1.0])
        rounded = replace(summary, latent=latent.clamp(-6.5e4, 6.5e4)).rounded(8)
        assert torch.isfinite(rounded.latent).all() and rounded.bits == 8


def test_numbers_beyond_half_precision_are_kept_as_they_are(summary):
    huge = Summary(summary.latent * 1e6, summary.decoder, summary.bias, 0.7)
    for bits in (8, 16):
        assert torch.equal(huge.rounded(bits).latent, huge.latent) and huge.rounded(bits).nbytes == huge.nbytes
    assert huge.bits == 32


def test_tensors_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="does not fit together"):
        Summary(torch.zeros(3, 5, 2), torch.zeros(4, 9), torch.zeros(9), 1.0)


def test_likeliest_items(summary):
    hard = summary.hard(samples=0, seed=0)
    assert torch.equal(hard, summary.distributions().argmax(-1))
    assert hard.min() >= 1


def test_draws_follow_the_distributions(summary):
    samples = 4000
    drawn = summary.hard(samples, seed=1)
    assert drawn.shape == (3 * samples, 5)
    p = summary.distributions()
    for sequence in range(3):
        own = drawn[sequence * samples : (sequence + 1) * samples]
        for position in range(5):
            share = torch.bincount(own[:, position], minlength=9) / samples
            error = (share - p[sequence, position]).abs()
            bound = 5 * (p[sequence, position] / samples).sqrt() + 5 / samples  # five standard deviations, five draws
            assert (error <= bound).all()


def test_draws_never_give_padding_and_depend_on_the_seed_alone(summary):
    torch.manual_seed(3)
    first = summary.hard(20, seed=1)
    torch.manual_seed(4)
    assert torch.equal(first, summary.hard(20, seed=1))
    assert not torch.equal(first, summary.hard(20, seed=2))
    assert first.min() >= 1
