"""Every sequential recommender that the installed RecBole exports, unmodified, on a real slice of ML-100K.

In each direction a model is used: it reads soft events as it reads the events themselves, distillation differentiates
through its training, and it trains on a summary and is evaluated by RecBole.
"""

import contextlib

import numpy as np
import pytest
import torch
from every_model import exported_models, settings, write_slice
from torch import nn
from torch.overrides import TorchFunctionMode

from recbole_farzi.adjoint import Adam, unroll
from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split
from recbole_farzi.inspection import check_twice_differentiable
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import read_options
from recbole_farzi.sequences import Windows, batch_order
from recbole_farzi.soft_events import SoftEvents, soft_distributions
from recbole_farzi.starts import random_start
from recbole_farzi.student import Student
from recbole_farzi.training import SummaryLoader, SummaryTrainer

pytestmark = pytest.mark.parametrize("name", exported_models())


class DoublePrecision(TorchFunctionMode):
    """Some models ask for 32-bit numbers by name, which finite differences cannot afford."""

    wider = {torch.float32: torch.float64, torch.complex64: torch.complex128}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float:
            return args[0].double()
        widen = {key: self.wider.get(value, value) if isinstance(value, torch.dtype) else value
                 for key, value in (kwargs or {}).items()}  # fmt: skip
        return func(*(self.wider.get(a, a) if isinstance(a, torch.dtype) else a for a in args), **widen)


class DetachedAreConstants(TorchFunctionMode):
    """What a model detaches (TransRec its regularisers) has no gradient: entered again, it gets what it got at first."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def __enter__(self):
        self.calls = 0
        return super().__enter__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is not torch.Tensor.detach:
            return result
        self.calls += 1
        self.kept.append(result)
        return self.kept[self.calls - 1]


@contextlib.contextmanager
def double_precision():
    before, made = torch.get_default_dtype(), torch.FloatTensor
    try:
        torch.set_default_dtype(torch.float64)
        torch.FloatTensor = torch.DoubleTensor
        with DoublePrecision():
            yield
    finally:
        torch.set_default_dtype(before)
        torch.FloatTensor = made


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_slice(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="session")
def loaded(folder):
    """Function from a model's name to its config, options and split; each is loaded once."""
    known = {}

    def load(name):
        if name not in known:
            config, model_class = build_config(name, "slice", (), settings(name, folder))
            options, split = read_options(config), load_split(config)
            known[name] = config, options, split, ModelFactory(model_class, config, split.train.dataset)
        return known[name]

    return load


@pytest.fixture
def job(name, loaded, workplace):
    return loaded(name)


@pytest.fixture
def double(job):
    """The model's student in float64, without dropout, and six real windows of its users."""
    config, _, split, factory = job
    with double_precision():
        model = factory(0, dropout=False).double()
        for kept, value in list(vars(model).items()):  # what a model keeps beside its parameters (KSR)
            if torch.is_tensor(value) and value.is_floating_point():
                setattr(model, kept, value.double())
        with torch.no_grad():  # away from where initial weights are 0 or all but, and gradients vanish or do not exist
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        yield Student(model, config=config), some_windows(split)


def some_windows(split, count=6):
    """Windows of the longest histories, all of the same length: real users, and no item twice in a history."""
    sequences = split.sequences
    longest = sorted(range(len(sequences)), key=lambda n: -len(sequences.items[n]))[:count]
    length = min(sequences.length + 1, min(len(sequences.items[n]) for n in longest))
    items = np.stack([sequences.items[n][:length] for n in longest])
    return Windows(torch.from_numpy(items), torch.from_numpy(sequences.users[longest]))


def one_hot(ids, size):
    return nn.functional.one_hot(ids, size).double()


def some_soft_events(student, rows=2, length=7):
    latent = torch.randn(rows, length, 3)
    return soft_distributions(latent, torch.randn(3, student.vocabulary))


def test_one_hot_soft_events_give_the_scores_of_the_ids(double):
    student, windows = double
    student.model.eval()
    ids, users, traits = windows.items[:, :-1], windows.users, student.traits
    ids, users = (ids, users) if traits.ranks else (ids[:1, :2], users[:1])
    virtual = torch.arange(ids.numel()).view(ids.shape) + traits.first
    real = student.scores(ids, users=users)
    soft_users = one_hot(users, traits.users) if traits.users else None
    soft = student.scores(virtual, distributions=one_hot(ids, student.vocabulary).flatten(0, 1), users=soft_users)
    assert real.shape == (*ids.shape, student.vocabulary)
    torch.testing.assert_close(soft[..., : student.vocabulary], real, rtol=1e-6, atol=1e-8)


def test_one_hot_soft_events_give_the_loss_of_the_ids(double):
    student, windows = double
    users = one_hot(windows.users, max(student.traits.users, int(windows.users.max()) + 1))
    torch.manual_seed(5)
    real = student.training_loss(windows, alone=True)
    torch.manual_seed(5)
    soft = student.soft_loss(one_hot(windows.items, student.vocabulary), users=users)
    assert torch.isfinite(real)
    torch.testing.assert_close(soft, real, rtol=1e-6, atol=1e-8)


def test_one_hot_targets_after_items_give_the_loss_of_the_ids(double):
    student, windows = double
    users = one_hot(windows.users, max(student.traits.users, int(windows.users.max()) + 1))
    torch.manual_seed(5)
    real = student.training_loss(windows, alone=True)
    torch.manual_seed(5)
    soft = student.soft_loss(SoftEvents(one_hot(windows.items, student.vocabulary), windows.items), users=users)
    torch.testing.assert_close(soft, real, rtol=1e-6, atol=1e-8)


def test_gradient_for_soft_events_agrees_with_finite_differences(double):
    student, _ = double
    soft = some_soft_events(student)
    direction = torch.randn_like(soft)
    direction[..., 0] = 0.0
    direction = (direction - direction.sum(-1, keepdim=True) / (student.vocabulary - 1)) * soft
    direction = direction - soft * direction.sum(-1, keepdim=True)  # sums to 0: distributions stay distributions

    constants = DetachedAreConstants()

    def loss(events):
        torch.manual_seed(5)  # the same negatives and masks
        with constants:
            return student.soft_loss(events)

    leaf = soft.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    step = 1e-4
    with torch.no_grad():
        difference = (loss(soft + step * direction) - loss(soft - step * direction)) / (2 * step)
    exact = (gradient * direction).sum()
    assert abs(exact) > 1e-9
    torch.testing.assert_close(exact, difference, rtol=2e-4, atol=1e-9)


def test_a_step_along_the_meta_gradient_lowers_the_real_loss(double, job):
    student, windows = double
    student.forget_users()
    inner, params = job[1].inner, student.parameter_dict()
    order = batch_order(4, inner.batch_size, inner.steps, seed=0)
    latent = torch.randn(4, 7, 3, requires_grad=True)
    decoder = torch.randn(3, student.vocabulary, requires_grad=True)

    def inner_loss(params, rows, step):
        with DoublePrecision():  # backward evaluates it outside of the fixture's
            return student.soft_loss(rows, params)

    def outer_loss(latent, decoder):
        final = unroll(
            inner_loss, params, soft_distributions(latent, decoder),
            optimizer=Adam(lr=inner.learning_rate, eps=1e-3), steps=inner.steps, batches=order, seed=0,
        )  # fmt: skip
        torch.manual_seed(5)
        return student.real_loss(windows, final)

    before = outer_loss(latent, decoder)
    gradients = torch.autograd.grad(before, (latent, decoder))
    norm = sum((g**2).sum() for g in gradients) ** 0.5
    assert torch.isfinite(norm) and norm > 0
    with torch.no_grad():
        step = 1e-5 / norm
        after = outer_loss(*(x - step * g for x, g in zip((latent, decoder), gradients)))
    assert after < before
    assert (before - after).item() == pytest.approx(1e-5 * norm.item(), rel=0.1)


def test_a_model_trained_on_a_summary_is_evaluated_by_recbole(job):
    config, options, split, factory = job
    summary = random_start(4, split.sequences.length + 1, 3, split.vocabulary, 1.0, seed=0)
    trainer = SummaryTrainer(config, factory(0), options.inner)
    check_twice_differentiable(trainer.student)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    loader = SummaryLoader(summary, split.train.dataset, options.inner, seed=0)
    trainer.fit(loader, verbose=False)
    assert any(not torch.equal(p, old) for p, old in zip(trainer.model.parameters(), before))
    result = trainer.evaluate(split.test, show_progress=False)
    assert set(result) == {"hit@5", "hit@10", "ndcg@5", "ndcg@10", "crossentropy"}
    assert np.isfinite(result["crossentropy"]) and 0 <= result["hit@10"] <= 1
