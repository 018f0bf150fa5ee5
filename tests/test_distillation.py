"""The outer loop: exact meta-gradients through a RecBole model, exact continuation, bad numbers."""

import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

import recbole_farzi.distillation
from recbole_farzi.adjoint import Adam, Checkpointed, Compiled, State, StoreAll, Unrolled, unroll
from recbole_farzi.distillation import Distiller
from recbole_farzi.models import without_dropout
from recbole_farzi.objectives import gradient_distance, trajectory_distance
from recbole_farzi.options import read_options
from recbole_farzi.sequences import Windows
from recbole_farzi.soft_events import SoftEvents, soft_distributions
from recbole_farzi.starts import random_start
from recbole_farzi.storage import load_tensors, save_tensors
from recbole_farzi.student import Student
from recbole_farzi.tucker import compose


@pytest.fixture
def make_distiller(make_config, tiny_split):
    def make(dtype=torch.float32, dropout=False, inputs=False, **overrides):
        config, model_class = make_config("SASRec", farzi_inner_dropout=dropout, **overrides)
        options = read_options(config)
        torch.manual_seed(0)
        model = model_class(config, tiny_split.train.dataset).to(dtype).train()
        judge = Student(without_dropout(copy.deepcopy(model)))
        student = Student(model if dropout else without_dropout(model))
        start = random_start(4, 11, 3, tiny_split.vocabulary, 1.0, seed=0)
        start = replace(start, **{name: getattr(start, name).to(dtype) for name in ("latent", "decoder", "bias")})
        if inputs:
            start = replace(start, inputs=torch.randint(1, tiny_split.vocabulary, (4, 11)))

        def initial(seed):
            torch.manual_seed(seed)
            return {name: torch.randn_like(p) * 0.1 for name, p in student.parameter_dict().items()}

        teacher = Student(without_dropout(model_class(config, tiny_split.train.dataset)).to(dtype))
        return Distiller(
            student, judge, start, options.inner, options.outer, initial, tiny_split.sequences, seed=3, teacher=teacher,
            experts=((initial(1), initial(2), initial(3)), (initial(4), initial(5))), ranks=options.summary.tucker_ranks,
        )  # fmt: skip

    return make


@pytest.mark.parametrize("share, written", [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_a_batch_of_the_outer_loss_has_its_share_of_generated_windows_in_turn(make_distiller, share, written):
    distiller = make_distiller(farzi_outer_batch_size=8, farzi_outer_generated=share)
    real = distiller._outer_batch()
    distiller.generated = Windows(torch.arange(1, 6)[:, None].expand(5, real.items.shape[1]), torch.full((5,), 99))
    for step in range(3):
        distiller.steps_done = step
        batch = distiller._outer_batch()
        assert batch.items.shape == real.items.shape
        assert batch.items[:written, 0].tolist() == [(step * written + place) % 5 + 1 for place in range(written)]
        assert batch.users.eq(99).sum() == written
    distiller.step()
    assert distiller.steps_done == 3 and all(torch.isfinite(t).all() for t in distiller.tensors)


@pytest.mark.parametrize("adjoint", [StoreAll(), Checkpointed(), Checkpointed(every=2)], ids=["store", "least", "every2"])
@pytest.mark.parametrize("dropout", [False, True])
def test_meta_gradient_of_a_recbole_model_is_exact(make_distiller, adjoint, dropout):
    """Gradients for Z, M, b and the initial weights against autograd through the unrolled loop, in float64."""
    distiller = make_distiller(torch.float64, dropout)
    student, windows = distiller.student, distiller.sequences.sample(6, np.random.default_rng(0))
    order = [torch.tensor([0, 2]), torch.tensor([1, 3]), torch.tensor([3, 0]), torch.tensor([2, 1]), torch.tensor([0, 1])]
    summary = [t.detach().clone().requires_grad_(True) for t in distiller.tensors]
    weights = {name: value.requires_grad_(True) for name, value in distiller.initial(0).items()}
    rate = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)

    def gradients(strategy):
        final = unroll(
            lambda params, rows, step: student.soft_loss(rows, params),
            weights,
            soft_distributions(summary[0], summary[1], 1.0, summary[2]),
            optimizer=Adam(lr=rate, eps=1e-4),
            steps=5,
            adjoint=strategy,
            batches=order,
            seed=9,
        )
        loss = distiller.judge.real_loss(windows, final)
        *of_summary, of_rate = torch.autograd.grad(loss, [*summary, rate], retain_graph=True)
        of_weights = torch.autograd.grad(loss, list(weights.values()))
        # one vector: the gradient for the attention's key bias is zero, so it has no relative error of its own
        return [*of_summary, of_rate, torch.cat([g.flatten() for g in of_weights])]

    for mine, reference in zip(gradients(adjoint), gradients(Unrolled())):
        assert reference.norm() > 0
        assert (mine - reference).norm() <= 1e-9 * reference.norm()


@pytest.mark.parametrize("inputs", [False, True], ids=["soft", "items"])
@pytest.mark.parametrize("taught", [0.0, 0.4])
def test_the_step_takes_the_gradient_of_the_windowed_loss(make_distiller, taught, inputs):
    """What Distiller.step feeds its optimiser, against autograd through everything, from the same trajectory."""
    options = {"farzi_window": 6, "farzi_outer_clip_norm": 1e9, "farzi_outer_teacher": taught, "inputs": inputs}
    distiller, reference = make_distiller(torch.float64, **options), make_distiller(torch.float64, **options)
    seen = []
    distiller.optimizer.step = lambda: seen.extend(t.grad.clone() for t in distiller.tensors)
    trajectory = reference._begin()
    batch = reference._outer_batch()
    final = unroll(
        lambda params, rows, step: reference.student.soft_loss(rows, params),
        trajectory.params,
        SoftEvents(reference._distributions(), reference.inputs) if inputs else reference._distributions(),
        optimizer=Adam(lr=torch.tensor(reference.inner.rates(), dtype=torch.float64), eps=reference.inner.eps),
        steps=6,
        adjoint=Unrolled(),
        batches=trajectory.order,
    )
    predicted = reference.teacher.predictions(batch) if taught else None
    expected = torch.autograd.grad(reference.judge.real_loss(batch, final, predicted, taught), reference.tensors)
    result = distiller.step()
    assert result.inner_step == 0 and not result.skipped
    assert (distiller.summary.inputs is not None) == inputs
    for mine, theirs in zip(seen, expected):
        assert (mine - theirs).norm() <= 1e-9 * theirs.norm()


@pytest.mark.parametrize("kernels", [pytest.param("compiled", marks=pytest.mark.slow), "captured"])
def test_prepared_kernels_give_the_same_summary(make_distiller, monkeypatch, kernels):
    """Traced and run without code generation, which takes long and which tests/adjoint/test_prepared.py has."""
    monkeypatch.setattr(recbole_farzi.distillation, "Compiled", functools.partial(Compiled, backend="eager"))
    eager, prepared = make_distiller(torch.float64), make_distiller(torch.float64, farzi_kernels=kernels)
    for _ in range(2):
        assert prepared.step().loss == pytest.approx(eager.step().loss, rel=1e-9)
    for mine, theirs in zip(prepared.tensors, eager.tensors):
        assert torch.allclose(mine, theirs, rtol=1e-6)


@pytest.mark.parametrize("way", ["last", "random"])
def test_the_last_steps_of_a_whole_inner_loop_are_differentiated(make_distiller, way):
    """Against a loop whose first steps run without derivatives, and the rest as autograd has it."""
    options = {"farzi_unroll": way, "farzi_window": 2, "farzi_outer_clip_norm": 1e9, "farzi_outer_teacher": 0.0}
    distiller, reference = make_distiller(torch.float64, **options), make_distiller(torch.float64, **options)
    gradients, ends = [], set()
    distiller.optimizer.step = lambda: gradients.append([t.grad.clone() for t in distiller.tensors])
    for number in range(3):
        assert distiller.step().inner_step == 0
        trajectory, batch = reference._begin(), reference._outer_batch()
        end = 6 if way == "last" else reference._adjoint(trajectory).window(6)[1]
        ends.add(end)
        loop = {"loss": lambda params, rows, step: reference.student.soft_loss(rows, params), "seed": trajectory.seed}
        rates = torch.tensor(reference.inner.rates(), dtype=torch.float64)
        params, state = trajectory.params, None
        for first, last, adjoint in ((0, end - 2, StoreAll()), (end - 2, end, Unrolled())):
            if first == last:
                continue
            params = {name: value.detach() for name, value in params.items()}
            slots = {s: {k: v.detach() for k, v in d.items()} for s, d in state.slots.items()} if state else None
            params, state = unroll(
                params=params, data=reference._distributions(), steps=last - first, adjoint=adjoint, return_state=True,
                optimizer=Adam(lr=rates[first:last], eps=reference.inner.eps), batches=trajectory.order[first:last],
                state=State(first, slots) if slots else None, **loop,
            )  # fmt: skip
        expected = torch.autograd.grad(reference.judge.real_loss(batch, params), reference.tensors)
        for mine, theirs in zip(gradients[number], expected):
            assert (mine - theirs).norm() <= 1e-9 * theirs.norm()
        reference.steps_done += 1
    assert ends == {6} if way == "last" else len(ends) > 1


def test_outer_steps_reduce_the_real_loss(make_distiller):
    distiller = make_distiller(
        farzi_outer_steps=40, farzi_outer_learning_rate=0.1, farzi_inner_learning_rate=0.05, farzi_inner_decay=0.0,
        farzi_outer_teacher=0.0,  # an untrained teacher has nothing to say
    )  # fmt: skip
    losses = [distiller.step().loss for _ in range(40)]
    assert sum(losses[-8:]) < sum(losses[:8])


def test_the_summary_is_the_running_mean_of_the_steps(make_distiller):
    distiller = make_distiller(farzi_outer_average=0.75, farzi_outer_learning_rate=0.1)
    expected = [t.detach().clone() for t in distiller.tensors]
    for _ in range(3):
        distiller.step()
        expected = [0.75 * mean + 0.25 * t.detach() for mean, t in zip(expected, distiller.tensors)]
    for mine, theirs in zip(distiller.summary.tensors, expected):
        assert torch.allclose(mine, theirs, atol=1e-6) and not mine.requires_grad
    last = make_distiller(farzi_outer_average=0.0)
    last.step()
    assert all(torch.equal(a, b.detach()) for a, b in zip(last.summary.tensors, last.tensors))


@pytest.mark.parametrize("window", [3, 6])
@pytest.mark.parametrize("dropout", [False, True])
def test_a_run_that_is_continued_equals_one_that_was_not_interrupted(make_distiller, tmp_path, window, dropout):
    whole = make_distiller(dropout=dropout, farzi_window=window)
    for _ in range(9):
        whole.step()
    first = make_distiller(dropout=dropout, farzi_window=window)
    for _ in range(4):
        first.step()
    save_tensors(tmp_path / "state.pt", first.state())
    torch.manual_seed(99)  # somebody else's random numbers must not matter
    second = make_distiller(dropout=dropout, farzi_window=window)
    second.restore(load_tensors(tmp_path / "state.pt"))
    for _ in range(5):
        second.step()
    for one, other in zip([*whole.tensors, *whole.averages], [*second.tensors, *second.averages]):
        assert torch.equal(one, other)
    assert whole.state()["counters"] == second.state()["counters"]


def test_trajectories_are_spread_over_the_inner_steps(make_distiller):
    distiller = make_distiller(farzi_inner_steps=12, farzi_window=3, farzi_trajectories=4, farzi_window_from=0.0)
    at = [distiller.step().inner_step for _ in range(16)]
    assert at[:4] == [0, 3, 6, 9]
    assert at[4:8] == [3, 6, 9, 0]
    assert sorted(at) == [0] * 4 + [3] * 4 + [6] * 4 + [9] * 4


def test_windows_may_begin_late(make_distiller):
    """Two windows of the last half: the rest is only taken, at the first turn of an inner loop."""
    distiller = make_distiller(farzi_inner_steps=12, farzi_window=3, farzi_trajectories=2, farzi_window_from=0.5)
    assert [distiller.step().inner_step for _ in range(8)] == [6, 9, 9, 0, 0, 9, 9, 0]
    assert [trajectory.step for trajectory in distiller.trajectories] == [0, 9]
    for share, first in ((0.0, 0), (0.6, 6), (0.9, 9), (1.0, 9)):
        options = {"farzi_inner_steps": 12, "farzi_window": 3, "farzi_window_from": share}
        assert make_distiller(**options)._first_window == first


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_a_late_window_has_the_gradient_of_the_last_steps(make_distiller, start):
    """From its beginning an inner loop is taken up to the window, and differentiated from there: as ``last`` does."""
    options = {"farzi_window": 2, "farzi_outer_clip_norm": 1e9, "farzi_trajectories": 1, "farzi_window_from": start}
    late, last = make_distiller(torch.float64, **options), make_distiller(torch.float64, farzi_unroll="last", **options)
    gradients = []
    for distiller in (late, last):
        distiller.optimizer.step = lambda of=distiller: gradients.append([t.grad.clone() for t in of.tensors])
        distiller.trajectories = [distiller._begin()]
        distiller.step()
    same = [torch.allclose(mine, theirs, rtol=1e-9, atol=0.0) for mine, theirs in zip(*gradients)]
    assert all(same) if start == 1.0 else not any(same)


def test_full_unrolls_begin_anew_each_time(make_distiller):
    distiller = make_distiller(farzi_window=6)
    assert [distiller.step().inner_step for _ in range(3)] == [0, 0, 0]
    assert distiller.begun == 4


def test_a_step_without_a_finite_gradient_is_skipped_and_counted(make_distiller):
    distiller = make_distiller(farzi_window=6)
    initial = distiller.initial
    distiller.initial = lambda seed: {name: value * float("nan") for name, value in initial(seed).items()}
    before = [t.detach().clone() for t in distiller.tensors]
    assert distiller.step().skipped
    assert distiller.skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before, distiller.tensors))
    distiller.initial = initial
    assert distiller.step().skipped  # the trajectory that was begun before the mend
    assert not distiller.step().skipped
    assert distiller.skipped == 2 and distiller.recipe == distiller.inner


MATCHES = [
    pytest.param({"farzi_objective": "gradient"}, id="gradient"),
    pytest.param({"farzi_objective": "trajectory", "farzi_pool_snapshots": [1, 2]}, id="trajectory"),
]


def taken(distiller):
    """The gradients for Z, M and b (or Tucker's factors, M and b) that a step feeds its optimiser."""
    seen = []
    distiller.optimizer.step = lambda: seen.extend(t.grad.clone() for t in distiller.tensors)
    distiller.step()
    return seen


def assert_same(mine, theirs):
    for one, other in zip(mine, theirs):
        assert other.norm() > 0
        assert (one - other).norm() <= 1e-9 * other.norm()


def trained(distiller, params, distributions, steps, trajectory):
    """Inner training as autograd has it."""
    rates = torch.tensor(distiller.inner.rates()[:steps], dtype=torch.float64)
    return unroll(
        lambda params, rows, step: distiller.student.soft_loss(rows, params), params, distributions, steps=steps,
        optimizer=Adam(lr=rates, eps=distiller.inner.eps), adjoint=Unrolled(), batches=trajectory.order[:steps],
    )  # fmt: skip


def test_a_step_takes_the_gradient_of_the_gradients_distance(make_distiller):
    """Against double backward through the whole summary at once."""
    options = {"farzi_objective": "gradient", "farzi_outer_clip_norm": 1e9, "farzi_inner_batch_size": 3}
    distiller, reference = make_distiller(torch.float64, **options), make_distiller(torch.float64, **options)
    params = {name: value.requires_grad_(True) for name, value in reference._begin().params.items()}
    real = torch.autograd.grad(reference._outer_loss(params), list(params.values()), allow_unused=True, materialize_grads=True)
    soft = reference.judge.soft_loss(reference._distributions(), params)
    mine = torch.autograd.grad(soft, list(params.values()), create_graph=True, allow_unused=True, materialize_grads=True)
    value = gradient_distance(dict(zip(params, mine)), dict(zip(params, real)))
    assert_same(taken(distiller), torch.autograd.grad(value, reference.tensors))


def test_a_step_takes_the_gradient_of_the_distance_to_the_next_snapshot(make_distiller):
    options = {"farzi_objective": "trajectory", "farzi_outer_clip_norm": 1e9, "farzi_pool_snapshots": [1, 2]}
    distiller, reference = make_distiller(torch.float64, **options), make_distiller(torch.float64, **options)
    trajectory = reference._begin()
    start, goal = reference._leg(trajectory.seed)
    assert all(torch.equal(trajectory.params[name], start[name]) for name in start)
    final = trained(reference, start, reference._distributions(), 3, trajectory)
    value = trajectory_distance(final, start, goal)
    assert_same(taken(distiller), torch.autograd.grad(value, reference.tensors))


def test_legs_lead_from_each_snapshot_to_the_next_of_the_same_expert(make_distiller):
    distiller = make_distiller(farzi_objective="trajectory", farzi_pool_snapshots=[1, 2])
    seen = {tuple(id(snapshot) for snapshot in distiller._leg(seed)) for seed in range(40)}
    first, second = distiller.experts
    assert seen == {(id(a), id(b)) for a, b in [(first[0], first[1]), (first[1], first[2]), (second[0], second[1])]}


def test_tucker_factors_take_the_gradient_of_their_product(make_distiller):
    """The gradient for Z at the same place, pushed through the product by autograd; M and b as ever."""
    options = {"farzi_window": 6, "farzi_outer_clip_norm": 1e9}
    tucker = {"farzi_factorisation": "tucker", "farzi_tucker_ranks": [4, 11]}  # full ranks: the same Z
    factors, latent = make_distiller(torch.float64, **options, **tucker), make_distiller(torch.float64, **options)
    torch.testing.assert_close(factors.summary.latent, latent.summary.latent)
    leaves = factors.tensors[:3]
    of_latent, *rest = taken(latent)
    expected = torch.autograd.grad(compose(*leaves), leaves, of_latent)
    assert_same(taken(factors), [*expected, *rest])


def test_tucker_ranks_bound_those_of_the_latent_summary(make_distiller):
    distiller = make_distiller(farzi_factorisation="tucker", farzi_tucker_ranks=[2, 3])
    for _ in range(3):
        distiller.step()
    latent = distiller.summary.latent.double()
    assert latent.shape == (4, 11, 3)
    assert torch.linalg.matrix_rank(latent.flatten(1), rtol=1e-5) == 2
    assert torch.linalg.matrix_rank(latent.movedim(1, 0).flatten(1), rtol=1e-5) == 3


@pytest.mark.parametrize("options", MATCHES)
def test_other_objectives_come_nearer_to_their_goal(make_distiller, options):
    distiller = make_distiller(
        **options, farzi_outer_steps=60, farzi_outer_learning_rate=0.1, farzi_inner_decay=0.0, farzi_outer_teacher=0.0,
    )  # fmt: skip
    losses = [distiller.step().loss for _ in range(60)]
    assert sum(losses[-12:]) < sum(losses[:12])


@pytest.mark.parametrize("options", [*MATCHES, pytest.param({"farzi_factorisation": "tucker"}, id="tucker")])
def test_other_objectives_go_on_as_if_never_interrupted(make_distiller, tmp_path, options):
    whole, first = (make_distiller(dropout=True, **options) for _ in range(2))
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    save_tensors(tmp_path / "state.pt", first.state())
    torch.manual_seed(99)
    second = make_distiller(dropout=True, **options)
    second.restore(load_tensors(tmp_path / "state.pt"))
    for _ in range(3):
        second.step()
    for one, other in zip([*whole.tensors, *whole.averages], [*second.tensors, *second.averages]):
        assert torch.equal(one, other)
