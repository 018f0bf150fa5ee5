"""What the plugin needs to know of a model, found out by running it on a handful of ids.

Which tables are looked up with items and users, which fields it reads, whether it is causal (then all positions are read in
one pass), whether its scores are linear in the item table (then soft targets are cheap), what its own loss is, and whether
one-hot soft events are to it what the ids themselves are.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from recbole.data.transform import construct_transform
from torch import nn
from torch.overrides import TorchFunctionMode

from recbole_farzi.adapters import feature_layers
from recbole_farzi.adjoint import Adam, AdjointError, unroll
from recbole_farzi.blockwise import SCORES_IN_MEMORY
from recbole_farzi.errors import ModelError
from recbole_farzi.interactions import RecordedInteraction, interaction
from recbole_farzi.sequences import Windows
from recbole_farzi.soft_events import WHOLE_EVENTS

__all__ = ["ModelTraits", "check_twice_differentiable", "inspect_model"]

_TOLERANCE = 1e-4  # float32 forward passes of the same numbers in another batch shape agree to about 1e-6
_ROWS = 4
_REAL = 4  # bytes


@dataclass(frozen=True)
class ModelTraits:
    """What was found out about a model by running it.

    Attributes:
        vocabulary: V, the number of items that it scores, with padding.
        first: id of the first virtual item: V, or more where a table has rows beyond the vocabulary (a mask token).
        users: U, the number of users with padding; 0 if it reads no user.
        item_tables, user_tables: names of the parameters that are looked up with ids of items and users.
        causal: every position can be read in one pass, and none sees a later event.
        linear_scores: the score of a soft item ``p E`` is the ``p``-weighted mean of the items' scores.
        hidden: its hidden states are had (:meth:`recbole_farzi.student.Student.hidden`): the scores are their products with the
            rows of its one item table.
        ranks: it scores all items at once (``full_sort_predict``).
        probabilities: what it scores by are probabilities.
        objective: what it trains on. ``own``: its ``calculate_loss`` on every prefix and its next event; ``sequence``: its
            ``calculate_loss`` on whole sequences (it reads no target); ``cross-entropy``: that of its scores, which for a
            causal model is its ``calculate_loss``, at all positions at once.
        reads: names of the fields that its ``calculate_loss`` reads.
        transform: RecBole's transform of its batches, or None.
        note: why its own loss is not used, where it is not; else empty.
    """

    vocabulary: int
    first: int
    users: int
    item_tables: tuple
    user_tables: tuple
    causal: bool
    linear_scores: bool
    ranks: bool
    probabilities: bool
    objective: str
    reads: frozenset = frozenset()
    transform: Any = None
    note: str = ""
    hidden: bool = False

    def by_blocks(self, events):
        """Does a student read so many synthetic events in blocks of items? (Where they are large as a whole, and it can.)"""
        return self.hidden and events * self.vocabulary * _REAL > WHOLE_EVENTS

    @property
    def by_rows(self):
        """Does it train on real events row by row, a history and its next event each? (It has no better way.)"""
        return not self.causal and self.objective != "sequence"

    @property
    def reading(self):
        """How it reads sequences and what it trains on, in words."""
        how = "all positions at once" if self.causal else "every prefix (it is not causal)"
        loss = {
            "own": "its own loss",
            "sequence": "its own loss on whole sequences",
            "cross-entropy": "cross-entropy" + (f" ({self.note})" if self.note else ""),
        }[self.objective]
        return f"{how}, trained by {loss}"


def inspect_model(model, config=None):
    """Find a model's :class:`ModelTraits` by running it on a handful of random ids; weights and modes are kept.

    Args:
        model: an instance of a RecBole ``SequentialRecommender``.
        config: RecBole's Config, for the transform of batches that the model may need.

    Raises:
        ModelError: in one line, why the model cannot read soft events.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            return _inspect(model, config, device)
    finally:
        model.train(was_training)


def check_twice_differentiable(student):
    """Refuse a model whose loss on soft events has no second derivative: distillation differentiates through training.

    Raises:
        ModelError
    """
    name = type(student.model).__name__
    params = student.parameter_dict()
    first = next(iter(params.values()))
    with torch.random.fork_rng(devices=[first.device] if first.device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(0)
        length = min(student.length, 6) + 1
        soft = torch.rand(2, length, student.vocabulary, device=first.device, dtype=first.dtype)
        soft[..., 0] = 0.0
        soft = (soft / soft.sum(dim=-1, keepdim=True)).requires_grad_(True)
        try:
            final = unroll(
                lambda params, rows, step: student.soft_loss(rows, params), params, soft,
                optimizer=Adam(lr=0.01, eps=1e-3), steps=2, seed=0,
            )  # fmt: skip
            (gradient,) = torch.autograd.grad(sum(value.sum() for value in final.values()), soft)
        except (AdjointError, RuntimeError, NotImplementedError, IndexError) as error:
            raise ModelError(f"{name} cannot be differentiated twice: {_first_line(error)}") from error
    if not torch.isfinite(gradient).all():
        raise ModelError(f"{name} cannot be differentiated twice: its second derivative is not finite at soft events")


def _inspect(model, config, device):
    from recbole_farzi.student import Student

    name = type(model).__name__
    transform = construct_transform(config) if config is not None and config["transform"] is not None else None
    if transform is not None:
        _give_field_names(model, config)
    length = model.max_seq_length
    ids = _different_items(_ROWS, length + 1, model.n_items, device)
    lengths = torch.full((_ROWS,), min(length, ids.shape[1] - 1), device=device)
    padded = nn.functional.pad(ids[:, :-1], (0, max(0, length - ids.shape[1] + 1)))
    users = torch.ones_like(lengths)
    rows = interaction(model, padded, lengths, users, ids[:, -1], model.n_items - 1, None, transform)

    recorder = _Lookups(model)
    own, scored = RecordedInteraction(rows), RecordedInteraction(rows)
    with recorder:
        scores, ranks = _scores(model, scored, name)
        trained, trouble = _own_loss(model, own)
    vocabulary = scores.shape[-1] if ranks else model.n_items
    tables = recorder.tables(rows, model, vocabulary)
    features = feature_layers(model)
    if not tables["item"] and not features:
        raise ModelError(
            f"{name} does not look the sequence of items up in an embedding table as it is, so it cannot read soft events"
        )
    users = max([model.get_parameter(table).shape[0] for table in tables["user"]], default=0)
    for layer in features:
        users = max(users, len(layer.user_feat) if "user" in layer.types else 0)
    probabilities = ranks and _are_probabilities(scores)
    traits = ModelTraits(
        vocabulary=vocabulary,
        first=max([vocabulary] + [model.get_parameter(table).shape[0] for table in tables["item"]]),
        users=users,
        item_tables=tables["item"],
        user_tables=tables["user"],
        causal=False,
        linear_scores=False,
        ranks=ranks,
        probabilities=probabilities,
        objective="own",
        reads=frozenset(own.read),
        transform=transform,
    )
    # all of their events are scored, several times over
    few = ids if ids.numel() * vocabulary * _REAL <= SCORES_IN_MEMORY else ids[:2, :9]
    traits = replace(traits, causal=ranks and _is_causal(Student(model, traits), few))
    if not trouble and model.POS_ITEM_ID not in own.read:
        traits = replace(traits, objective="sequence")
    elif not trouble and traits.causal and _equal(trained, _cross_entropy(scores, ids[:, -1], probabilities)):
        traits = replace(traits, objective="cross-entropy")
    if traits.objective != "cross-entropy" and not trouble:
        trouble = _difference(Student(model, traits), few)
    if trouble:
        if not ranks:
            raise ModelError(f"{name} cannot read virtual items: {trouble}")
        traits = replace(traits, objective="cross-entropy", note=f"its own loss is not defined on soft events: {trouble}")
    if traits.objective == "cross-entropy":
        traits = replace(traits, linear_scores=traits.causal and _has_linear_scores(Student(model, traits), few))
        traits = replace(traits, hidden=traits.linear_scores and not features and _has_hidden_states(Student(model, traits), few))
        trouble = _difference(Student(model, traits), few)
        if trouble:
            raise ModelError(f"{name} cannot read virtual items: {trouble}")
    return traits


def _give_field_names(model, config):
    """RecBole's transforms name the fields that they add when they are made, which a model may have preceded."""
    for name in ("MASK_ITEM_SEQ", "POS_ITEMS", "NEG_ITEMS", "MASK_INDEX", "INVERSE_ITEM_SEQ"):
        if hasattr(model, name):
            setattr(model, name, config[name])


def _different_items(rows, length, items, device):
    """Sequences without repeated items, shape [rows, at most length]: models that build graphs over ids merge repeats.

    Item 1 is not among them, which tells items from positions (0, 1, 2, ...) and from user 1; nor is the last, which some
    models count as an item though it is their mask.
    """
    choice = torch.arange(2, max(items - 1, 3))
    return torch.stack([choice[torch.randperm(len(choice))[:length]] for _ in range(rows)]).to(device)


def _scores(model, rows, name):
    try:
        return model.full_sort_predict(rows), True
    except NotImplementedError:
        pass
    except KeyError as error:
        raise ModelError(
            f"{name} reads {error}, which rows of users and items do not have; choose a model that reads nothing else"
        ) from error
    except Exception as error:  # whatever a model's own code raises
        raise ModelError(f"{name} fails on a batch of items: {type(error).__name__}: {_first_line(error)}") from error
    try:
        return model.predict(rows), False
    except NotImplementedError as error:
        raise ModelError(f"{name} has neither full_sort_predict nor predict, which ranking items needs") from error
    except Exception as error:  # whatever a model's own code raises
        raise ModelError(f"{name} fails on a batch of items: {type(error).__name__}: {_first_line(error)}") from error


def _own_loss(model, rows):
    """The model's own loss of real rows, or why there is none."""
    try:
        loss = model.calculate_loss(rows)
    except Exception as error:  # whatever a model's own code raises
        return None, f"{type(error).__name__}: {_first_line(error)}"
    return sum(loss) if isinstance(loss, tuple) else loss, ""


class _Lookups(TorchFunctionMode):
    """Records which parameters are looked up, and with which ids."""

    def __init__(self, model):
        super().__init__()
        self.names = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self.names.setdefault(id(parameter), name)
        self.looked_up = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is nn.functional.embedding:
            self._record(args[1] if len(args) > 1 else kwargs["weight"], args[0] if args else kwargs["input"])
        elif func is torch.Tensor.__getitem__:
            self._record(args[0], args[1][0] if isinstance(args[1], tuple) and args[1] else args[1])
        elif func in (torch.index_select, torch.Tensor.index_select):
            self._record(args[0], kwargs.get("index", args[-1]))
        return func(*args, **kwargs)

    def _record(self, table, index):
        if id(table) in self.names and torch.is_tensor(index) and index.dtype == torch.long:
            self.looked_up.setdefault(self.names[id(table)], set()).update(index.reshape(-1).tolist())

    def tables(self, rows, model, vocabulary):
        """``{"item": names, "user": names}``, told by the values that were looked up: see :func:`_different_items`."""
        items = set(rows[model.ITEM_SEQ].reshape(-1).tolist()) | set(rows[model.POS_ITEM_ID].tolist())
        found = {"item": [], "user": []}
        for name, values in self.looked_up.items():
            fits = vocabulary <= model.get_parameter(name).shape[0] <= vocabulary + 1
            if values == {1}:
                found["user"].append(name)
            elif fits and values & (items - {0}) and values != set(range(model.max_seq_length)):
                found["item"].append(name)
        return {kind: tuple(names) for kind, names in found.items()}


def _are_probabilities(scores):
    return bool((scores >= 0).all()) and torch.allclose(scores.sum(dim=-1), scores.new_ones(()), atol=_TOLERANCE)


def _cross_entropy(scores, targets, probabilities):
    log_p = torch.log(scores + 1e-8) if probabilities else torch.log_softmax(scores, dim=-1)
    return nn.functional.nll_loss(log_p, targets)


def _is_causal(student, ids):
    """All positions at once give what each prefix alone gives (so a later event cannot have been seen)."""
    if not hasattr(student.model, "gather_indexes"):
        return False
    events = ids[:, : min(student.length, ids.shape[1])]
    alone = student.scores(events)
    try:
        everywhere = _with(student, causal=True).scores(events)
    except (RuntimeError, ValueError, TypeError, IndexError):  # the model needs the shape [B, h] afterwards
        return False
    return everywhere.shape == alone.shape and _equal(everywhere, alone)


def _with(student, **changed):
    from recbole_farzi.student import Student

    return Student(student.model, replace(student.traits, **changed))


def _has_linear_scores(student, ids):
    """Does the model score a mixture of items, given as a virtual item, as the mixture of their scores?"""
    vocabulary = student.vocabulary
    mixture = torch.zeros(2, vocabulary, device=ids.device, dtype=next(student.model.parameters()).dtype)
    mixture[0, 1 : 1 + max(1, vocabulary // 2)] = 1.0
    mixture[1, vocabulary - 1] = 1.0
    mixture = mixture / mixture.sum(dim=1, keepdim=True)
    try:
        scores = _with(student, linear_scores=True).scores(ids[:, : student.length], distributions=mixture)
    except (RuntimeError, IndexError):  # a table with virtual rows does not fit the rest of the model
        return False
    if scores.shape[-1] < vocabulary + len(mixture):
        return False
    expected = scores[..., :vocabulary] @ mixture.T
    return _equal(scores[..., -len(mixture) :], expected)


def _has_hidden_states(student, ids):
    """Are the scores the products of what :meth:`recbole_farzi.student.Student.hidden` gives with the item table?"""
    if len(student.traits.item_tables) != 1 or student.traits.probabilities:
        return False
    events = ids[:, : student.length].clone()
    events[:, -1] = events[:, 0]  # an item that comes twice
    try:
        hidden, expected = student.hidden(events), student.scores(events)
    except (RuntimeError, IndexError, ValueError, TypeError):  # the model does more with its table than score
        return False
    table = student.item_table()
    if hidden.shape != (*events.shape, table.shape[1]):
        return False
    return bool((hidden @ table.T - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def _difference(student, ids):
    """Why one-hot soft events are not to the model what the ids are; empty if they are."""
    dtype = next(student.model.parameters()).dtype
    one_hot = nn.functional.one_hot(ids, student.vocabulary).to(dtype)
    user = nn.functional.one_hot(torch.ones(len(ids), dtype=torch.long, device=ids.device), max(student.traits.users, 2))
    losses = []
    try:
        for soft in (True, False):
            torch.manual_seed(1)  # the same negatives and masks
            if soft:
                losses.append(student.soft_loss(one_hot, users=user.to(dtype)))
            else:
                losses.append(student.training_loss(Windows(ids, torch.ones_like(ids[:, 0])), alone=True))
    except Exception as error:  # whatever a model's own code raises on ids beyond its vocabulary
        return f"{type(error).__name__}: {_first_line(error)}"
    soft, real = (float(loss) for loss in losses)
    if not _equal(torch.tensor(soft), torch.tensor(real)):
        return f"it treats them differently from real ones (loss {soft:.6g} against {real:.6g} on the same events)"
    return ""


def _equal(one, other):
    scale = other.detach().abs().max().clamp(min=1.0)
    return bool((one - other).abs().max() <= _TOLERANCE * scale)


def _first_line(error):
    return (str(error).splitlines() or [""])[0]
