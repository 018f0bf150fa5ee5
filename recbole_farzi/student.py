"""A RecBole sequential model as a function of its parameters, read at every position, over real or soft events.

RecBole's models are used as they are. What the plugin needs to know of one is *tested on the live model*
(:func:`inspect_model`), never assumed from its name: which tables are indexed by items, whether it is causal (then all
positions are read in one pass), and whether its scores are linear in the item table (then soft targets are cheap).
"""

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from recbole_farzi.errors import ModelError
from recbole_farzi.soft_events import (
    extend_table,
    soft_cross_entropy,
    soft_cross_entropy_dense,
    virtual_ids,
)

__all__ = ["ModelTraits", "Student", "inspect_model"]

_TOLERANCE = 1e-4  # float32 forward passes of the same numbers in another batch shape agree to about 1e-6


@dataclass(frozen=True)
class ModelTraits:
    """What was found out about a model by running it.

    Attributes:
        item_tables: names of the embedding tables that are looked up with item ids.
        causal: every position can be read in one pass, and none sees a later event.
        linear_scores: the score of a soft item ``p E`` is the ``p``-weighted mean of the items' scores.
    """

    item_tables: tuple
    causal: bool
    linear_scores: bool


class Student(nn.Module):
    """Scores and losses of a RecBole sequential model as pure functions of its parameters.

    Args:
        model: an instance of a RecBole ``SequentialRecommender``. It is not copied and not changed.
        traits: what :func:`inspect_model` found; found now when None.

    Raises:
        ModelError: the model has no item table, or reads more than the sequence of items.
    """

    def __init__(self, model, traits=None):
        super().__init__()
        self.model = model
        self.vocabulary = model.n_items
        self.length = model.max_seq_length
        self.traits = traits if traits is not None else inspect_model(model)

    def forward(self, item_seq, item_seq_len):
        """The model's own ``full_sort_predict``; what :func:`torch.func.functional_call` calls."""
        return self.model.full_sort_predict(
            {self.model.ITEM_SEQ: item_seq, self.model.ITEM_SEQ_LEN: item_seq_len}
        )

    def parameter_dict(self):
        """The model's parameters by name, detached copies: ``{name: tensor}``."""
        return {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}

    def scores(self, item_seq, params=None, distributions=None):
        """Scores of every item after every event.

        Args:
            item_seq: ids, shape [B, n], n at most the model's maximum; 0 is padding, on the right.
            params: ``{name: tensor}`` to use in place of the model's own parameters, or None.
            distributions: soft events ``P`` [k, V] that ``item_seq`` refers to as ids V + a, V + a + 1, ... (a: rows
                that the item table has beyond the vocabulary), or None.

        Returns:
            Shape [B, n, V], or [B, n, W] with W > V where the model scores virtual items too: those come last.
        """
        replaced = {} if params is None else dict(params)
        if distributions is not None:
            own = dict(self.model.named_parameters())
            for name in self.traits.item_tables:
                replaced[name] = extend_table(replaced.get(name, own[name]), distributions)
        replaced = {"model." + name: value for name, value in replaced.items()}
        if self.traits.causal:
            lengths = item_seq.ne(0).sum(dim=1).clamp(min=1)
            with _every_position(self.model):
                return torch.func.functional_call(self, replaced, (item_seq, lengths))
        prefixes, lengths = all_prefixes(item_seq)
        scores = torch.func.functional_call(self, replaced, (prefixes, lengths))
        return scores.view(*item_seq.shape, -1)

    def real_loss(self, windows, params=None, expected=None, weight=0.0):
        """Mean cross-entropy of the next event over all positions of real windows.

        Args:
            windows: ids, shape [B, n + 1], 0 is padding, on the right.
            params: see :meth:`scores`.
            expected: a teacher's distributions of the next event, shape [B, n, V - 1], or None.
            weight: share of ``expected`` in the targets, from 0 to 1; the rest is the real event's (Hinton et al.,
                "Distilling the Knowledge in a Neural Network", 2015).

        Returns:
            Scalar, in nats an event.
        """
        scores = self.scores(windows[:, :-1], params)[..., 1 : self.vocabulary]
        scores, targets = scores.reshape(-1, self.vocabulary - 1), windows[:, 1:].reshape(-1) - 1
        if expected is None or weight == 0.0:
            return nn.functional.cross_entropy(scores, targets, ignore_index=-1)
        real = targets >= 0
        logs = torch.log_softmax(scores[real], dim=-1)
        taught = -(logs * expected.reshape(scores.shape)[real]).sum(dim=-1).mean()
        return weight * taught + (1.0 - weight) * nn.functional.nll_loss(logs, targets[real])

    def predictions(self, item_seq):
        """Distributions of the next event after every event of real sequences, without a graph: [B, n, V - 1]."""
        with torch.no_grad():
            return torch.softmax(self.scores(item_seq)[..., 1 : self.vocabulary], dim=-1)

    def soft_loss(self, distributions, params=None):
        """Mean cross-entropy of the next soft event over all positions of synthetic sequences.

        Args:
            distributions: ``P``, shape [B, xi, V].
            params: see :meth:`scores`.

        Returns:
            Scalar, in nats an event.
        """
        batch, length, vocabulary = distributions.shape
        flat = distributions.reshape(-1, vocabulary)
        first = self._first_virtual_id(params)
        ids = virtual_ids((batch, length), first, device=flat.device)
        scores = self.scores(ids[:, :-1], params, flat)
        real = scores[..., 1:vocabulary]
        if self.traits.linear_scores:
            last = scores.shape[-1] - batch * length
            target = (ids[:, 1:] - first + last).unsqueeze(-1)
            return soft_cross_entropy(real, scores.gather(-1, target).squeeze(-1)).mean()
        return soft_cross_entropy_dense(real, distributions[:, 1:, 1:]).mean()

    def _first_virtual_id(self, params):
        name = self.traits.item_tables[0]
        table = params[name] if params is not None and name in params else self.model.get_parameter(name)
        return table.shape[0]


def all_prefixes(item_seq):
    """Every prefix of every sequence as a row of its own: what a model that is not causal must read.

    Args:
        item_seq: shape [B, n].

    Returns:
        Prefixes [B n, n], padded with 0 on the right, and their lengths [B n]. Prefixes that end in padding keep the
        length of the sequence (they are not scored).
    """
    batch, length = item_seq.shape
    keep = torch.ones(length, length, dtype=torch.bool, device=item_seq.device).tril()
    prefixes = (item_seq.unsqueeze(1) * keep).reshape(batch * length, length)
    return prefixes, prefixes.ne(0).sum(dim=1).clamp(min=1)


@contextlib.contextmanager
def _every_position(model):
    """Make the model return all positions where it would gather the last: most of RecBole's models end so."""
    model.gather_indexes = lambda output, index: output
    try:
        yield
    finally:
        del model.gather_indexes


def inspect_model(model):
    """Find a model's :class:`ModelTraits` by running it on a handful of random ids; weights and modes are kept.

    Raises:
        ModelError: the model looks no items up, or reads more than the sequence of items.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            return _inspect(model, device)
    finally:
        model.train(was_training)


def _inspect(model, device):
    name = type(model).__name__
    length, vocabulary = model.max_seq_length, model.n_items
    ids = torch.randint(1, vocabulary, (4, length), device=device)
    lengths = torch.full((4,), length, device=device)

    def predict(item_seq, item_seq_len):
        return model.full_sort_predict({model.ITEM_SEQ: item_seq, model.ITEM_SEQ_LEN: item_seq_len})

    seen = {}
    hooks = [
        module.register_forward_pre_hook(lambda m, args, key=key: seen.setdefault(key, args[0]))
        for key, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    ]
    try:
        reference = predict(ids, lengths)
    except KeyError as error:
        raise ModelError(
            f"{name} reads {error} beside the sequence of items; soft events have only items, so choose a model that "
            "reads nothing else (SASRec, GRU4Rec, NARM, ...)"
        ) from error
    except NotImplementedError as error:
        raise ModelError(f"{name} has no full_sort_predict, which ranking all items needs") from error
    except Exception as error:  # whatever a model's own code raises
        first = (str(error).splitlines() or [""])[0]
        raise ModelError(f"{name} fails on a batch of items: {type(error).__name__}: {first}") from error
    finally:
        for hook in hooks:
            hook.remove()
    tables = tuple(
        f"{key}.weight"
        for key, indices in seen.items()
        if torch.is_tensor(indices)
        and vocabulary <= model.get_submodule(key).num_embeddings <= vocabulary + 1
        and _contains_ids(indices, ids)
    )
    if not tables:
        raise ModelError(f"{name} does not look the sequence of items up in an embedding table as it is, so it cannot read soft events")

    causal = _is_causal(model, predict, ids, lengths, reference)
    dense = ModelTraits(tables, causal, linear_scores=False)
    try:
        traits = ModelTraits(tables, causal, _has_linear_scores(Student(model, dense), ids))
        probe = Student(model, traits)
        one_hot = nn.functional.one_hot(ids, vocabulary).to(next(model.parameters()).dtype)
        soft, real = probe.soft_loss(one_hot).item(), probe.real_loss(ids).item()
    except (RuntimeError, IndexError) as error:
        raise ModelError(f"{name} cannot read virtual items: {str(error).splitlines()[0]}") from error
    if not abs(soft - real) <= _TOLERANCE * max(1.0, abs(real)):
        raise ModelError(
            f"{name} treats virtual items differently from real ones (loss {soft:.6g} against {real:.6g} on the same "
            "events), so it cannot read soft events"
        )
    return traits


def _contains_ids(indices, ids):
    return indices.shape[:2] == ids.shape[:2] and bool((indices.reshape(*ids.shape, -1)[..., 0] == ids).all())


def _is_causal(model, predict, ids, lengths, reference):
    """All positions at once give what each prefix alone gives (so a later event cannot have been seen)."""
    if not hasattr(model, "gather_indexes"):
        return False
    try:
        with _every_position(model):
            everywhere = predict(ids, lengths)
    except (RuntimeError, ValueError, TypeError, IndexError):  # the model needs the shape [B, h] afterwards
        return False
    if everywhere.shape != (*ids.shape, reference.shape[-1]):
        return False
    scale = reference.abs().max().clamp(min=1e-12)
    cuts = sorted({1, ids.shape[1] // 2, ids.shape[1] - 1, ids.shape[1]} - {0})
    for cut in cuts:
        prefix = ids.clone()
        prefix[:, cut:] = 0
        alone = predict(prefix, torch.full_like(lengths, cut))
        if (everywhere[:, cut - 1] - alone).abs().max() > _TOLERANCE * scale:
            return False
    return True


def _has_linear_scores(student, ids):
    """Does the model score a mixture of items, given as a virtual item, as the mixture of their scores?"""
    vocabulary = student.vocabulary
    mixture = torch.zeros(2, vocabulary, device=ids.device, dtype=next(student.model.parameters()).dtype)
    mixture[0, 1 : 1 + max(1, vocabulary // 2)] = 1.0
    mixture[1, vocabulary - 1] = 1.0
    mixture = mixture / mixture.sum(dim=1, keepdim=True)
    scores = student.scores(ids, distributions=mixture)
    if scores.shape[-1] < vocabulary + len(mixture):
        return False
    expected = scores[..., :vocabulary] @ mixture.T
    scale = scores[..., :vocabulary].abs().max().clamp(min=1e-12)
    return bool((scores[..., -len(mixture) :] - expected).abs().max() <= _TOLERANCE * scale)
