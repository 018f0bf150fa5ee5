"""What is found out about a model by running it: of third parties' models, odd ones, and those that must be refused."""

import pytest
import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.model.sequential_recommender import GRU4Rec, SASRec
from torch import nn

from recbole_farzi.errors import ModelError
from recbole_farzi.inspection import check_twice_differentiable, inspect_model
from recbole_farzi.models import ModelFactory, without_dropout
from recbole_farzi.sequences import Windows
from recbole_farzi.student import Student


class WithBias(SASRec):
    """Scores that do not fit a table with more rows, and a loss of its own that gathers the target's score."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.item_bias = nn.Parameter(0.1 * torch.randn(self.n_items))

    def full_sort_predict(self, interaction):
        return super().full_sort_predict(interaction) + self.item_bias

    def calculate_loss(self, interaction):
        log_p = torch.log_softmax(self.full_sort_predict(interaction), dim=-1)
        return -log_p.gather(1, interaction[self.POS_ITEM_ID].unsqueeze(1)).mean()


class Penalised(GRU4Rec):
    def calculate_loss(self, interaction):
        return super().calculate_loss(interaction), 0.01 * self.item_embedding.weight.norm()


class Unknowing(GRU4Rec):
    """Its own loss compares ids, which no distribution answers; its scores do not."""

    def calculate_loss(self, interaction):
        target = interaction[self.POS_ITEM_ID]
        return super().calculate_loss(interaction) + (target < self.n_items // 2).float().mean()


class Prices(SASRec):
    def full_sort_predict(self, interaction):
        return super().full_sort_predict(interaction) * interaction["price"]


class Counts(SequentialRecommender):
    """Reads ids as numbers, not as rows of a table."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.weight = nn.Parameter(torch.randn(self.n_items))

    def full_sort_predict(self, interaction):
        return interaction[self.ITEM_SEQ].float().mean(dim=1, keepdim=True) * self.weight

    def calculate_loss(self, interaction):
        return nn.functional.cross_entropy(self.full_sort_predict(interaction), interaction[self.POS_ITEM_ID])


class FirstDerivativeOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class Once(GRU4Rec):
    def forward(self, item_seq, item_seq_len):
        return FirstDerivativeOnly.apply(super().forward(item_seq, item_seq_len))


class NoScores(SequentialRecommender):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.item_embedding = nn.Embedding(self.n_items, 4)


@pytest.fixture
def make(make_config, tiny_split):
    def made(model, dtype=torch.float64, **overrides):
        config, model_class = make_config(model, **overrides)
        model = without_dropout(ModelFactory(model_class, config, tiny_split.train.dataset)(0)).to(dtype)
        return Student(model, config=config)

    return made


def test_a_model_of_ones_own_with_a_bias_for_each_item(make):
    student = make(WithBias)
    assert student.traits.causal and not student.traits.linear_scores
    assert student.traits.objective == "cross-entropy" and not student.traits.note


def test_terms_of_the_loss_beside_the_cross_entropy_are_kept(make):
    student = make(Penalised)
    assert student.traits.objective == "own"
    windows = torch.randint(1, student.vocabulary, (3, 8))
    one_hot = nn.functional.one_hot(windows, student.vocabulary).double()
    penalty = 0.01 * student.model.item_embedding.weight.norm()
    torch.testing.assert_close(student.soft_loss(one_hot), student.training_loss(windows), rtol=1e-9, atol=0)
    plain = make(GRU4Rec)
    plain.model.load_state_dict(student.model.state_dict())
    rows = torch.log_softmax(plain.scores(windows[:, :-1]), -1).gather(-1, windows[:, 1:].unsqueeze(-1))
    torch.testing.assert_close(student.training_loss(windows), penalty - rows.mean(), rtol=1e-9, atol=0)


def test_a_loss_that_soft_events_cannot_answer_gives_way_to_that_of_the_scores(make):
    traits = make(Unknowing).traits
    assert traits.objective == "cross-entropy"
    assert traits.note.startswith("its own loss is not defined on soft events: it treats them differently")
    assert "\n" not in traits.reading


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Prices, "Prices reads 'price', which rows of users and items do not have"),
        (Counts, "Counts does not look the sequence of items up in an embedding table"),
        (NoScores, "NoScores has neither full_sort_predict nor predict"),
    ],
)
def test_what_cannot_read_soft_events_is_refused_in_one_line(make, model, reason):
    with pytest.raises(ModelError, match=reason) as caught:
        make(model)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_second_derivative_does_not_distil(make):
    student = make(Once)
    with pytest.raises(ModelError, match="Once cannot be differentiated twice") as caught:
        check_twice_differentiable(student)
    assert "\n" not in str(caught.value)
    check_twice_differentiable(make(GRU4Rec))


def test_users_of_a_summary_are_the_average_user(make):
    student = make("HGN")
    table = student.model.user_embedding.weight
    mean = table[1:].mean(dim=0)
    events = torch.randint(1, student.vocabulary, (2, 6))
    average = student.scores(events)
    student.forget_users()
    assert torch.equal(table[1:], mean.expand_as(table[1:]))
    for users in (torch.tensor([1, 2]), torch.tensor([7, 30])):
        torch.testing.assert_close(student.scores(events, users=users), average)


def test_users_whose_rows_are_equal_stay_equal(make):
    student = make("HGN").forget_users()
    loss = student.soft_loss(torch.softmax(torch.randn(2, 6, student.vocabulary).double(), -1))
    (gradient,) = torch.autograd.grad(loss, student.model.user_embedding.weight)
    torch.testing.assert_close(gradient[1:], gradient[1:2].expand_as(gradient[1:]))
    assert gradient.abs().max() > 0


def test_the_loss_on_last_events_is_a_part_of_that_on_all(make):
    """Windows that end at each event in turn: the mean over their last events is the mean over all positions."""
    student = make("STAMP")
    history = torch.randint(1, student.vocabulary, (1, 7))
    windows = torch.stack([nn.functional.pad(history[0, :end], (0, 7 - end)) for end in range(2, 8)])
    rows = Windows(windows, torch.ones(6, dtype=torch.long))
    torch.testing.assert_close(student.real_loss(rows, last_only=True), student.real_loss(history))
    torch.testing.assert_close(student.training_loss(rows, last_only=True), student.training_loss(history))


def test_a_graph_of_soft_events_is_a_chain(make):
    """An item that comes twice is one node of a graph over ids, and two events of a summary."""
    student = make("SRGNN", torch.float32)
    distinct, repeated = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[3, 4, 3, 6]])
    for events, same in ((distinct, True), (repeated, False)):
        virtual = torch.arange(4)[None] + student.traits.first
        soft = student.scores(virtual, distributions=nn.functional.one_hot(events[0], student.vocabulary).float())
        real = student.scores(events)
        assert torch.allclose(soft, real, rtol=1e-4, atol=1e-6) == same


def test_inspection_writes_nothing_into_the_model(make_config, tiny_split):
    config, model_class = make_config("BERT4Rec", mask_ratio=0.4)
    model = ModelFactory(model_class, config, tiny_split.train.dataset)(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = set(vars(model))
    assert inspect_model(model, config).objective == "sequence"
    assert set(vars(model)) == attributes and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
