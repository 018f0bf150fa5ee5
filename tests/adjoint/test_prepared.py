"""Losses whose derivatives are compiled or captured: the same numbers, prepared once, or run as they are."""

import shutil
import warnings

import pytest
import torch
import torch.nn.functional as F

from recbole_farzi.adjoint import (
    Adam,
    Captured,
    Checkpointed,
    Compiled,
    LossShapeError,
    StoreAll,
    Truncated,
    Unrolled,
    unroll,
)

from .problem import RULES, assert_close, data, gradients, loss, outer, params

ADAM = RULES["adam"]


def traced(inner_loss=loss):
    """Everything but the code generation, which takes long and which the last test here has."""
    return Compiled(inner_loss, backend="eager")


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the inner loss is run as it is")
        yield


@pytest.mark.parametrize("adjoint", [StoreAll(), Checkpointed(), Checkpointed(every=3), Truncated(last=99)], ids=str)
def test_compiled_gradients_are_those_of_autograd(adjoint):
    got = gradients(adjoint, ADAM, 7, inner_loss=traced(), clip_norm=0.3)[1]
    assert_close(got, gradients(Unrolled(), ADAM, 7, clip_norm=0.3)[1])


@pytest.mark.parametrize("rule", ["sgd, nesterov, decay", "rmsprop, centred, momentum, decay"])
def test_other_rules_take_a_compiled_loss(rule):
    got = gradients(StoreAll(), RULES[rule], 3, inner_loss=traced())[1]
    assert_close(got, gradients(Unrolled(), RULES[rule], 3)[1])


def test_batches_and_frozen_parameters():
    batches = [torch.tensor([0, t, 5]) for t in range(4)]

    def run(inner_loss, adjoint):
        p, d = params(), data()
        final = unroll(
            inner_loss, p, d, optimizer=ADAM(0.05), steps=4, batches=batches, frozen=("bias",), adjoint=adjoint
        )
        del final["bias"]
        return dict(enumerate(torch.autograd.grad(outer(final), [p["bias"], p["weight"], d["x"]])))

    assert_close(run(traced(), StoreAll()), run(loss, Unrolled()))


def test_a_loss_is_traced_once_for_each_layout():
    calls = []

    def counting(p, d, step):
        calls.append(type(step).__name__)
        return loss(p, d, step)

    compiled = traced(counting)
    for steps in (3, 5):
        gradients(StoreAll(), ADAM, steps, inner_loss=compiled)
        first = first if steps == 5 else len(calls)
    assert len(calls) == first and set(calls) == {"AnyStep"}
    gradients(StoreAll(), ADAM, 3, inner_loss=compiled, rows=7)
    assert len(calls) == 2 * first


def test_a_value_that_is_no_tensor_is_part_of_the_layout():
    compiled = traced(lambda p, d, step: d["factor"] * loss(p, d, step))
    finals = [
        unroll(compiled, params(), {**data(), "factor": factor}, optimizer=RULES["sgd"](0.1), steps=2)["bias"]
        for factor in (1.0, 2.0)
    ]
    assert torch.equal(finals[0], unroll(loss, params(), data(), optimizer=RULES["sgd"](0.1), steps=2)["bias"])
    assert not torch.equal(*finals)


@pytest.mark.parametrize("product", ["reverse", "forward"])
@pytest.mark.parametrize(
    "inner_loss, why",
    [
        (lambda p, d, step: loss(p, d, step) * (1 + step), "step"),
        (lambda p, d, step: F.dropout(d["x"], 0.5).sum() * loss(p, d, step), "random"),
        (lambda p, d, step: loss(p, d, step) * (2.0 if loss(p, d, step).item() > 0 else 1.0), "data-dependent"),
    ],
)
def test_a_loss_that_cannot_be_compiled_is_run_as_it_is_and_said_so_once(inner_loss, why, product):
    compiled = traced(inner_loss)
    with pytest.warns(UserWarning, match=f"as it is.*{why}") as said:
        got = gradients(StoreAll(), ADAM, 4, inner_loss=compiled, seed=1, product=product)[1]
        gradients(Checkpointed(), ADAM, 4, inner_loss=compiled, seed=1)
    assert len([w for w in said if "as it is" in str(w.message)]) == 1
    assert_close(got, gradients(Unrolled(), ADAM, 4, inner_loss=inner_loss, seed=1)[1])


def test_a_compiler_that_is_not_there():
    compiled = Compiled(loss, backend="no such compiler")
    with pytest.warns(UserWarning, match="as it is"):
        got = gradients(StoreAll(), ADAM, 3, inner_loss=compiled)[1]
    assert_close(got, gradients(Unrolled(), ADAM, 3)[1])


def test_errors_of_this_package_are_not_swallowed():
    with pytest.raises(LossShapeError):
        unroll(traced(lambda p, d, step: p["bias"]), params(), data(), optimizer=Adam(), steps=2)


def test_captured_is_the_loss_itself_without_a_cuda_device():
    assert torch.equal(
        gradients(StoreAll(), ADAM, 4, inner_loss=Captured(loss))[1]["x"], gradients(StoreAll(), ADAM, 4)[1]["x"]
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_generated_code_gives_the_same_gradients():
    got = gradients(Checkpointed(), ADAM, 6, inner_loss=Compiled(loss))[1]
    assert_close(got, gradients(Unrolled(), ADAM, 6)[1])
