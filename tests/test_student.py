"""RecBole's models read at every position, over real and soft events; what is found out about a live model."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from recbole_farzi.inspection import inspect_model
from recbole_farzi.models import without_dropout
from recbole_farzi.soft_events import SoftEvents, soft_cross_entropy_once, soft_distributions
from recbole_farzi.student import Student

CAUSAL = ["SASRec", "GRU4Rec"]
NOT_CAUSAL = ["NARM", "STAMP"]


@pytest.fixture
def make_student(make_config, tiny_split):
    def make(name, dtype=torch.float64):
        config, model_class = make_config(name)
        torch.manual_seed(0)
        model = model_class(config, tiny_split.train.dataset)
        return Student(without_dropout(model).to(dtype))

    return make


def some_windows(student, rows=3):
    generator = torch.Generator().manual_seed(1)
    windows = torch.randint(1, student.vocabulary, (rows, student.length + 1), generator=generator)
    windows[1, 5:] = 0
    return windows


def some_distributions(student, rows=2):
    generator = torch.Generator().manual_seed(2)
    latent = torch.randn(rows, student.length + 1, 3, generator=generator, dtype=torch.float64)
    return soft_distributions(latent, torch.randn(3, student.vocabulary, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_models_are_found_causal(make_student, name):
    traits = make_student(name).traits
    assert traits.causal and traits.linear_scores and traits.ranks and not traits.probabilities
    assert (traits.item_tables, traits.user_tables, traits.users) == (("item_embedding.weight",), (), 0)
    assert traits.objective == "cross-entropy"


@pytest.mark.parametrize("name", NOT_CAUSAL)
def test_models_that_summarise_the_whole_sequence_are_not(make_student, name):
    assert not make_student(name).traits.causal


def test_a_model_that_sees_later_events_is_found_out(make_student):
    """SASRec with a bidirectional mask gathers positions like the causal one; only running it tells."""
    student = make_student("SASRec")
    student.model.get_attention_mask = lambda seq, bidirectional=False: torch.zeros(
        len(seq), 1, seq.shape[1], seq.shape[1], dtype=torch.float64
    )
    assert not inspect_model(student.model).causal


def test_a_teacher_is_part_of_the_targets(make_student):
    """Against the definition, over the positions that are not padding."""
    student, teacher = make_student("SASRec"), make_student("GRU4Rec")
    windows = some_windows(student)
    predicted = teacher.predictions(windows)
    assert not predicted.requires_grad and torch.allclose(predicted.sum(dim=-1), torch.ones(3 * student.length).double())
    expected = predicted.view(3, student.length, -1)
    logs = torch.log_softmax(student.scores(windows[:, :-1])[..., 1 : student.vocabulary], dim=-1)
    rows = []
    for row, position in windows[:, 1:].nonzero().tolist():
        target = 0.3 * expected[row, position].clone()
        target[windows[row, position + 1] - 1] += 0.7
        rows.append(-(target * logs[row, position]).sum())
    assert student.real_loss(windows, None, predicted, 0.3).item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-12)
    assert student.real_loss(windows, None, predicted, 0.0).item() == student.real_loss(windows).item()


@pytest.mark.parametrize("name", CAUSAL)
def test_later_events_do_not_move_earlier_scores(make_student, name):
    student = make_student(name)
    windows = some_windows(student)[:1, :-1]
    changed = windows.clone()
    changed[:, 6:] = 1 + changed[:, 6:] % (student.vocabulary - 1)
    before, after = student.scores(windows), student.scores(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6], rtol=1e-12, atol=1e-12)
    assert (before[:, 6:] - after[:, 6:]).abs().max() > 1e-6


@pytest.mark.parametrize("name", CAUSAL + NOT_CAUSAL)
def test_every_position_scores_as_recbole_scores_the_prefix(make_student, name):
    student = make_student(name)
    windows = some_windows(student)[:, :-1]
    scores = student.scores(windows)
    model = student.model
    for row, window in enumerate(windows):
        for end in range(1, int((window > 0).sum()) + 1):
            prefix = torch.zeros_like(window)
            prefix[:end] = window[:end]
            alone = model.full_sort_predict({model.ITEM_SEQ: prefix[None], model.ITEM_SEQ_LEN: torch.tensor([end])})
            torch.testing.assert_close(scores[row, end - 1], alone[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CAUSAL + NOT_CAUSAL)
def test_real_loss_is_the_mean_cross_entropy_over_real_targets(make_student, name):
    student = make_student(name)
    windows = some_windows(student)
    log_p = torch.log_softmax(student.scores(windows[:, :-1])[..., 1 : student.vocabulary], dim=-1)
    values = [
        -log_p[row, position, windows[row, position + 1] - 1]
        for row in range(len(windows))
        for position in range(student.length)
        if windows[row, position + 1] > 0
    ]
    torch.testing.assert_close(student.real_loss(windows), torch.stack(values).mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", CAUSAL + NOT_CAUSAL)
def test_one_hot_soft_events_are_real_events(make_student, name):
    student = make_student(name)
    windows = some_windows(student)[[0, 2]]
    one_hot = nn.functional.one_hot(windows, student.vocabulary).double()
    torch.testing.assert_close(student.soft_loss(one_hot), student.training_loss(windows), rtol=1e-10, atol=0)


class DenseGRU(nn.Module):
    """GRU4Rec's computation written out over dense distributions, as a reference for the virtual vocabulary."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, distributions):
        table = self.model.item_embedding.weight
        hidden, _ = self.model.gru_layers(distributions[:, :-1] @ table)
        log_p = torch.log_softmax((self.model.dense(hidden) @ table.T)[..., 1:], dim=-1)
        return -(distributions[:, 1:, 1:] * log_p).sum(-1).mean()


def test_virtual_vocabulary_equals_the_dense_computation_with_gradients(make_student):
    student = make_student("GRU4Rec")
    params = {name: p.requires_grad_(True) for name, p in student.parameter_dict().items()}
    distributions = some_distributions(student).requires_grad_(True)
    inputs = [distributions, *params.values()]
    virtual = student.soft_loss(distributions, params)
    by_virtual = torch.autograd.grad(virtual, inputs)
    dense = torch.func.functional_call(DenseGRU(student.model), {"model." + k: v for k, v in params.items()}, distributions)
    by_dense = torch.autograd.grad(dense, inputs)
    torch.testing.assert_close(virtual, dense, rtol=1e-12, atol=0)
    # The identity holds for distributions: its gradient may differ by a constant an event, which no softmax passes on.
    one, other = (g[..., 1:] - g[..., 1:].mean(-1, keepdim=True) for g in (by_virtual[0], by_dense[0]))
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-13)
    for name, one, other in zip(params, by_virtual[1:], by_dense[1:]):
        rows = slice(1, None) if name == "item_embedding.weight" else slice(None)  # padding carries no mass
        torch.testing.assert_close(one[rows], other[rows], rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("name", CAUSAL)
def test_linear_and_dense_soft_targets_agree(make_student, name):
    student = make_student(name)
    assert student.traits.linear_scores
    dense = Student(student.model, replace(student.traits, linear_scores=False))
    distributions = some_distributions(student)
    torch.testing.assert_close(student.soft_loss(distributions), dense.soft_loss(distributions), rtol=1e-12, atol=0)


@pytest.mark.parametrize("read", ["items", "distributions"])
@pytest.mark.parametrize("name", [*CAUSAL, *NOT_CAUSAL, "CORE", "BERT4Rec"])
def test_the_loss_to_train_with_is_the_one_that_distillation_differentiates(make_student, monkeypatch, name, read):
    """Value and gradients, for models that are causal, read prefixes, normalise, or mask; where the loss is a cross-entropy there is a faster way to it."""
    ways = []
    monkeypatch.setattr("recbole_farzi.student.soft_cross_entropy_once", lambda *given: ways.append(1) or soft_cross_entropy_once(*given))
    student, distributions = make_student(name), some_distributions(make_student(name))
    events = SoftEvents(distributions, some_windows(student, len(distributions)).clamp(min=1)) if read == "items" else distributions
    parameters = [p for p in student.parameters() if p.requires_grad]
    found = []
    for loss in (student.training_loss_on, student.soft_loss):
        torch.manual_seed(0)  # of what is masked
        value = loss(events)
        found.append((value, *torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)))
    for mine, reference in zip(*found):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-12)
    assert bool(ways) == (read == "items" and name in [*CAUSAL, "BERT4Rec"])


def test_normalised_scores_are_found_not_linear(make_student):
    assert not make_student("CORE").traits.linear_scores


def test_soft_loss_with_given_parameters_leaves_the_model_alone(make_student):
    student = make_student("SASRec")
    before = student.parameter_dict()
    other = {name: value + 0.1 for name, value in before.items()}
    assert student.soft_loss(some_distributions(student), other) != student.soft_loss(some_distributions(student))
    for name, value in student.parameter_dict().items():
        assert torch.equal(value, before[name])


def test_inspection_leaves_modes_and_random_streams_alone(make_student):
    model = make_student("SASRec").model.train()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    inspect_model(model)
    assert model.training
    assert torch.equal(torch.rand(3), expected)
    assert "gather_indexes" not in vars(model)
