"""Sums over the vocabulary in blocks: value, first and second derivatives against the whole, and what exists at a time."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recbole_farzi import inspection, vocabulary_blocks
from recbole_farzi.adjoint import Adam, unroll
from recbole_farzi.distillation import Distiller
from recbole_farzi.models import ModelFactory, without_dropout
from recbole_farzi.options import read_options
from recbole_farzi.soft_events import LatentEvents, SoftEvents, rows_of, soft_distributions
from recbole_farzi.starts import random_start
from recbole_farzi.student import Student
from recbole_farzi.training import SummaryLoader, SummaryTrainer
from recbole_farzi.vocabulary_blocks import log_sum_exp, soft_embeddings

ROWS, ITEMS, WIDTH, RANK, TAU = 5, 23, 4, 3, 0.7


@pytest.fixture(params=[1, 3, 22, 100], ids="block of {}".format)
def blocks(request, monkeypatch):
    monkeypatch.setattr(vocabulary_blocks, "_SCORES", {})
    monkeypatch.setattr(vocabulary_blocks, "_SCORES_ELSEWHERE", 1)
    monkeypatch.setattr(vocabulary_blocks, "_LEAST", request.param)


@pytest.fixture
def few_items_at_a_time(monkeypatch):
    """Every summary is read in blocks, of four items."""
    monkeypatch.setattr(vocabulary_blocks, "_SCORES", {})
    monkeypatch.setattr(vocabulary_blocks, "_SCORES_ELSEWHERE", 1)
    monkeypatch.setattr(vocabulary_blocks, "_LEAST", 4)
    monkeypatch.setattr(inspection, "WHOLE_EVENTS", 0)


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_(True)


def close(mine, theirs):
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def twice(function, inputs, first):
    """Value, gradient for the first few inputs, and the gradient of that gradient along a direction for all of them."""
    value = function(*inputs)
    grads = torch.autograd.grad(value, inputs[:first], create_graph=True)
    generator = torch.Generator().manual_seed(1)
    along = sum((g * torch.randn(g.shape, generator=generator, dtype=g.dtype)).sum() for g in grads)
    return [value, *grads, *torch.autograd.grad(along, inputs)]


def test_log_sum_exp_and_its_derivatives(blocks):
    weights = torch.randn(ROWS, dtype=torch.float64)
    inputs = [drawn(ROWS, WIDTH), drawn(ITEMS, WIDTH)]
    mine = twice(lambda h, table: (weights * log_sum_exp(h, table).square()).sum(), inputs, 2)
    theirs = twice(lambda h, table: (weights * torch.logsumexp(h @ table[1:].T, 1).square()).sum(), inputs, 2)
    close(mine, theirs)


def test_large_scores_do_not_overflow(blocks):
    states, table = 1e3 * drawn(ROWS, WIDTH), drawn(ITEMS, WIDTH)
    close([log_sum_exp(states, table)], [torch.logsumexp(states @ table[1:].T, 1)])


def test_soft_embeddings_and_their_derivatives(blocks):
    """The gradient for the table is differentiated, once more for everything; in a function that is not linear in them."""
    inputs = [drawn(ITEMS, WIDTH), drawn(ROWS, RANK), drawn(RANK, ITEMS), drawn(ITEMS)]
    weights = torch.randn(ROWS, WIDTH, dtype=torch.float64)

    def mine(table, latent, decoder, bias):
        return (weights * soft_embeddings(latent, decoder, bias, TAU, table).square()).sum()

    def theirs(table, latent, decoder, bias):
        return (weights * (soft_distributions(latent, decoder, TAU, bias) @ table).square()).sum()

    close(twice(mine, inputs, 1), twice(theirs, inputs, 1))
    close(torch.autograd.grad(mine(*inputs), inputs), torch.autograd.grad(theirs(*inputs), inputs))


def test_mixed_precision_around_it_is_left_out(blocks):
    """RecBole's enable_amp takes losses under autocast."""
    torch.manual_seed(0)
    states, table, latent, decoder, bias = torch.randn(3, 2), torch.randn(9, 2), torch.randn(3, 2), torch.randn(2, 9), torch.randn(9)
    expected = log_sum_exp(states, table), soft_embeddings(latent, decoder, bias, TAU, table)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = log_sum_exp(states, table), soft_embeddings(latent, decoder, bias, TAU, table)
        assert log_sum_exp(states.bfloat16(), table).dtype == torch.float32
    assert all(map(torch.equal, found, expected))


def test_a_second_derivative_that_is_not_there_is_an_error():
    inputs = [drawn(ROWS, RANK), drawn(RANK, ITEMS), drawn(ITEMS)]
    value = soft_embeddings(*inputs, TAU, drawn(ITEMS, WIDTH)).square().sum()
    (gradient,) = torch.autograd.grad(value, inputs[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        gradient.sum().backward()


# --- a RecBole model --------------------------------------------------------------------------------------------------


@pytest.fixture
def make_student(make_config, tiny_split):
    def make(name, dtype=torch.float64, dropout=False, **overrides):
        config, model_class = make_config(name, **overrides)
        torch.manual_seed(0)
        model = model_class(config, tiny_split.train.dataset)
        return Student((model if dropout else without_dropout(model)).to(dtype).train())

    return make


def some_events(student, inputs, dtype=torch.float64):
    """The same soft events whole and as what they are made of."""
    latent, decoder, bias = (
        torch.randn(*shape, dtype=dtype) for shape in ((4, student.length + 1, 3), (3, student.vocabulary), (student.vocabulary,))
    )
    items = torch.randint(1, student.vocabulary, latent.shape[:2]) if inputs else None
    if inputs:
        items[0, 1] = items[0, 0]
    return latent.requires_grad_(True), decoder.requires_grad_(True), bias.requires_grad_(True), items


def whole(latent, decoder, bias, items):
    p = soft_distributions(latent, decoder, TAU, bias)
    return p if items is None else SoftEvents(p, items)


def in_blocks(latent, decoder, bias, items):
    return LatentEvents(latent, decoder, bias, TAU, items)


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec"])
def test_hidden_states_are_what_scores_are_products_of(make_student, name):
    student = make_student(name)
    assert student.traits.hidden
    ids = torch.randint(1, student.vocabulary, (3, student.length))
    ids[0, 5:] = 0
    torch.testing.assert_close(student.hidden(ids) @ student.item_table().T, student.scores(ids), rtol=1e-12, atol=1e-14)


def test_models_whose_scores_are_otherwise_have_none(make_student):
    """NARM is not causal; and a SASRec whose scores have something of the table beside products with it."""
    assert not make_student("NARM").traits.hidden
    student = make_student("SASRec")
    student.model.full_sort_predict = lambda rows, original=student.model.full_sort_predict: (
        original(rows) + student.model.item_embedding.weight.square().sum()
    )
    traits = inspection.inspect_model(student.model)
    assert not traits.hidden and not traits.by_blocks(10**12)


def test_what_is_large_as_a_whole_is_read_in_blocks(make_student):
    traits = make_student("SASRec").traits
    most = inspection.WHOLE_EVENTS // (4 * traits.vocabulary)
    assert not traits.by_blocks(most) and traits.by_blocks(most + 1)
    assert not replace(traits, hidden=False).by_blocks(most + 1)


@pytest.mark.parametrize("inputs", [True, False], ids=["items", "soft"])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec"])
def test_the_loss_its_gradient_and_both_products(few_items_at_a_time, make_student, name, dropout, inputs):
    student = make_student(name, dropout=dropout)
    params = {key: value.requires_grad_(True) for key, value in student.parameter_dict().items()}
    *made, items = some_events(student, inputs)

    def loss(read):
        def function(*values):
            torch.manual_seed(3)
            given = dict(zip(params, values))
            return student.soft_loss(read(*values[len(params) :], items), given)

        return function

    every = [*params.values(), *made]
    with torch.backends.cudnn.flags(enabled=False), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        mine, theirs = (twice(loss(read), every, len(params)) for read in (in_blocks, whole))
    assert theirs[-1].abs().max() > 1e-6  # the mixed product is something
    close(mine, theirs)


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that is made inside."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))])
        return out


@pytest.mark.parametrize("inputs", [True, False], ids=["items", "soft"])
def test_no_tensor_of_events_and_items_exists(few_items_at_a_time, make_student, inputs):
    """40 sequences of 11 events over 30 items and the padding; the attention's are the largest tensors that are left."""
    student = make_student("SASRec")
    *made, items = (torch.cat([x] * 10).detach() if x is not None and x.dim() == 3 else x for x in some_events(student, inputs))
    items = None if items is None else items.repeat(10, 1)
    params, made = student.parameter_dict(), [x.detach().requires_grad_(True) for x in made]
    sizes = {}
    for read in (in_blocks, whole):
        with Largest() as found:
            final = unroll(
                lambda params, rows, step: student.soft_loss(rows, params), params, read(*made, items), optimizer=Adam(lr=0.01, eps=1e-3),
                steps=2,
            )  # fmt: skip
            sum(value.sum() for value in final.values()).backward()
        sizes[read] = found.numel
    events, vocabulary = 40 * (student.length + (0 if inputs else 1)), student.vocabulary
    assert sizes[in_blocks] < events * (vocabulary - 1) <= sizes[whole]


@pytest.fixture
def make_distiller(make_config, tiny_split):
    def make(dtype=torch.float64, inputs=True, **overrides):
        config, model_class = make_config("SASRec", farzi_outer_clip_norm=1e9, **overrides)
        options = read_options(config)
        torch.manual_seed(0)
        model = without_dropout(ModelFactory(model_class, config, tiny_split.train.dataset)(0).to(dtype)).train()
        student, judge = Student(model), Student(copy.deepcopy(model))
        start = random_start(4, 11, 3, tiny_split.vocabulary, TAU, seed=0)
        start = replace(start, **{name: getattr(start, name).to(dtype) for name in ("latent", "decoder", "bias")})
        if inputs:
            start = replace(start, inputs=torch.randint(1, tiny_split.vocabulary, (4, 11), generator=torch.Generator().manual_seed(2)))

        def initial(seed):
            generator = torch.Generator().manual_seed(seed)
            return {
                name: torch.randn(p.shape, dtype=dtype, generator=generator) * 0.1 for name, p in student.parameter_dict().items()
            }

        return Distiller(
            student, judge, start, options.inner, options.outer, initial, tiny_split.sequences, seed=3,
            experts=((initial(1), initial(2), initial(3)),), ranks=options.summary.tucker_ranks,
        )  # fmt: skip

    return make


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"inputs": False},
        {"farzi_window": 2, "farzi_window_from": 0.0, "farzi_trajectories": 2, "farzi_checkpoint_every": -1},
        {"farzi_factorisation": "tucker", "farzi_kernels": "captured"},
        {"farzi_objective": "gradient"},
        {"farzi_objective": "trajectory", "farzi_pool_snapshots": [1, 2], "epochs": 3},
    ],
    ids=lambda options: "-".join(f"{name.removeprefix('farzi_')}={value}" for name, value in options.items()) or "default",
)
def test_distillation_in_blocks_is_distillation(make_distiller, monkeypatch, request, options):
    """The meta-gradient of each of a few outer steps, and the summary that they end in, in float64."""
    options = {"farzi_outer_teacher": 0.0, **options}
    seen = {}
    for way in ("whole", "blocks"):
        if way == "blocks":
            request.getfixturevalue("few_items_at_a_time")
        distiller = make_distiller(**options)
        assert distiller.by_blocks == (way == "blocks")
        step = distiller.optimizer.step
        found = seen[way] = []
        distiller.optimizer.step = lambda: (found.extend(t.grad.clone() for t in distiller.tensors), step())
        losses = [distiller.step().loss for _ in range(3)]
        found.extend([*distiller.summary.tensors, torch.tensor(losses)])
    for mine, theirs in zip(seen["blocks"], seen["whole"], strict=True):
        assert theirs.norm() > 0
        assert (mine - theirs).norm() <= 1e-8 * theirs.norm()


def test_a_distillation_in_blocks_continues_exactly(few_items_at_a_time, make_distiller):
    whole, first = make_distiller(torch.float32), make_distiller(torch.float32)
    losses = [whole.step().loss for _ in range(3)]
    assert first.step().loss == losses[0]
    second = make_distiller(torch.float32)
    second.restore(copy.deepcopy(first.state()))
    assert [second.step().loss for _ in range(2)] == losses[1:]


@pytest.mark.parametrize("inputs", [True, False], ids=["items", "soft"])
def test_students_train_on_a_summary_in_blocks(make_config, tiny_split, request, inputs):
    config, model_class = make_config("SASRec")
    inner = read_options(config).inner
    factory = ModelFactory(model_class, config, tiny_split.train.dataset)
    summary = random_start(4, 11, 3, tiny_split.vocabulary, TAU, seed=0)
    if inputs:
        summary = replace(summary, inputs=torch.randint(1, tiny_split.vocabulary, (4, 11)))
    traits, trained = Student(factory(5)).traits, []
    for way in ("whole", "blocks"):
        if way == "blocks":
            request.getfixturevalue("few_items_at_a_time")
        assert isinstance(summary.training_events(traits), LatentEvents) == (way == "blocks")
        trainer = SummaryTrainer(config, factory(5, dropout=inner.dropout), inner, traits)
        torch.manual_seed(7)
        trainer.fit(SummaryLoader(summary, tiny_split.train.dataset, inner, 5, traits), verbose=False)
        trained.append(torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()]))
    assert (trained[0] - trained[1]).norm() <= 1e-3 * trained[0].norm()


def test_rows_and_places_of_latent_events():
    events = LatentEvents(torch.randn(4, 5, 2), torch.randn(2, 7), torch.randn(7), 0.5, torch.arange(20).view(4, 5))
    some = rows_of(events, torch.tensor([2, 0])).to("cpu")
    assert torch.equal(some.latent, events.latent[[2, 0]]) and torch.equal(some.inputs, events.inputs[[2, 0]])
    assert some.decoder is events.decoder and some.temperature == 0.5
    assert rows_of(events._replace(inputs=None), torch.tensor([1])).inputs is None
