"""Histories that a trained model writes."""

import numpy as np
import pytest
import torch

from recbole_farzi.errors import DivergenceError
from recbole_farzi.generation import generate_like, generate_windows
from recbole_farzi.models import ModelFactory, without_dropout
from recbole_farzi.student import Student


def test_generated_histories_follow_the_teacher(teacher, tiny_split):
    """Each next event is drawn from the teacher's prediction: the mean of its log probability is what is expected."""
    windows = generate_windows(teacher, tiny_split.counts, 300, 9, True, seed=1)
    assert windows.shape == (300, 9) and windows.min() >= 1 and windows.max() < tiny_split.vocabulary
    with torch.no_grad():
        expected = torch.log_softmax(teacher.scores(windows[:, :-1])[..., 1 : tiny_split.vocabulary], dim=-1)
    drawn = expected.gather(-1, windows[:, 1:, None] - 1).squeeze(-1)
    mean = (expected.exp() * expected).sum(-1)
    spread = ((expected.exp() * expected**2).sum(-1) - mean**2).sum().sqrt()
    assert abs((drawn - mean).sum()) < 4 * spread
    first = np.bincount(windows[:, 0], minlength=tiny_split.vocabulary) / 300
    share = tiny_split.counts / tiny_split.counts.sum()
    assert np.abs(first - share).max() < 4 * np.sqrt(share.max() / 300)


@pytest.mark.parametrize("harm", [float("nan"), float("inf")])
def test_a_teacher_that_predicts_nothing_is_one_line(teacher, tiny_split, harm):
    with torch.no_grad():
        teacher.model.item_embedding.weight.fill_(harm)
    with pytest.raises(DivergenceError, match="the teacher's predictions are not finite"):
        generate_windows(teacher, tiny_split.counts, 3, 5, False, seed=1)


def test_generated_histories_are_longer_than_the_teacher_reads_and_repeat_only_where_allowed(teacher, tiny_split):
    length = teacher.length + 5
    once, again = (generate_windows(teacher, tiny_split.counts, 6, length, False, seed=1) for _ in range(2))
    assert torch.equal(once, again)
    assert all(len(set(row)) == length for row in once.tolist())
    other = generate_windows(teacher, tiny_split.counts, 6, length, False, seed=2)
    assert not torch.equal(once, other)
    repeated = generate_windows(teacher, tiny_split.counts, 6, length, True, seed=1)
    assert any(len(set(row)) < length for row in repeated.tolist())
    whole = generate_windows(teacher, tiny_split.counts, 2, tiny_split.vocabulary + 3, False, seed=1)
    assert all(len(set(row)) == tiny_split.vocabulary - 1 for row in whole.tolist())  # then there is no new item

def test_windows_are_as_long_as_what_is_evaluated(teacher, tiny_split):
    """A random user's history, as far as it is read, and the event after it; the same again for the same seed; and told of as they come."""
    told, sequences = [], tiny_split.sequences
    windows = generate_like(teacher, sequences, tiny_split.counts, 700, 5, told.append)
    assert windows.items.shape == (700, sequences.length + 1) and told == [512, 700]
    size_of = {int(user): min(len(items), sequences.length) + 1 for user, items in zip(sequences.users, sequences.items)}
    sizes = torch.tensor([size_of[user] for user in windows.users.tolist()])
    assert len(set(size_of.values())) > 3 and max(size_of.values()) == sequences.length + 1
    assert torch.equal(windows.items.ne(0), torch.arange(sequences.length + 1) < sizes[:, None])
    often, expected = np.bincount(windows.users, minlength=max(size_of) + 1)[list(size_of)], 700 / len(size_of)
    assert ((often - expected) ** 2 / expected).sum() < len(size_of) + 5 * np.sqrt(2 * len(size_of))  # users alike
    with torch.no_grad():
        logs = torch.log_softmax(teacher.scores(windows.items[:, :-1])[..., 1 : tiny_split.vocabulary], dim=-1)
    there = windows.items[:, 1:].ne(0)
    drawn = logs.gather(-1, (windows.items[:, 1:, None] - 1).clamp(min=0)).squeeze(-1)[there].mean()
    assert drawn == pytest.approx((logs.exp() * logs).sum(-1)[there].mean().item(), rel=0.1)  # what the teacher predicts
    again = generate_like(teacher, sequences, tiny_split.counts, 700, 5)
    assert torch.equal(windows.items, again.items)
    assert not torch.equal(windows.items, generate_like(teacher, sequences, tiny_split.counts, 700, 6).items)


def test_models_that_read_users_write_for_them(make_config, tiny_split):
    """FPMC scores a user's items beside what follows the last one: with embeddings of users alone, all else 0, users tell."""
    config, model_class = make_config("FPMC")
    model = without_dropout(ModelFactory(model_class, config, tiny_split.train.dataset)(0)).eval()
    with torch.no_grad():
        for table in (model.LI_emb, model.IL_emb):
            table.weight.zero_()
        model.UI_emb.weight.mul_(100)
    student = Student(model)
    users = torch.arange(1, 9).repeat_interleave(40)
    windows = generate_windows(student, tiny_split.counts, 320, 6, True, 1, users)
    scores = (model.UI_emb.weight[users] @ model.IU_emb.weight.T).detach()
    expected = torch.softmax(scores[:, 1 : tiny_split.vocabulary].double(), dim=1)
    drawn = torch.stack([expected.gather(1, windows[:, place, None] - 1) for place in range(1, 6)]).mean()
    other = expected[torch.randperm(320, generator=torch.Generator().manual_seed(0))]
    assert drawn == pytest.approx((expected**2).sum(dim=1).mean().item(), rel=0.15)
    assert torch.stack([other.gather(1, windows[:, place, None] - 1) for place in range(1, 6)]).mean() < 0.9 * drawn
    written = generate_like(student, tiny_split.sequences, tiny_split.counts, 600, 5)  # each for the user that it says
    theirs = torch.softmax(model.UI_emb.weight[written.users] @ model.IU_emb.weight[1:].T, dim=1).detach()
    likely = theirs.gather(1, (written.items[:, 1:] - 1).clamp(min=0))[written.items[:, 1:].ne(0)].mean()
    assert likely > 0.8 * (theirs**2).sum(dim=1).mean() > 2 / tiny_split.vocabulary
