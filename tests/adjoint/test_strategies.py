"""Strategies: what they keep, what they cost, and that they agree."""

import math
import weakref

import pytest
import torch

from recbole_farzi.adjoint import (
    Adam,
    Checkpointed,
    MemoryBudgetError,
    NoSecondDerivativeError,
    OptionError,
    StoreAll,
    Truncated,
    Unrolled,
    unroll,
)
from recbole_farzi.adjoint._schedule import Binomial, Segments, evaluations, every, fitted

from .problem import RULES, assert_close, data, gradients, loss, outer, params

ADAM = RULES["adam"]
N = sum(value.numel() for value in params().values())
STATE = 3 * 8 * N  # bytes of (w, m, v) in float64


@pytest.mark.parametrize("product", ["reverse", "forward"])
@pytest.mark.parametrize(
    "adjoint",
    [Checkpointed(), Checkpointed(every=1), Checkpointed(every=4), Checkpointed(every=100), Checkpointed(memory=6 * STATE)],
    ids=str,
)
def test_checkpointed_is_stored_bit_for_bit(adjoint, product):
    final, got = gradients(adjoint, ADAM, 20, product=product, seed=3, clip_norm=0.3)
    stored_final, stored = gradients(StoreAll(), ADAM, 20, product=product, seed=3, clip_norm=0.3)
    for name in stored:
        assert torch.equal(got[name], stored[name]), name
    for name in final:
        assert torch.equal(final[name], stored_final[name])


def counted(adjoint, steps, product="reverse"):
    """Evaluations of the loss, forward and in all."""
    calls = []

    def counting(p, d, step):
        calls.append(step)
        return loss(p, d, step)

    p = params()
    final = unroll(counting, p, data(), optimizer=Adam(0.01), steps=steps, adjoint=adjoint, product=product)
    before = len(calls)
    outer(final).backward()
    return before, len(calls)


@pytest.mark.parametrize("product", ["reverse", "forward"])
def test_stored_evaluates_the_loss_twice_a_step(product):
    assert counted(StoreAll(), 12, product) == (12, 24)


def test_recomputation_is_what_the_schedule_says():
    assert counted(Checkpointed(every=4), 16) == (16, 16 + evaluations(every(16, 4), 16))
    # Room for all the states, or for all the gradients and four states: nothing is recomputed but element-wise updates.
    assert counted(Checkpointed(memory=21 * STATE), 20) == (20, 40)
    assert counted(Checkpointed(memory=(20 + 3 * 4) * STATE // 3), 20) == (20, 40)
    # The least memory: no step is recomputed twice.
    assert counted(Checkpointed(), 100)[1] <= 300


@pytest.mark.parametrize("memory", [None, *(n * STATE for n in (2, 3, 4, 6, 12, 20, 41))])
@pytest.mark.parametrize("rule", ["adam", "sgd, momentum, decay", "rmsprop, centred, momentum, decay"])
@pytest.mark.parametrize("product", ["reverse", "forward"])
def test_every_budget_gives_the_same_bits(memory, rule, product):
    options = {"product": product, "seed": 3, "clip_norm": 0.3}
    if memory is not None and rule != "adam":
        memory = memory * (4 if rule.startswith("rmsprop") else 2) // 3
    _, got = gradients(Checkpointed(memory=memory), RULES[rule], 40, **options)
    _, stored = gradients(StoreAll(), RULES[rule], 40, **options)
    assert all(torch.equal(got[name], stored[name]) for name in stored)


class Watched(Adam):
    """Adam that knows which of the parameter vectors it made are still alive, and which gradients it was given."""

    def __init__(self, made, given=None):
        super().__init__(0.01)
        object.__setattr__(self, "made", made)
        object.__setattr__(self, "given", [] if given is None else given)

    def step(self, w, g, *args):
        after, slots = super().step(w, g, *args)
        self.made.append(weakref.ref(after))
        if not any(ref() is g for ref in self.given):
            self.given.append(weakref.ref(g))
        return after, slots


def alive(made):
    return sum(ref() is not None for ref in made)


def kept(adjoint, steps, product="reverse"):
    """Most memory held for the trajectory at an evaluation of the loss, forward or in reverse, in thirds of a state.

    The initial state, which the caller holds, is not counted.
    """
    made, given, counts = [], [], []

    def watching(p, d, step):
        counts.append(3 * alive(made) + alive(given))
        return loss(p, d, step)

    final = unroll(
        watching, params(), data(), optimizer=Watched(made, given), steps=steps, adjoint=adjoint, product=product
    )
    outer(final).backward()
    return max(counts)


def test_stored_keeps_one_state_a_step():
    assert kept(StoreAll(), 40) - kept(StoreAll(), 20) == 3 * 20


# The final parameters, which the caller holds, are one more state.
@pytest.mark.parametrize("product", ["reverse", "forward"])
def test_checkpointed_keeps_sqrt_of_the_steps(product):
    assert kept(Checkpointed(), 100, product) <= 3 * (math.sqrt(100) + 1)
    assert kept(Checkpointed(every=5), 100, product) <= 3 * (100 / 5 + 1 + 1 + 1) + 5


@pytest.mark.parametrize("states", [2, 3, 4, 6, 10, 20, 33, 40, 101])
def test_a_memory_budget_is_kept_to(states):
    schedule = fitted(100, 3 * states, 3)
    assert isinstance(schedule, Segments) == (10 <= states < 101) and isinstance(schedule, Binomial) == (states < 10)
    assert kept(Checkpointed(memory=states * STATE), 100) <= 3 * (states + 1)


def test_truncated_keeps_its_window():
    assert kept(Truncated(last=7), 50) <= 3 * (7 + 1)


@pytest.mark.parametrize("adjoint", [StoreAll(), Checkpointed(), Truncated(last=5)], ids=str)
def test_no_step_keeps_its_autograd_graph(adjoint):
    """Tensors that the loss saves for its backward are gone by the next step."""
    held = 0

    class Token:
        def __init__(self, tensor):
            nonlocal held
            held += 1
            self.tensor = tensor

        def __del__(self):
            nonlocal held
            held -= 1

    def watched(p, d, step):
        assert held == 0
        with torch.autograd.graph.saved_tensors_hooks(Token, lambda token: token.tensor):
            value = loss(p, d, step)
        assert held > 0
        return value

    p = params()
    outer(unroll(watched, p, data(), optimizer=Adam(0.01), steps=8, adjoint=adjoint)).backward()
    assert held == 0


def test_the_reference_keeps_every_graph():
    """The check above can fail: plain autograd does hold what each step saved."""
    tokens = []

    class Token:
        def __init__(self, tensor):
            self.tensor = tensor
            tokens.append(weakref.ref(self))

    def watched(p, d, step):
        with torch.autograd.graph.saved_tensors_hooks(Token, lambda token: token.tensor):
            return loss(p, d, step)

    final = unroll(watched, params(), data(), optimizer=Adam(0.01), steps=3, adjoint=Unrolled())
    assert alive(tokens) > 2 * len(tokens) / 3  # more than two of the three steps can hold
    del final


def test_snapshots_are_gone_after_the_backward_pass():
    made = []
    final = unroll(loss, params(), data(), optimizer=Watched(made), steps=50)
    assert alive(made) == 50
    outer(final).backward()
    assert alive(made) == 1


def test_a_second_backward_pass_gives_the_same():
    p, d = params(), data()
    value = outer(unroll(loss, p, d, optimizer=Adam(0.01), steps=9, adjoint=Checkpointed()))
    first = torch.autograd.grad(value, d["x"], retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(value, d["x"])[0])


def test_only_unrolled_can_be_differentiated_twice():
    def second(adjoint):
        p, d = params(), data()
        final = unroll(loss, p, d, optimizer=SGD_SMOOTH, steps=3, adjoint=adjoint)
        (grad,) = torch.autograd.grad(outer(final), d["x"], create_graph=True)
        return torch.autograd.grad(grad.square().sum(), d["x"])[0]

    assert second(Unrolled()).abs().max() > 0
    with pytest.raises(NoSecondDerivativeError, match="Unrolled"):
        second(StoreAll())


SGD_SMOOTH = RULES["sgd, momentum, decay"](0.05)


@pytest.mark.parametrize("rule", ["adam", "sgd, nesterov, decay"])
@pytest.mark.parametrize("width", [1, 4])
def test_truncated_is_autograd_with_a_cut_before_the_window(rule, width):
    steps = 10
    rates = torch.linspace(0.01, 0.1, steps, dtype=torch.float64).requires_grad_()

    d = data()
    final = unroll(loss, params(), d, optimizer=RULES[rule](rates), steps=steps, adjoint=Truncated(last=width))
    got = torch.autograd.grad(outer(final), [d["x"], rates])

    cut = steps - width
    with torch.no_grad():
        w, state = unroll(loss, params(), d, optimizer=RULES[rule](rates[:cut]), steps=cut, return_state=True)
    reference = unroll(
        loss, w, d, optimizer=RULES[rule](rates[cut:]), steps=width, state=state, adjoint=Unrolled()
    )
    expected = torch.autograd.grad(outer(reference), [d["x"], rates])
    for name in final:
        assert torch.equal(final[name], reference[name])
    assert_close(dict(enumerate(got)), dict(enumerate(expected)))
    assert got[1][:cut].abs().max() == 0


def test_truncated_gives_the_start_no_gradient():
    p, d = params(), data()
    outer(unroll(loss, p, d, optimizer=Adam(0.01), steps=6, adjoint=Truncated(last=3))).backward()
    assert d["x"].grad is not None and all(value.grad is None for value in p.values())


def test_a_random_window_ends_where_it_was_drawn():
    steps, width, ends = 9, 4, set()
    for seed in range(40):
        d = data()
        adjoint = Truncated(random=width, seed=seed)
        final, state = unroll(
            loss, params(), d, optimizer=Adam(0.05), steps=steps, adjoint=adjoint, return_state=True
        )
        ends.add(state.step)
        if seed < 4:
            shorter = data()
            same = unroll(
                loss, params(), shorter, optimizer=Adam(0.05), steps=state.step, adjoint=Truncated(last=width)
            )
            got, expected = (torch.autograd.grad(outer(f), x["x"])[0] for f, x in ((final, d), (same, shorter)))
            assert torch.equal(got, expected)
    assert ends == set(range(width, steps + 1))


def test_without_a_seed_windows_follow_the_global_generator():
    torch.manual_seed(0)
    first = [Truncated(random=2).window(50) for _ in range(5)]
    torch.manual_seed(0)
    assert [Truncated(random=2).window(50) for _ in range(5)] == first
    assert len(set(first)) > 1


def test_senseless_strategies_are_refused():
    for make in (
        lambda: Checkpointed(every=0),
        lambda: Checkpointed(every=2, memory=100),
        lambda: Truncated(),
        lambda: Truncated(last=2, random=2),
        lambda: Truncated(last=0),
        lambda: Truncated(random=0),
    ):
        with pytest.raises(OptionError):
            make()


@pytest.mark.parametrize("grad", [True, False])
def test_a_budget_that_does_not_hold_two_states_is_refused(grad):
    with pytest.raises(MemoryBudgetError, match=str(STATE)), torch.set_grad_enabled(grad):
        unroll(loss, params(), data(), optimizer=Adam(), steps=5, adjoint=Checkpointed(memory=2 * STATE - 1))
