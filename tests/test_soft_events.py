"""The identities of soft events, each against the dense computation."""

import pytest
import torch

from recbole_farzi.soft_events import (
    SoftEvents,
    rows_of,
    soft_cross_entropy,
    soft_cross_entropy_dense,
    soft_cross_entropy_once,
    soft_distributions,
    virtual_ids,
)


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return normal


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_distributions_are_a_softmax_without_padding(drawn, temperature, with_bias):
    latent, decoder, bias = drawn(2, 3, 4), drawn(4, 7), drawn(7) if with_bias else None
    p = soft_distributions(latent, decoder, temperature, bias)
    logits = latent @ decoder + (bias if with_bias else 0.0)
    expected = torch.exp(logits / temperature)
    expected[..., 0] = 0.0
    expected = expected / expected.sum(-1, keepdim=True)
    assert p.shape == (2, 3, 7)
    assert (p[..., 0] == 0).all()
    torch.testing.assert_close(p, expected, rtol=1e-12, atol=0)


def test_a_small_temperature_gives_one_item_all_mass(drawn):
    latent, decoder = drawn(1, 5, 4), drawn(4, 7)
    p = soft_distributions(latent, decoder, 1e-4)
    assert (p.argmax(-1) == (latent @ decoder[:, 1:]).argmax(-1) + 1).all()
    torch.testing.assert_close(p.max(-1).values, torch.ones(1, 5, dtype=torch.float64))


def test_padding_gets_no_gradient(drawn):
    decoder = drawn(4, 7).requires_grad_(True)
    soft_distributions(drawn(1, 5, 4), decoder).square().sum().backward()
    assert (decoder.grad[:, 0] == 0).all()
    assert decoder.grad[:, 1:].abs().min() > 0


def test_virtual_ids_follow_the_order_of_flattening():
    p = torch.arange(12.0).view(2, 2, 3)
    ids = virtual_ids((2, 2), 10)
    for i in range(2):
        for j in range(2):
            assert torch.equal(p.reshape(-1, 3)[ids[i, j] - 10], p[i, j])


def test_soft_cross_entropy_needs_only_the_virtual_items_score(drawn):
    """logsumexp(h E^T) - h . (p E) against the definition, values and gradients, in float64."""
    hidden, table = drawn(6, 5).requires_grad_(True), drawn(7, 5).requires_grad_(True)
    latent = drawn(6, 4).requires_grad_(True)
    decoder = drawn(4, 7)

    def gradients(loss):
        return torch.autograd.grad(loss.sum(), [hidden, table, latent])

    p = soft_distributions(latent, decoder)
    identity = soft_cross_entropy(hidden @ table[1:].T, (hidden * (p @ table)).sum(-1))
    by_identity = gradients(identity)
    p = soft_distributions(latent, decoder)
    log_probabilities = torch.log_softmax(hidden @ table[1:].T, dim=-1)
    definition = -(p[:, 1:] * log_probabilities).sum(-1)
    by_definition = gradients(definition)
    dense = soft_cross_entropy_dense(hidden @ table[1:].T, soft_distributions(latent, decoder)[:, 1:])
    torch.testing.assert_close(identity, definition, rtol=1e-12, atol=0)
    torch.testing.assert_close(dense, definition, rtol=1e-12, atol=0)
    for one, other in zip(by_identity, by_definition):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13)


def test_soft_cross_entropy_of_one_hot_targets_is_the_hard_one(drawn):
    scores, targets = drawn(6, 8), torch.tensor([0, 3, 7, 1, 1, 5])
    one_hot = torch.nn.functional.one_hot(targets, 8).double()
    hard = torch.nn.functional.cross_entropy(scores, targets, reduction="none")
    torch.testing.assert_close(soft_cross_entropy_dense(scores, one_hot), hard)
    torch.testing.assert_close(soft_cross_entropy(scores, scores.gather(1, targets[:, None])[:, 0]), hard)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_soft_cross_entropy_for_training_is_the_mean_of_the_dense_one(drawn, scale):
    """Value and gradient in float64, of a part of larger targets; the padding's score, whatever it is, counts for nothing."""
    targets = soft_distributions(drawn(3, 5, 4), drawn(4, 7))[:, 1:]
    scores = (scale * drawn(3, 4, 7)).requires_grad_(True)
    with torch.no_grad():
        scores[0, 0, 0] = 1e4
    before = scores.detach().clone()
    once = soft_cross_entropy_once(scores, targets)
    (gradient,) = torch.autograd.grad(2.0 * once, scores)
    dense = soft_cross_entropy_dense(scores[..., 1:], targets[..., 1:]).mean()
    (expected,) = torch.autograd.grad(2.0 * dense, scores)
    torch.testing.assert_close(once, dense, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)
    assert torch.equal(scores.detach(), before) and (gradient[..., 0] == 0).all()


def test_soft_cross_entropy_for_training_keeps_precision_and_any_shape(drawn):
    """Scores of bfloat16, as mixed precision has them, give the loss that they give in float32; events need not be in sequences."""
    targets = soft_distributions(drawn(6, 4), drawn(4, 7)).float()
    scores = drawn(6, 7).bfloat16().requires_grad_(True)
    once, dense = soft_cross_entropy_once(scores, targets), soft_cross_entropy_dense(scores.float()[:, 1:], targets[:, 1:]).mean()
    torch.testing.assert_close(once, dense)
    assert torch.autograd.grad(once, scores)[0].dtype == torch.bfloat16


def test_rows_of_events_with_inputs(drawn):
    events = SoftEvents(soft_distributions(drawn(3, 5, 4), drawn(4, 7)), torch.arange(15).view(3, 5))
    some = rows_of(events, torch.tensor([2, 0]))
    assert torch.equal(some.distributions, events.distributions[[2, 0]]) and torch.equal(some.inputs, events.inputs[[2, 0]])


def test_what_is_differentiable_once_refuses_a_second_time(drawn):
    scores = drawn(2, 3, 5).requires_grad_(True)
    loss = soft_cross_entropy_once(scores, soft_distributions(drawn(2, 3, 4), drawn(4, 5)))
    (gradient,) = torch.autograd.grad(loss.square(), scores, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()
