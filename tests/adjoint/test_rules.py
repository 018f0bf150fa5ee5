"""Each rule: forward it is torch.optim's, in reverse it is autograd's."""

import pytest
import torch

from recbole_farzi.adjoint import (
    Adagrad,
    Adam,
    AdamW,
    Checkpointed,
    OptionError,
    RMSprop,
    SGD,
    StoreAll,
    Truncated,
    Unrolled,
    unroll,
)

from .problem import RULES, assert_close, data, gradients, loss, params

TWINS = [
    (Adam, torch.optim.Adam, {}),
    (Adam, torch.optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (AdamW, torch.optim.AdamW, {}),
    (AdamW, torch.optim.AdamW, {"weight_decay": 0.3, "eps": 1e-4}),
    (SGD, torch.optim.SGD, {"weight_decay": 0.1}),
    (SGD, torch.optim.SGD, {"momentum": 0.9, "dampening": 0.3}),
    (SGD, torch.optim.SGD, {"dampening": 0.3}),
    (SGD, torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (RMSprop, torch.optim.RMSprop, {}),
    (RMSprop, torch.optim.RMSprop, {"momentum": 0.5, "centered": True, "weight_decay": 0.1, "alpha": 0.9}),
    (Adagrad, torch.optim.Adagrad, {}),
    (Adagrad, torch.optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.1, "weight_decay": 0.1}),
]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-4)])
@pytest.mark.parametrize("ours, theirs, options", TWINS)
def test_forward_steps_are_those_of_torch_optim(ours, theirs, options, dtype, tolerance):
    steps = 20
    d = data(dtype)
    final = unroll(loss, params(dtype), d, optimizer=ours(lr=0.01, **options), steps=steps)
    twin = params(dtype)
    optimizer = theirs(twin.values(), lr=0.01, **options)
    for step in range(steps):
        optimizer.zero_grad()
        loss(twin, d, step).backward()
        optimizer.step()
    for name, value in twin.items():
        assert final[name].dtype == dtype
        assert (final[name] - value).abs().max() <= tolerance * value.abs().max(), name


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_gradients_are_those_of_autograd_through_the_loop(rule, steps):
    reference_final, reference = gradients(Unrolled(), rule, steps)
    for product in ("reverse", "forward"):
        final, got = gradients(StoreAll(), rule, steps, product=product)
        assert_close(got, reference)
        for name in final:
            assert torch.equal(final[name], reference_final[name])


@pytest.mark.parametrize("lr", [1e-3, 0.2])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_other_learning_rates(rule, lr):
    assert_close(gradients(StoreAll(), rule, 5, lr=lr)[1], gradients(Unrolled(), rule, 5, lr=lr)[1])


@pytest.mark.parametrize("adjoint", [Checkpointed(), Checkpointed(every=3), Truncated(last=7)], ids=str)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_every_strategy_takes_every_rule(rule, adjoint):
    assert_close(gradients(adjoint, rule, 7)[1], gradients(Unrolled(), rule, 7)[1])


@pytest.mark.parametrize("rule", [lambda lr: Adam(lr), lambda lr: RMSprop(lr), lambda lr: Adagrad(lr)])
def test_an_entry_that_never_has_a_gradient_stays_and_has_the_identity_for_derivative(rule):
    p, d = params(), data()
    final = unroll(loss, p, d, optimizer=rule(0.1), steps=5)
    assert torch.equal(final["table"][2], p["table"][2])
    grads = torch.autograd.grad(final["table"][2].sum(), [p["table"], p["weight"], d["x"]])
    assert torch.equal(grads[0][2], torch.ones(3, dtype=torch.float64))
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert grads[1].abs().max() == 0 and grads[2].abs().max() == 0


def test_the_derivative_agrees_with_finite_differences():
    """A check that shares nothing with autograd: of the outer loss along a direction in data space."""
    torch.manual_seed(0)
    p = {name: value.detach() for name, value in params().items()}
    d = data()
    direction = torch.randn_like(d["x"])

    def outcome(x):
        return unroll(loss, p, {**d, "x": x}, optimizer=Adam(0.05, eps=1e-2), steps=10)["weight"].square().sum()

    (grad,) = torch.autograd.grad(outcome(d["x"]), d["x"])
    h = 1e-5
    with torch.no_grad():
        difference = (outcome(d["x"] + h * direction) - outcome(d["x"] - h * direction)) / (2 * h)
    assert torch.allclose((grad * direction).sum(), difference, rtol=1e-7)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Adam(lr=-0.1),
        lambda: Adam(lr=float("nan")),
        lambda: Adam(lr=torch.tensor([0.1, -0.1])),
        lambda: Adam(lr=torch.ones(2, 2)),
        lambda: Adam(lr=[]),
        lambda: Adam(betas=(1.0, 0.9)),
        lambda: Adam(betas=(0.9,)),
        lambda: Adam(eps=-1e-8),
        lambda: Adam(eps_root=-1.0),
        lambda: Adam(amsgrad=True),
        lambda: AdamW(weight_decay=-1.0),
        lambda: SGD(momentum=1.0),
        lambda: SGD(dampening=2.0),
        lambda: SGD(nesterov=True),
        lambda: RMSprop(alpha=1.5),
        lambda: Adagrad(initial_accumulator_value=-1.0),
    ],
)
def test_senseless_options_are_refused_at_construction(make):
    with pytest.raises(OptionError):
        make()
