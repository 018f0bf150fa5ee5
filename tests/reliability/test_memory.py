"""Memory: estimated before the start, refused with settings that fit, and fewer states where it ends all the same."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from recbole_farzi import inspection, memory, trainer as trainer_module
from recbole_farzi.distillation import Distiller
from recbole_farzi.ensemble import Ensemble
from recbole_farzi.errors import OptionError
from recbole_farzi.generation import bytes_at_once, generate_like, generate_windows, histories_at_once
from recbole_farzi.interpolation import Interpolated
from recbole_farzi.markov import MarkovChain, transition_counts
from recbole_farzi.memory import Costs, PeakBytes, Plan, check_plan, is_out_of_memory, measure, needed, stored_states
from recbole_farzi.models import ModelFactory, without_dropout
from recbole_farzi.options import read_options
from recbole_farzi.sequences import Sequences, item_shares
from recbole_farzi.starts import random_start
from recbole_farzi.student import Student
from recbole_farzi.trainer import FarziTrainer

PLAN = Plan(
    vocabulary=1000, parameters=100_000, vectors=3, length=51, latent_dim=8, window=40, trajectories=1, sequences=50, inner_batch_size=10,
    outer_block=128, checkpoint_every=0, train_batch_size=64, eval_batch_size=512,
)  # fmt: skip
COSTS = Costs(inner=(10_000_000, 2_000_000, 10_000), outer=(5_000_000, 1_000_000, 0))


# --- counting ---------------------------------------------------------------------------------------------------------


def test_bytes_are_those_of_the_tensors_that_are_alive_at_once():
    with PeakBytes() as counted:
        a = torch.zeros(1000)  # 4000 bytes
        b = a + 1
        assert counted.now == counted.peak == 8000
        del b
        assert counted.now == 4000
        a.add_(1)
        a.view(10, 100)[3]  # views take nothing
        assert counted.now == 4000
        del a
        torch.ones(500)
    assert counted.now == 0 and counted.peak == 8000


def test_what_autograd_keeps_is_counted():
    x = torch.zeros(1000, requires_grad=True)
    with PeakBytes() as counted:
        y = x.exp().sin().sum()  # keeps exp's result and sin's argument, which are one tensor, and frees sin's result
        assert counted.now == 4000 + 4
        y.backward()
    assert counted.peak >= 12000


@pytest.mark.parametrize(
    "steps, every, states", [(40, 0, 40), (40, -1, 7), (40, 1, 40), (40, 5, 13), (40, 40, 40), (40, 100, 40), (1, -1, 1), (2, 0, 2)]
)
def test_states_that_a_strategy_holds(steps, every, states):
    assert stored_states(steps, every) == states


# --- the estimate against the truth -----------------------------------------------------------------------------------


@pytest.fixture
def make_distiller(make_config, tiny_split):
    def make(teachers=0, **overrides):
        config, model_class = make_config(**overrides)
        options = read_options(config)
        model = without_dropout(ModelFactory(model_class, config, tiny_split.train.dataset)(0)).train()
        student, judge = Student(model), Student(copy.deepcopy(model))
        start = random_start(
            options.summary.sequences, options.summary.length, 3, tiny_split.vocabulary, 1.0, seed=0
        )
        members = [Student(copy.deepcopy(model).eval(), last_only=True) for _ in range(teachers)]
        distiller = Distiller(
            student, judge, start, options.inner, options.outer, lambda seed: student.parameter_dict(), tiny_split.sequences, 3,
            teacher=Ensemble(members) if members else None,
        )  # fmt: skip
        if members:
            distiller.generated = generate_like(distiller.teacher, tiny_split.sequences, tiny_split.counts, options.outer.written, 0)
        return config, distiller

    return make


@pytest.mark.parametrize(
    "options",
    [
        {"farzi_inner_steps": 30, "farzi_window": 30},
        {"farzi_inner_steps": 30, "farzi_window": 30, "farzi_checkpoint_every": -1},
        {"farzi_sequences": 40, "farzi_inner_batch_size": 40},
        {"farzi_outer_batch_size": 200},
        {"model": "GRU4Rec", "farzi_inner_steps": 12, "farzi_window": 12},
        {"farzi_inner_steps": 30, "farzi_window": 30, "farzi_inner_optimizer": "rmsprop"},
    ],
    ids=lambda options: "-".join(f"{name.removeprefix('farzi_')}={value}" for name, value in options.items()),
)
def test_the_estimate_is_near_what_an_outer_step_holds(make_distiller, options):
    config, distiller = make_distiller(**options)
    costs = measure(distiller.student, distiller.judge, 11, torch.device("cpu"))
    plan = memory.plan(config, read_options(config), distiller.student)
    estimated = needed(plan, costs)["distillation"]
    distiller.step()  # the first makes the optimiser's moments and the first trajectory
    with PeakBytes() as counted:
        distiller.step()
    assert counted.peak / 1.5 < estimated < counted.peak * 2


@pytest.mark.parametrize("windows", [60, 400])
def test_the_estimate_with_a_teacher_that_writes_what_the_outer_loss_reads(make_distiller, windows):
    config, distiller = make_distiller(teachers=3, farzi_outer_generated=1.0, farzi_outer_teacher=1.0, farzi_outer_batch_size=windows)
    costs = measure(distiller.student, distiller.judge, 11, torch.device("cpu"), teacher=1.0)
    plan = memory.plan(config, read_options(config), distiller.student)
    distiller.step()
    with PeakBytes() as counted:
        distiller.step()
    assert counted.peak / 1.5 < needed(plan, costs)["distillation"] < counted.peak * 2


class Alike(torch.nn.Module):
    """A teacher to whom all items are alike, of a vocabulary that no test has the time to train on."""

    traits, length, vocabulary, last_only, device = None, 10, 20_000, True, torch.device("cpu")

    def row_scores(self, item_seq, lengths, users=None):
        return torch.zeros(len(item_seq), self.vocabulary)


@pytest.mark.parametrize("chain", [False, True])
def test_histories_that_are_written_take_what_is_planned_for_them(chain):
    teacher = Ensemble([Alike() for _ in range(3)])
    if chain:
        walk = np.random.default_rng(0).integers(1, 20_000, size=50_000)
        sequences = Sequences([(1, walk)], 20)
        teacher = Interpolated(teacher, MarkovChain(transition_counts(sequences, 20_000), item_shares(np.ones(20_000)), 10.0, 0.5), 0.3)
    with PeakBytes() as counted:
        generate_windows(teacher, np.ones(20_000), 3000, 2, False, seed=0)
    assert histories_at_once(20_000) < 300 and counted.peak < bytes_at_once(20_000) < 3000 * 20_000 * 8
    plan = replace(PLAN, writes=True, vocabulary=20_000, from_teacher=False)
    assert needed(plan, COSTS)["the start"] >= bytes_at_once(20_000)


def test_a_start_that_main_memory_holds_is_not_refused_for_the_device():
    plan = replace(PLAN, sequences=5000, latent_dim=2, inner_batch_size=1)
    start = needed(plan, COSTS)["the start"]
    with pytest.raises(OptionError, match="in the start, and 2.9 GiB are free"):
        check_plan(plan, COSTS, 10**12, main=start - 1)
    check_plan(plan, COSTS, 10**12, main=start)


@pytest.mark.parametrize("model, rows", [("SASRec", 1), ("STAMP", 8), ("BERT4Rec", 1)])
def test_the_plan_knows_how_a_model_reads_and_what_is_written(make_config, tiny_split, model, rows):
    for options, writes in (({}, True), ({"farzi_inputs": "real", "farzi_outer_generated": 0.0}, False)):
        config, model_class = make_config(model, **options)
        student = Student(ModelFactory(model_class, config, tiny_split.train.dataset)(0), config=config)
        plan = memory.plan(config, read_options(config), student)
        assert (plan.rows_per_window, plan.writes) == (rows, writes)


def test_a_batch_of_prefixes_has_more_rows():
    assert needed(replace(PLAN, rows_per_window=8), COSTS)["training"] > 5 * needed(PLAN, COSTS)["training"]


@pytest.mark.parametrize("options", [{}, {"farzi_sequences": 40, "farzi_inner_batch_size": 40}], ids=["few", "many"])
def test_the_estimate_of_soft_events_in_blocks(make_distiller, monkeypatch, options):
    monkeypatch.setattr(inspection, "WHOLE_EVENTS", 0)
    config, distiller = make_distiller(farzi_inner_steps=30, farzi_window=30, **options)
    plan = memory.plan(config, read_options(config), distiller.student)
    assert plan.by_blocks and distiller.by_blocks
    estimated = needed(plan, measure(distiller.student, distiller.judge, 11, torch.device("cpu"), latent_dim=3))["distillation"]
    distiller.step()
    with PeakBytes() as counted:
        distiller.step()
    assert counted.peak / 1.5 < estimated < counted.peak * 2


def test_soft_events_in_blocks_take_no_more_for_more_of_them():
    few = replace(PLAN, by_blocks=True, vocabulary=1_000_000)
    many = replace(few, sequences=100 * few.sequences)
    of_few, of_many = (needed(plan, COSTS)["distillation"] for plan in (few, many))
    latent = 99 * few.sequences * few.length * few.latent_dim * 4
    assert of_many - of_few == 6 * latent  # Z, its gradients, moments, mean and best
    assert needed(replace(few, by_blocks=False), COSTS)["distillation"] > of_many


def test_what_is_refused_in_blocks_is_lowered_to_what_is_in_blocks():
    """Soft events that are few enough to be made whole have not been measured so: 7 sequences are the fewest."""
    plan = replace(PLAN, by_blocks=True, vocabulary=100_000, eval_batch_size=1)
    sizes = {count: max(needed(replace(plan, sequences=count), COSTS).values()) for count in (6, 7)}
    assert 6 * 51 * 100_000 * 4 < memory.WHOLE_EVENTS < 7 * 51 * 100_000 * 4 and sizes[6] < sizes[7]
    assert refusal(plan, sizes[7])[1]["sequences"] == 7
    with pytest.raises(OptionError, match="nothing that could be lowered makes it fit: .* far fewer sequences"):
        check_plan(plan, COSTS, (sizes[6] + sizes[7]) // 2)


def test_only_a_teachers_start_is_factorised():
    plan = replace(PLAN, vocabulary=1_000_000, by_blocks=True)
    assert needed(plan, COSTS)["the start"] > 4 * 50 * 51 * 1_000_000 > needed(replace(plan, from_teacher=False), COSTS)["the start"]


def test_single_items_are_planned_and_may_be_fewer(make_config, tiny_split):
    plan = replace(PLAN, sequences=10, start_singles=999)
    room = needed(replace(plan, start_singles=500), COSTS)["the start"]
    assert needed(replace(plan, start_singles=0), COSTS)["the start"] < room < needed(plan, COSTS)["the start"]
    with pytest.raises(OptionError, match="it fits with --farzi_start_singles=500"):
        check_plan(plan, COSTS, 10**12, main=room)
    for singles, planned in ((None, tiny_split.vocabulary - 1), (7, 7)):
        config, model_class = make_config(farzi_start_singles=singles)
        student = Student(ModelFactory(model_class, config, tiny_split.train.dataset)(0), config=config)
        assert memory.plan(config, read_options(config), student).start_singles == planned


def test_over_a_large_vocabulary_less_is_measured_to_the_same_line(make_distiller, monkeypatch):
    _, distiller = make_distiller()

    def measured():
        return measure(distiller.student, distiller.judge, 11, torch.device("cpu"))

    whole = measured()
    monkeypatch.setattr(memory, "SCORES_IN_MEMORY", 1)
    part = measured()
    for curve, line in ((whole.inner, part.inner), (whole.outer, part.outer)):
        assert line[2] == 0.0
        for n in (1, 2):
            assert memory._of(line, n) == pytest.approx(memory._of(curve, n), rel=0.05)


def test_more_of_anything_takes_more():
    sizes = needed(PLAN, COSTS)
    for field in (
        "sequences", "inner_batch_size", "outer_block", "window", "parameters", "vectors", "vocabulary", "length", "latent_dim"
    ):
        larger = needed(replace(PLAN, **{field: 1000 * getattr(PLAN, field)}), COSTS)
        assert larger["distillation"] > sizes["distillation"], field
    assert needed(replace(PLAN, train_batch_size=1000), COSTS)["training"] > sizes["training"]
    assert needed(replace(PLAN, eval_batch_size=1000), COSTS)["evaluation"] > sizes["evaluation"]
    assert needed(replace(PLAN, rows=50), COSTS)["evaluation"] > 40 * sizes["evaluation"]
    assert needed(replace(PLAN, checkpoint_every=-1), COSTS)["distillation"] < sizes["distillation"]


@pytest.mark.parametrize(
    "options",
    [{}, {"farzi_pool_teachers": 2}, {"farzi_pretrained": 0.5}, {"farzi_objective": "trajectory"}],
    ids=lambda options: next(iter(options), "three teachers"),
)
def test_models_of_the_pool_that_are_kept_are_counted(make_config, tiny_split, monkeypatch, options):
    config, model_class = make_config(farzi_pool_models=3, epochs=2, farzi_pool_snapshots=[0, 1, 2, 4], farzi_outer_steps=1, **options)
    plans, made = [], []
    monkeypatch.setattr(memory, "check_plan", lambda plan, *rest: plans.append(plan))
    original = trainer_module.Distiller

    def distiller(*args, **kwargs):
        made.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(trainer_module, "Distiller", distiller)
    trainer = FarziTrainer(config, ModelFactory(model_class, config, tiny_split.train.dataset)(0))
    trainer.fit(tiny_split.train, tiny_split.valid)
    teachers = [dict(member.model.named_parameters()) for member in made[0]["teacher"].members]
    used = trainer.pool.snapshots if set(options) & {"farzi_pretrained", "farzi_objective"} else ()
    kept = [*trainer.pool.models, *teachers, *used, *(snapshot for expert in made[0]["experts"] for snapshot in expert)]
    names = dict(trainer.model.named_parameters())
    assert plans[0].kept * plans[0].parameters == sum(value.numel() for state in kept for name, value in state.items() if name in names)


# --- refusal ----------------------------------------------------------------------------------------------------------


def refusal(plan, room):
    with pytest.raises(OptionError) as caught:
        check_plan(plan, COSTS, room)
    message = str(caught.value)
    assert "\n" not in message
    changes = {
        name.removeprefix("farzi_"): int(value) for name, value in re.findall(r"--(\w+)=(-?\d+)", message)
    }
    return message, changes


def test_what_fits_is_not_refused():
    check_plan(PLAN, COSTS, max(needed(PLAN, COSTS).values()))


@pytest.mark.parametrize("share", [0.99, 0.9, 0.5, 0.3, 0.2])
@pytest.mark.parametrize(
    "plan",
    [PLAN, replace(PLAN, outer_block=4096), replace(PLAN, inner_batch_size=500, sequences=5000),
     replace(PLAN, train_batch_size=10_000), replace(PLAN, eval_batch_size=1_000_000)],
    ids=["default", "outer", "inner", "training", "evaluation"],
)  # fmt: skip
def test_a_plan_that_is_too_large_is_refused_with_settings_that_fit_and_no_lower_than_needed(plan, share):
    room = int(max(needed(plan, COSTS).values()) * share)
    message, changes = refusal(plan, room)
    assert "would take about" in message and "are free; it fits with --" in message
    fitting = replace(plan, **changes)
    check_plan(fitting, COSTS, room)
    assert fitting.inner_batch_size <= fitting.sequences
    for field, value in changes.items():  # one more of any of them does not fit
        if field != "checkpoint_every":
            assert value < getattr(plan, field)
            more = replace(fitting, **{field: value + 1})
            if more.inner_batch_size <= more.sequences:
                assert max(needed(more, COSTS).values()) > room
    if set(changes) - {"checkpoint_every"} and "checkpoint_every" in changes:  # the interval alone would not do
        assert max(needed(replace(plan, checkpoint_every=-1), COSTS).values()) > room


def test_storing_fewer_states_comes_first_because_it_changes_no_result():
    plan = replace(PLAN, window=400, parameters=10_000_000)
    _, changes = refusal(plan, int(max(needed(plan, COSTS).values()) * 0.5))
    assert changes == {"checkpoint_every": -1}


def test_a_model_of_which_no_second_fits_is_refused_before_it_is_made(make_config, tiny_split):
    config, model_class = make_config()
    inner, model = read_options(config).inner, ModelFactory(model_class, config, tiny_split.train.dataset)(0)
    numbers = sum(p.numel() for p in model.parameters())
    least = (2 + 2 * 3) * numbers * 4  # two models, two states of parameters and Adam's two moments
    memory.check_model(model, inner, least)
    with pytest.raises(OptionError, match=f"SASRec has {numbers:,} parameters .* take a smaller model"):
        memory.check_model(model, inner, least - 1)


def test_such_a_model_ends_a_job_before_its_pool(make_config, tiny_split, monkeypatch, workplace):
    config, model_class = make_config()
    trainer = FarziTrainer(config, ModelFactory(model_class, config, tiny_split.train.dataset)(0))
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    with pytest.raises(OptionError, match="take a smaller model"):
        trainer.fit(tiny_split.train, tiny_split.valid)
    assert not list(workplace.rglob("pool-*"))


def test_what_cannot_fit_says_so():
    message, changes = refusal(replace(PLAN, parameters=10**10), 2**30)
    assert changes == {} and "take a smaller model, fewer items or more memory" in message


def test_the_limits_of_the_process_count(monkeypatch):
    room = memory.available(torch.device("cpu"))
    assert 0 < room
    resource = pytest.importorskip("resource")
    used = memory.psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (used + 12_345, used + 12_345))
    assert memory.available(torch.device("cpu")) == pytest.approx(12_345, abs=5e7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_of_a_cuda_device():
    device = torch.device("cuda")
    free = memory.available(device)
    held = torch.zeros(2**26, device=device)
    assert free - memory.available(device) >= 2**28 * 0.9 and held.is_cuda


@pytest.mark.parametrize(
    "error, expected",
    [(MemoryError(), True), (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
     (RuntimeError("CUDA out of memory. Tried to allocate"), True), (RuntimeError("shapes do not match"), False)],
)  # fmt: skip
def test_errors_of_memory_are_told_from_others(error, expected):
    assert is_out_of_memory(error) == expected


# --- at run time ------------------------------------------------------------------------------------------------------


def losses(distiller, steps):
    return [distiller.step().loss for _ in range(steps)]


@pytest.mark.parametrize("window", [30, 20])
def test_memory_that_ends_stores_fewer_states_and_changes_no_bit(make_distiller, monkeypatch, window):
    options = {"farzi_inner_steps": 30, "farzi_window": window, "farzi_unroll": "last", "farzi_inner_dropout": True}
    _, whole = make_distiller(**options)
    expected = losses(whole, 3)
    _, distiller = make_distiller(**options)
    original = Distiller._advance

    def advance(self, trajectory, leaf, steps):
        held = stored_states(window, self.checkpoint_every)
        if self.steps_done >= 1 and held > 12:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate many bytes")
        return original(self, trajectory, leaf, steps)

    monkeypatch.setattr(Distiller, "_advance", advance)
    assert losses(distiller, 3) == expected
    assert all(torch.equal(a, b) for a, b in zip(distiller.tensors, whole.tensors))
    assert distiller.checkpoint_every != 0 and stored_states(window, distiller.checkpoint_every) <= 12
    assert distiller.skipped == 0


def test_memory_that_ends_whatever_is_stored_is_an_error(make_distiller, monkeypatch):
    _, distiller = make_distiller()
    monkeypatch.setattr(Distiller, "_advance", lambda *args: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        distiller.step()


def test_other_errors_are_not_taken_for_a_lack_of_memory(make_distiller, monkeypatch):
    _, distiller = make_distiller()
    calls = []

    def advance(*args):
        calls.append(1)
        raise RuntimeError("a bug")

    monkeypatch.setattr(Distiller, "_advance", advance)
    with pytest.raises(RuntimeError, match="a bug"):
        distiller.step()
    assert len(calls) == 1
