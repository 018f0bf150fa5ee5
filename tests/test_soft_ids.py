"""Operations on virtual ids are expectations over real ones; on one-hot ones they are PyTorch's own."""

import pytest
import torch
from torch import nn

from recbole_farzi.soft_ids import SoftIds, SoftVocabulary

V, FIRST, K = 7, 9, 5  # two ids of the model's own between


@pytest.fixture
def soft():
    probabilities = torch.rand(K, V, dtype=torch.float64)
    return SoftVocabulary(probabilities / probabilities.sum(-1, keepdim=True), FIRST)


@pytest.fixture
def hard():
    """Virtual ids that stand for the items 3, 0, 6, 2, 3, and these."""
    items = torch.tensor([3, 0, 6, 2, 3])
    return SoftVocabulary(nn.functional.one_hot(items, V).double(), FIRST), items


def table(rows=V):
    return torch.randn(rows, 4, dtype=torch.float64, requires_grad=True)


LOOKUPS = {
    "embedding": lambda ids, e: nn.functional.embedding(ids, e, 0),
    "embedding by keyword": lambda ids, e: nn.functional.embedding(input=ids, weight=e),
    "index": lambda ids, e: e[ids],
    "index with slice": lambda ids, e: e[ids, :],
    "index_select": lambda ids, e: torch.index_select(e, 0, ids.reshape(-1)),
}


@pytest.mark.parametrize("rows", [V, V + 1])
@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS)
def test_a_lookup_is_the_expected_row(soft, lookup, rows):
    e = table(rows)
    ids = torch.tensor([[2, FIRST + 1], [FIRST + 4, rows - 1]])
    with SoftIds(soft, [(e, soft)]):
        found = lookup(ids, e).reshape(2, 2, 4)
    torch.testing.assert_close(found[0, 0], e[2])
    torch.testing.assert_close(found[1, 1], e[rows - 1])
    torch.testing.assert_close(found[0, 1], soft.distributions[1] @ e[:V])
    torch.testing.assert_close(found[1, 0], soft.distributions[4] @ e[:V])


@pytest.mark.parametrize("rows", [V, V + 2])
def test_an_extended_table_has_the_expected_rows_last(soft, rows):
    e = table(rows)
    extended = soft.extend(e)
    assert len(extended) == FIRST + K and torch.equal(extended[:rows], e)
    expected = (soft.distributions.unsqueeze(-1) * e[:V]).sum(1)
    torch.testing.assert_close(extended[FIRST:], expected, rtol=1e-12, atol=1e-15)


def test_only_the_named_tables_are_extended(soft):
    named, other = table(), table()
    with SoftIds(soft, [(named, soft)]), pytest.raises(IndexError):
        nn.functional.embedding(torch.tensor([FIRST]), other)


@pytest.mark.parametrize("classes", [V, V + 1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_of_real_and_virtual_targets(soft, classes, reduction):
    scores = torch.randn(4, classes, dtype=torch.float64)
    target = torch.tensor([1, FIRST, FIRST + 3, 6])
    dense = torch.zeros(4, classes, dtype=torch.float64)
    dense[0, 1] = dense[3, 6] = 1.0
    dense[1, :V], dense[2, :V] = soft.distributions[0], soft.distributions[3]
    expected = nn.functional.cross_entropy(scores, dense, reduction=reduction)
    with SoftIds(soft, []):
        torch.testing.assert_close(nn.CrossEntropyLoss(reduction=reduction)(scores, target), expected)
        torch.testing.assert_close(
            nn.functional.nll_loss(torch.log_softmax(scores, -1), target, reduction=reduction), expected
        )


def test_smoothed_and_weighted_cross_entropy(soft):
    scores = torch.randn(2, V, dtype=torch.float64)
    dense = torch.stack([nn.functional.one_hot(torch.tensor(4), V).double(), soft.distributions[2]])
    weight = torch.rand(V, dtype=torch.float64)
    with SoftIds(soft, []):
        got = nn.functional.cross_entropy(scores, torch.tensor([4, FIRST + 2]), weight, label_smoothing=0.1)
    torch.testing.assert_close(got, nn.functional.cross_entropy(scores, dense, weight, label_smoothing=0.1))


def test_ignored_targets_do_not_count(soft):
    scores = torch.randn(3, V, dtype=torch.float64)
    with SoftIds(soft, []):
        got = nn.functional.cross_entropy(scores, torch.tensor([FIRST + 1, 0, -100]), ignore_index=0)
        ordinary = nn.functional.cross_entropy(scores[:, :], torch.tensor([2, -100, 3]))
    alone = -(soft.distributions[1] * torch.log_softmax(scores[0], -1)).sum()
    torch.testing.assert_close(got, (alone - torch.log_softmax(scores[2], -1)[0]) / 2)
    torch.testing.assert_close(ordinary, nn.functional.cross_entropy(scores, torch.tensor([2, -100, 3])))


def test_losses_over_other_classes_are_left_alone(soft):
    scores, target = torch.randn(3, 2), torch.tensor([0, 1, 1])
    with SoftIds(soft, []):
        got = nn.functional.cross_entropy(scores, target)
    assert torch.equal(got, nn.functional.cross_entropy(scores, target))


def test_gathered_scores_are_expected_scores(soft):
    scores = torch.randn(2, V, dtype=torch.float64)
    with SoftIds(soft, []):
        got = scores.gather(1, torch.tensor([[1, FIRST], [FIRST + 2, 6]]))
    torch.testing.assert_close(got[0], torch.stack([scores[0, 1], scores[0] @ soft.distributions[0]]))
    torch.testing.assert_close(got[1], torch.stack([scores[1] @ soft.distributions[2], scores[1, 6]]))


def test_scattered_weights_are_spread(soft):
    weights = torch.rand(1, 3, dtype=torch.float64, requires_grad=True)
    with SoftIds(soft, []):
        got = torch.zeros(1, V, dtype=torch.float64).scatter_add_(1, torch.tensor([[FIRST, 4, FIRST + 1]]), weights)
    expected = weights[0, 0] * soft.distributions[0] + weights[0, 2] * soft.distributions[1]
    expected = expected + weights[0, 1] * nn.functional.one_hot(torch.tensor(4), V)
    torch.testing.assert_close(got[0], expected)


def test_excluded_ids_leave_the_probability_of_the_others(soft):
    """Softmax over the items of which none was drawn: each item's odds times the probability that no event is it."""
    scores = torch.randn(1, V, dtype=torch.float64)
    index = torch.tensor([[FIRST, 4, FIRST + 1]])
    with SoftIds(soft, []):
        got = scores.clone().scatter_add_(1, index, torch.full((1, 3), -torch.inf, dtype=torch.float64))
    expected = scores[0] + torch.log((1 - soft.distributions[0]) * (1 - soft.distributions[1]))
    expected[4] = -torch.inf
    torch.testing.assert_close(got[0], expected)


def test_scattered_values_replace_in_proportion(soft):
    scores = torch.randn(1, V, dtype=torch.float64, requires_grad=True)
    with SoftIds(soft, []):
        got = (scores * 1.0).scatter_(1, torch.tensor([[FIRST, 4, FIRST + 1]]), 0.5)
    stay = (1 - soft.distributions[0]) * (1 - soft.distributions[1])
    stay = stay * (torch.arange(V) != 4)
    torch.testing.assert_close(got[0], stay * scores[0] + (1 - stay) * 0.5)
    (gradient,) = torch.autograd.grad(got.sum(), scores)
    torch.testing.assert_close(gradient[0], stay)


OPERATIONS = {
    "cross_entropy": lambda ids, s, w: nn.functional.cross_entropy(s, ids),
    "nll_loss": lambda ids, s, w: nn.functional.nll_loss(s, ids),
    "gather": lambda ids, s, w: s.gather(1, ids.unsqueeze(1)),
    "torch.gather": lambda ids, s, w: torch.gather(s, 1, ids.unsqueeze(1)),
    "scatter_add_": lambda ids, s, w: s.clone().scatter_add_(1, ids.unsqueeze(1), w),
    "scatter_add": lambda ids, s, w: torch.scatter_add(s, 1, ids.unsqueeze(1), w),
    "scatter_": lambda ids, s, w: s.clone().scatter_(1, ids.unsqueeze(1), w),
    "scatter": lambda ids, s, w: s.scatter(1, ids.unsqueeze(1), w),
    "scatter of a number": lambda ids, s, w: s.scatter(1, ids.unsqueeze(1), 2.5),
    "exclusion": lambda ids, s, w: torch.softmax(s.scatter_add(1, ids.unsqueeze(1), -torch.inf * torch.ones_like(w)), 1),
    "twice the same id": lambda ids, s, w: s.scatter_add(1, ids.unsqueeze(1).repeat(1, 2), w.repeat(1, 2)),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_one_hot_ids_are_the_ids(hard, operation):
    soft, items = hard
    scores, weights = torch.randn(K, V, dtype=torch.float64), torch.randn(K, 1, dtype=torch.float64)
    with SoftIds(soft, []):
        got = operation(FIRST + torch.arange(K), scores, weights)
    torch.testing.assert_close(got, operation(items, scores, weights), rtol=1e-12, atol=1e-14)


def test_nothing_is_left_behind(soft):
    e = table()
    with SoftIds(soft, [(e, soft)]):
        pass
    with pytest.raises(IndexError):
        nn.functional.embedding(torch.tensor([FIRST]), e)


def test_a_certain_event_has_a_finite_gradient(hard):
    soft, _ = hard
    soft = SoftVocabulary(soft.distributions.requires_grad_(True), FIRST)
    with SoftIds(soft, []):
        scores = torch.zeros(1, V, dtype=torch.float64).scatter_add(
            1, torch.tensor([[FIRST]]), torch.full((1, 1), -torch.inf, dtype=torch.float64)
        )
        loss = torch.softmax(scores, -1)[0, 2]
    (gradient,) = torch.autograd.grad(loss, soft.distributions)
    assert torch.isfinite(gradient).all()
