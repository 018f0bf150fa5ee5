"""The function: data, batches, states, schedules, random numbers, and bad input."""

import doctest
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import recbole_farzi.adjoint
from recbole_farzi.adjoint import (
    Adam,
    AdjointError,
    BatchError,
    Checkpointed,
    LossShapeError,
    NonFiniteError,
    NoSecondDerivativeError,
    NotDifferentiableError,
    OptionError,
    SGD,
    State,
    StoreAll,
    Truncated,
    Unrolled,
    unroll,
)

from .problem import RULES, assert_close, data, gradients, loss, outer, params

ADAM = RULES["adam"]
EXACT = [StoreAll(), Checkpointed(), Checkpointed(every=2), Truncated(last=99)]


def noisy(p, d, step):
    h = F.dropout(torch.tanh((d["x"] + p["table"][d["ids"]]) @ p["weight"] + p["bias"]), 0.5)
    return (h * p["scale"] - d["y"][0]).square().mean()


@pytest.mark.parametrize("product", ["reverse", "forward"])
@pytest.mark.parametrize("adjoint", EXACT, ids=str)
def test_dropout_draws_the_same_masks_wherever_a_step_is_evaluated(adjoint, product):
    # The reference evaluates each step once, so its masks cannot disagree with themselves.
    final, got = gradients(adjoint, ADAM, 8, inner_loss=noisy, seed=5, product=product)
    reference_final, reference = gradients(Unrolled(), ADAM, 8, inner_loss=noisy, seed=5)
    assert_close(got, reference)
    assert torch.equal(final["weight"], reference_final["weight"])


def test_masks_differ_between_steps_and_between_seeds():
    masks = []

    def recording(p, d, step):
        masks.append(torch.rand(8))
        return loss(p, d, step)

    for seed in (0, 1):
        unroll(recording, params(), data(), optimizer=Adam(), steps=3, seed=seed)
    assert len({tuple(mask.tolist()) for mask in masks}) == 6


def test_a_state_that_goes_on_draws_the_masks_of_one_long_loop():
    with torch.no_grad():
        long = unroll(noisy, params(), data(), optimizer=Adam(), steps=6, seed=2)
        half, state = unroll(noisy, params(), data(), optimizer=Adam(), steps=3, seed=2, return_state=True)
        other = unroll(noisy, half, data(), optimizer=Adam(), steps=3, seed=2, state=state)
    assert torch.equal(long["weight"], other["weight"])


def test_the_callers_generator_is_left_as_it_was():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    outer(unroll(noisy, params(), data(), optimizer=Adam(), steps=3, seed=1)).backward()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("adjoint", EXACT, ids=str)
def test_batches(adjoint):
    generator = torch.Generator().manual_seed(0)
    # Repeated rows within a batch, and rows that are never read.
    batches = [torch.randint(9, (4,), generator=generator) for _ in range(6)]
    got = gradients(adjoint, ADAM, 6, rows=12, batches=batches)[1]
    assert_close(got, gradients(Unrolled(), ADAM, 6, rows=12, batches=batches)[1])
    assert got["x"][9:].abs().max() == 0

    def by_hand(p, d, step):
        rows = batches[step]
        return loss(p, {"x": d["x"][rows], "ids": d["ids"][rows], "y": (d["y"][0][rows],)}, step)

    assert_close(got, gradients(Unrolled(), ADAM, 6, rows=12, inner_loss=by_hand)[1])


def test_a_leaf_without_rows_is_passed_whole_to_every_batch():
    d = {"x": torch.randn(5, 2, dtype=torch.float64), "c": torch.tensor(0.3, dtype=torch.float64, requires_grad=True)}

    def quadratic(p, d, step):
        assert d["x"].shape == (2, 2) and d["c"].shape == ()
        return (d["x"] @ p["w"] - d["c"]).square().mean()

    grads = []
    for adjoint in (StoreAll(), Unrolled()):
        final = unroll(
            quadratic,
            {"w": torch.ones(2, dtype=torch.float64)},
            d,
            optimizer=SGD(0.1),
            steps=3,
            batches=[torch.tensor([0, t]) for t in (1, 2, 4)],
            adjoint=adjoint,
        )
        grads.append(torch.autograd.grad(final["w"].sum(), d["c"])[0])
    assert torch.allclose(*grads, rtol=1e-12) and grads[1] != 0


@pytest.mark.parametrize("adjoint", EXACT, ids=str)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_learning_rate_schedules_have_a_gradient_per_step(rule, adjoint):
    def run(adjoint):
        rates = torch.linspace(0.1, 0.02, 5, dtype=torch.float64).requires_grad_()
        final = unroll(loss, params(), data(), optimizer=rule(rates), steps=5, adjoint=adjoint)
        return dict(enumerate(torch.autograd.grad(outer(final), rates)[0]))

    assert_close(run(adjoint), run(Unrolled()))


def test_a_schedule_of_numbers_is_one_of_a_tensor():
    rates = [0.1, 0.05, 0.01]
    a = unroll(loss, params(), data(), optimizer=Adam(rates), steps=3)
    b = unroll(loss, params(), data(), optimizer=Adam(torch.tensor(rates, dtype=torch.float64)), steps=3)
    assert torch.equal(a["weight"], b["weight"])


@pytest.mark.parametrize("adjoint", [StoreAll(), Checkpointed(), Unrolled()], ids=str)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_gradients_flow_through_states_handed_on(rule, adjoint):
    """Two loops of 3 steps, the second from the first one's state, are one loop of 6; so are their gradients."""
    p, d = params(), data()
    rate = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    half, state = unroll(loss, p, d, optimizer=rule(rate), steps=3, adjoint=adjoint, return_state=True)
    assert state.step == 3
    final, state = unroll(loss, half, d, optimizer=rule(rate), steps=3, adjoint=adjoint, state=state, return_state=True)
    assert state.step == 6
    got = dict(zip([*p, "x", "y", "lr"], torch.autograd.grad(outer(final), [*p.values(), d["x"], d["y"][0], rate])))
    assert_close(got, gradients(Unrolled(), rule, 6)[1])


# Without momentum SGD's slot stays what it was, and has no derivative.
@pytest.mark.parametrize("rule", [name for name in RULES if name != "sgd"])
def test_the_returned_state_can_be_differentiated_itself(rule):
    def run(adjoint):
        p, d = params(), data()
        optimizer = RULES[rule](0.05)
        _, state = unroll(loss, p, d, optimizer=optimizer, steps=4, adjoint=adjoint, return_state=True)
        value = sum(outer(slot) for slot in state.slots.values())
        return dict(zip([*p, "x"], torch.autograd.grad(value, [*p.values(), d["x"]])))

    assert_close(run(StoreAll()), run(Unrolled()))


def test_a_given_state_has_a_gradient():
    def run(adjoint):
        slots = {slot: {k: torch.full_like(v, 0.3) for k, v in params().items()} for slot in ("m", "v")}
        leaves = [x.requires_grad_() for tensors in slots.values() for x in tensors.values()]
        final = unroll(loss, params(), data(), optimizer=ADAM(0.05), steps=4, adjoint=adjoint, state=State(10, slots))
        return dict(enumerate(torch.autograd.grad(outer(final), leaves)))

    assert_close(run(StoreAll()), run(Unrolled()))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("bound", [0.05, 0.5, 1e9])
def test_clipping_is_differentiated_exactly(rule, bound):
    got = gradients(StoreAll(), rule, 5, clip_norm=bound)[1]
    assert_close(got, gradients(Unrolled(), rule, 5, clip_norm=bound)[1])


def test_clipping_is_that_of_torch():
    final = unroll(loss, params(), data(), optimizer=Adam(0.01, weight_decay=0.1), steps=9, clip_norm=0.2)
    twin = params()
    optimizer = torch.optim.Adam(twin.values(), lr=0.01, weight_decay=0.1)
    for step in range(9):
        optimizer.zero_grad()
        loss(twin, data(), step).backward()
        torch.nn.utils.clip_grad_norm_(twin.values(), 0.2)
        optimizer.step()
    assert all(torch.allclose(final[name], twin[name], rtol=1e-12) for name in twin)


def test_frozen_parameters_stay_and_get_a_gradient_if_they_want_one():
    def run(adjoint):
        p, d = params(), data()
        final = unroll(loss, p, d, optimizer=ADAM(0.05), steps=5, frozen=("bias",), adjoint=adjoint)
        assert final["bias"] is p["bias"] and list(final) == list(p)
        del final["bias"]
        return {"bias": torch.autograd.grad(outer(final), p["bias"])[0]}

    assert_close(run(StoreAll()), run(Unrolled()))


def test_parameters_are_trained_whether_or_not_they_require_a_gradient():
    p = {name: value.detach() for name, value in params().items()}
    d = data()
    final = unroll(loss, p, d, optimizer=ADAM(0.05), steps=5)
    assert torch.equal(final["weight"], unroll(loss, params(), d, optimizer=ADAM(0.05), steps=5)["weight"])
    got = torch.autograd.grad(outer(final), d["x"])[0]
    rate_free = gradients(Unrolled(), ADAM, 5)[1]["x"]
    assert_close({"x": got}, {"x": rate_free})


def test_without_anything_to_differentiate_the_result_has_no_graph():
    p = {name: value.detach() for name, value in params().items()}
    d = {**data(), "x": data()["x"].detach(), "y": (data()["y"][0].detach(),)}
    assert not any(v.requires_grad for v in unroll(loss, p, d, optimizer=Adam(), steps=2).values())
    with torch.no_grad():
        assert not any(v.requires_grad for v in unroll(loss, params(), data(), optimizer=Adam(), steps=2).values())


@pytest.mark.parametrize("product", ["reverse", "forward"])
def test_a_loss_that_is_linear_in_the_parameters(product):
    """Its Hessian is 0 and has no graph; the data's gradient is -lr T for plain gradient descent."""
    w, x = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    final = unroll(lambda p, d, step: (p["w"] * d).sum(), {"w": w}, x, optimizer=SGD(0.5), steps=4, product=product)
    final["w"].sum().backward()
    assert torch.equal(w.grad, torch.ones(3)) and torch.equal(x.grad, torch.full((3,), -2.0))

    w.grad = None
    unroll(lambda p, d, step: p["w"].sum(), {"w": w}, None, optimizer=SGD(0.5), steps=4, product=product)[
        "w"
    ].sum().backward()
    assert torch.equal(w.grad, torch.ones(3))


def test_a_parameter_that_the_loss_ignores_keeps_its_value():
    p = {**params(), "idle": torch.ones(2, dtype=torch.float64, requires_grad=True)}
    final = unroll(loss, p, data(), optimizer=Adam(0.1), steps=3)
    assert torch.equal(final["idle"], p["idle"])
    final["idle"].sum().backward()
    assert torch.equal(p["idle"].grad, torch.ones_like(p["idle"]))


def test_stacked_initialisations_are_trained_as_if_alone():
    seeds = (0, 4)
    singles, d = [], data()
    for seed in seeds:
        final = unroll(loss, params(seed=seed), d, optimizer=ADAM(0.05), steps=5)
        singles.append((final, torch.autograd.grad(outer(final), d["x"])[0]))

    stacked = {name: torch.stack([params(seed=seed)[name] for seed in seeds]) for name in params()}
    tensors = {key: d[key] for key in ("x", "ids", "y")}

    def summed(p, d, step):
        return torch.func.vmap(lambda q: loss(q, d, step))(p).sum()

    finals = unroll(summed, stacked, tensors, optimizer=ADAM(0.05), steps=5)
    total = sum(outer({name: value[i] for name, value in finals.items()}) for i in range(2))
    (grad,) = torch.autograd.grad(total, d["x"])
    assert_close({"x": grad}, {"x": singles[0][1] + singles[1][1]})
    for i, (single, _) in enumerate(singles):
        assert torch.allclose(finals["weight"][i], single["weight"], rtol=1e-12)


@pytest.mark.parametrize("product", ["reverse", "forward"])
def test_attention(product):
    """Fused attention has no double backward: the package switches it off, in the reverse pass too."""
    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    q = {name: value.detach() for name, value in layer.named_parameters()}

    def attention(p, d, step):
        return torch.func.functional_call(layer, p, (d, d, d), {"need_weights": False})[0].square().mean()

    grads = []
    for adjoint in (StoreAll(), Unrolled()):
        final = unroll(attention, q, x, optimizer=SGD(0.5), steps=3, adjoint=adjoint, product=product)
        grads.append(torch.autograd.grad(outer(final), x)[0])
    assert_close({"x": grads[0]}, {"x": grads[1]})


def test_float32_is_float32_throughout_and_close_to_float64():
    def run(dtype):
        # The same numbers in both precisions.
        p = {name: value.detach().to(dtype).requires_grad_() for name, value in params().items()}
        d = data()
        d = {**d, "x": d["x"].detach().to(dtype).requires_grad_(), "y": (d["y"][0].detach().to(dtype),)}
        final, state = unroll(loss, p, d, optimizer=Adam(0.01, eps=1e-3), steps=10, return_state=True)
        outer(final).backward()
        assert {v.dtype for slot in state.slots.values() for v in slot.values()} == {dtype}
        assert d["x"].grad.dtype == final["weight"].dtype == dtype
        return d["x"].grad.double()

    exact = run(torch.float64)
    assert (run(torch.float32) - exact).norm() < 1e-4 * exact.norm()


def test_bfloat16_in_the_loss_with_float32_states():
    d = data(torch.float32)

    def mixed(p, d, step):
        with torch.autocast("cpu", torch.bfloat16):
            return loss(p, d, step).float()

    final = unroll(mixed, params(torch.float32), d, optimizer=Adam(0.01, eps=1e-3), steps=5)
    (grad,) = torch.autograd.grad(outer(final), d["x"])
    full = data(torch.float32)
    exact = unroll(loss, params(torch.float32), full, optimizer=Adam(0.01, eps=1e-3), steps=5)
    (expected,) = torch.autograd.grad(outer(exact), full["x"])
    assert final["weight"].dtype == torch.float32
    assert F.cosine_similarity(grad.flatten(), expected.flatten(), dim=0) > 0.98


def test_backward_sees_the_autocast_of_the_forward_pass():
    dtypes = set()

    def recording(p, d, step):
        dtypes.add((d["x"] @ p["weight"]).dtype)
        return loss(p, d, step).float()

    with torch.autocast("cpu", torch.bfloat16):
        final = unroll(recording, params(torch.float32), data(torch.float32), optimizer=Adam(), steps=2)
    outer(final).backward()
    assert dtypes == {torch.bfloat16}


def test_on_step_sees_each_step_once():
    seen = []
    final = unroll(
        loss,
        params(),
        data(),
        optimizer=Adam(),
        steps=6,
        adjoint=Checkpointed(every=2),
        on_step=lambda step, value: seen.append((step, value.item())),
    )
    outer(final).backward()
    assert [step for step, _ in seen] == list(range(6))
    assert seen[0][1] == loss(params(), data(), 0).item()


def test_data_changed_in_place_before_backward_is_an_error():
    d = data()
    value = outer(unroll(loss, params(), d, optimizer=Adam(), steps=2))
    with torch.no_grad():
        d["x"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


# Bad input: one line each, of a type of its own.


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"steps": 0}, OptionError, "steps"),
        ({"product": "sideways"}, OptionError, "product"),
        ({"clip_norm": 0.0}, OptionError, "clip_norm"),
        ({"frozen": ("nothing",)}, OptionError, "nothing"),
        ({"frozen": "weight"}, OptionError, "weight"),
        ({"frozen": tuple(params())}, OptionError, "no floating-point parameter"),
        ({"optimizer": torch.optim.Adam}, OptionError, "optimizer"),
        ({"adjoint": StoreAll}, OptionError, "adjoint"),
        ({"optimizer": Adam(lr=[0.1, 0.1])}, OptionError, "lr"),
        ({"batches": [torch.tensor([0])]}, BatchError, "3 steps"),
        ({"batches": [torch.tensor([0.0])] * 3}, BatchError, r"batches\[0\]"),
        ({"batches": [torch.tensor(0)] * 3}, BatchError, r"batches\[0\]"),
        ({"state": State(0, {"m": {}})}, OptionError, "slots"),
        ({"state": State(0, {"m": {}, "v": {}})}, OptionError, "table"),
        ({"state": State(-1, {"m": {}, "v": {}})}, OptionError, "step"),
    ],
)
def test_senseless_arguments_are_refused(options, error, words):
    with pytest.raises(error, match=words) as caught:
        unroll(loss, params(), data(), **{"optimizer": Adam(), "steps": 3, **options})
    assert isinstance(caught.value, AdjointError) and "\n" not in str(caught.value)


def test_parameters_of_two_dtypes_are_refused():
    mixed = {"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.float64)}
    with pytest.raises(OptionError, match="dtype"):
        unroll(lambda p, d, step: p["a"].sum(), mixed, None, optimizer=Adam(), steps=1)


@pytest.mark.parametrize("adjoint", [StoreAll(), Unrolled()], ids=str)
@pytest.mark.parametrize("value, words", [(lambda p: p["bias"], r"shape \[5\]"), (lambda p: 1.0, "float")])
def test_a_loss_that_is_no_scalar(value, words, adjoint):
    with pytest.raises(LossShapeError, match=words):
        unroll(lambda p, d, step: value(p), params(), data(), optimizer=Adam(), steps=2, adjoint=adjoint)


@pytest.mark.parametrize("adjoint", [StoreAll(), Unrolled()], ids=str)
@pytest.mark.parametrize(
    "value",
    [lambda p: p["bias"].detach().sum(), lambda p: p["bias"].round().sum().sign().long().float(), lambda p: torch.ones(())],
)
def test_a_loss_that_does_not_depend_on_the_parameters(value, adjoint):
    with pytest.raises(NotDifferentiableError):
        unroll(lambda p, d, step: value(p), params(), data(), optimizer=Adam(), steps=2, adjoint=adjoint)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


@pytest.mark.parametrize("adjoint", [StoreAll(), Unrolled()], ids=str)
def test_an_operation_without_a_second_derivative_is_named_as_such(adjoint):
    """PyTorch alone returns 0 for it here, and says nothing."""

    def once(p, d, step):
        return Once.apply(p["bias"]).sum() + loss(p, d, step)

    with pytest.raises(NoSecondDerivativeError, match="no double backward"):
        outer(unroll(once, params(), data(), optimizer=Adam(), steps=2, adjoint=adjoint)).backward()


@pytest.mark.parametrize("adjoint", [StoreAll(), Checkpointed(), Unrolled(), Truncated(last=1)], ids=str)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_non_finite_value_names_its_step(what, adjoint):
    def breaking(p, d, step):
        value = loss(p, d, step)
        if step != 13:
            return value
        # sqrt has value 0 and an infinite slope at 0.
        return value * float("nan") if what == "loss" else value + (p["bias"] * 0).sum().sqrt()

    def run(steps):
        slots = {slot: {k: torch.zeros_like(v) for k, v in params().items()} for slot in ("m", "v")}
        unroll(breaking, params(), data(), optimizer=Adam(), steps=steps, state=State(10, slots), adjoint=adjoint)

    run(3)
    with pytest.raises(NonFiniteError, match=f"{what} at inner step 13") as caught:
        run(5)
    assert caught.value.step == 13 and caught.value.what == what


def test_an_error_of_the_loss_itself_is_passed_on():
    def failing(p, d, step):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        unroll(failing, params(), data(), optimizer=Adam(), steps=1)


def test_the_example_of_the_package_runs():
    result = doctest.testmod(recbole_farzi.adjoint)
    assert result.attempted > 10 and result.failed == 0


def test_the_package_needs_no_recbole():
    code = "import sys, recbole_farzi.adjoint; sys.exit(any(name.split('.')[0] == 'recbole' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
