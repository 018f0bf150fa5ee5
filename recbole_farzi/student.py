"""A RecBole sequential model as a function of its parameters: its scores and losses, over real or soft events.

RecBole's models are used as they are. What the plugin needs to know of one is found out on the live model
(:mod:`recbole_farzi.inspection`), never assumed from its name.
"""

import contextlib
from types import SimpleNamespace

import torch
from torch import nn

from recbole_farzi.adapters import features_of_virtual_ids, partners_from_the_batch
from recbole_farzi.inspection import ModelTraits, inspect_model
from recbole_farzi.interactions import cut_rows, interaction, prefix_rows, replayable, sequence_rows
from recbole_farzi.soft_events import LatentEvents, SoftEvents, soft_cross_entropy, soft_cross_entropy_dense, soft_cross_entropy_once, virtual_ids
from recbole_farzi.soft_ids import SoftIds, SoftVocabulary
from recbole_farzi.vocabulary_blocks import log_sum_exp, soft_embeddings

__all__ = ["ModelTraits", "Student"]

_TINY = 1e-8  # what RecBole's models add to a probability before its logarithm
_ROWS = 512  # scored at once where rows do not depend on each other


class Student(nn.Module):
    """Scores and losses of a RecBole sequential model as pure functions of its parameters.

    Args:
        model: an instance of a RecBole ``SequentialRecommender``. It is not copied and not changed.
        traits: what :func:`recbole_farzi.inspection.inspect_model` found; found now when None.
        config: RecBole's Config, for the transform of batches that the model may need; used when ``traits`` is None.
        last_only: :meth:`real_loss` of a model that must read every prefix takes each window's last event alone. For real windows,
            which end at events drawn uniformly, that is an unbiased estimate of the loss over all events, at a fraction of
            the work; of written ones it is what evaluation asks for, the event after a whole history.

    Raises:
        ModelError: the model cannot read soft events.
    """

    def __init__(self, model, traits=None, config=None, last_only=False):
        super().__init__()
        self.model = model
        self.traits = traits if traits is not None else inspect_model(model, config)
        self.vocabulary = self.traits.vocabulary
        self.length = model.max_seq_length
        self.last_only = last_only

    def forward(self, method, rows):
        """One of the model's own methods; what :func:`torch.func.functional_call` calls."""
        return getattr(self.model, method)(rows)

    @property
    def device(self):
        """Where the model is."""
        return next(self.model.parameters()).device

    def parameter_dict(self):
        """The model's parameters by name, detached copies: ``{name: tensor}``."""
        return {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}

    def forget_users(self):
        """Give all users the mean of their embeddings, in place; returns self.

        A summary knows no users: its sequences belong to the average user, so that training on it gives every user the same
        gradient. Beginning from equal rows they stay equal, and the users of the evaluation are the one that was trained.
        """
        with torch.no_grad():
            for name in self.traits.user_tables:
                table = self.model.get_parameter(name)
                table[1:] = table[1:].mean(dim=0)
        return self

    def scores(self, item_seq, params=None, distributions=None, users=None):
        """Scores of every item after every event; log probabilities where the model scores by probabilities.

        Args:
            item_seq: ids, shape [B, n], n at most the model's maximum; 0 is padding, on the right.
            params: ``{name: tensor}`` to use in place of the model's own parameters, or None.
            distributions: soft events ``P`` [k, V] that ``item_seq`` refers to as ids ``first``, ``first + 1``, ... (see
                :class:`ModelTraits`), or None.
            users: user ids [B], or distributions over users [B, U], or None for the average user.

        Returns:
            Shape [B, n, V], or [B, n, W] with W > V where the model scores virtual items too: those come last.
        """
        vocabulary = None if distributions is None else SoftVocabulary(distributions, self.traits.first)
        if self.traits.causal:
            lengths = item_seq.ne(0).sum(dim=1).clamp(min=1)
            with every_position(self.model):
                scores = self._full_sort(item_seq, lengths, users, params, vocabulary)
            return self._as_logits(scores)
        batch, length = item_seq.shape
        rows = torch.arange(batch, device=item_seq.device).repeat_interleave(length)
        sizes = item_seq.ne(0).sum(dim=1).clamp(min=1)
        ends = torch.minimum(torch.arange(1, length + 1, device=item_seq.device).repeat(batch), sizes[rows])
        prefixes, lengths = cut_rows(item_seq, rows, ends, self.length)
        scores = self._row_scores(prefixes, lengths, _of_rows(users, rows), params, vocabulary)
        return scores.view(batch, length, -1)

    def hidden(self, item_seq, params=None, users=None, virtual=None):
        """``h`` after every event, of which the scores are the products ``h . E_v`` with the rows of the item table.

        With the unit vectors for an item table, the scores of "all items" are ``h`` itself; what is looked up still comes from
        the table.

        Args:
            item_seq, params, users: see :meth:`scores`.
            virtual: rows of the item table that ``item_seq`` refers to as ids ``first``, ``first + 1``, ..., shape [k, D]; or None.

        Returns:
            Shape [B, n, D].
        """
        lengths = item_seq.ne(0).sum(dim=1).clamp(min=1)
        with every_position(self.model):
            return self._full_sort(item_seq, lengths, users, params, _UnitVectors(self.traits.first, virtual))

    def item_table(self, params=None):
        """``E`` [V, D], of a model with one item table."""
        (name,) = self.traits.item_tables
        table = self.model.get_parameter(name) if params is None or name not in params else params[name]
        return table if len(table) == self.vocabulary else table[: self.vocabulary]

    def real_loss(self, windows, params=None, expected=None, weight=0.0, last_only=False):
        """Mean cross-entropy of the next event of real windows, over all positions.

        A model that cannot score all items at once (no ``full_sort_predict``) has its own loss instead.

        Args:
            windows: :class:`recbole_farzi.sequences.Windows`, or ids alone [B, n + 1] of the average user; 0 is padding, on
                the right.
            params: see :meth:`scores`.
            expected: a teacher's distributions of the next event, as :meth:`predictions` gives them, or None.
            weight: share of ``expected`` in the targets, from 0 to 1; the rest is the real event's (Hinton et al.,
                "Distilling the Knowledge in a Neural Network", 2015).
            last_only: of a model that must read every prefix, only the last event of each window counts.

        Returns:
            Scalar, in nats an event.
        """
        if not self.traits.ranks:
            ids, users = _parts(windows)
            return self._own_loss(ids, users, params, last_only=self._cut(last_only))
        scores, targets = self._next_scores(windows, params, last_only)
        if expected is None or weight == 0.0:
            return nn.functional.cross_entropy(scores, targets, ignore_index=-1)
        real = targets >= 0
        logs = torch.log_softmax(scores[real], dim=-1)
        taught = -(logs * expected[real]).sum(dim=-1).mean()
        return weight * taught + (1.0 - weight) * nn.functional.nll_loss(logs, targets[real])

    def predictions(self, windows):
        """Distributions of the next event wherever :meth:`real_loss` counts it, without a graph.

        Args:
            windows: see :meth:`real_loss`.

        Returns:
            Shape [r, V - 1]; None for a model that cannot score all items at once.
        """
        if not self.traits.ranks:
            return None
        with torch.no_grad():
            return torch.softmax(self._next_scores(windows)[0], dim=-1)

    def terms(self, windows):
        """How many events :meth:`real_loss` of some windows is the mean over."""
        ids, _ = _parts(windows)
        targets = ids[:, 1:].ne(0)
        return int((targets.any(dim=1) if self._cut(False) else targets).sum())

    def training_loss(self, windows, params=None, last_only=False, alone=False, inputs=None):
        """The loss with which the model trains on real windows: its own, or what equals it at all positions at once.

        Args:
            windows, params: see :meth:`real_loss`.
            last_only: only the last event of each window counts.
            alone: nothing but these windows is read, not even by a model that keeps its dataset (as :meth:`soft_loss`).
            inputs: ids of the shape of the windows' that stand in the histories, where those of the windows are targets
                alone; not for a model whose objective is on whole sequences (:class:`ModelTraits`).
        """
        if self.traits.objective == "cross-entropy":
            scores, targets = self._next_scores(windows, params, last_only, inputs)
            return nn.functional.cross_entropy(scores, targets, ignore_index=-1)
        ids, users = _parts(windows)
        return self._own_loss(ids, users, params, last_only=last_only, alone=alone, inputs=inputs)

    def training_loss_on(self, events):
        """:meth:`soft_loss` of the model's own parameters and the average user: the same, faster, but differentiable only once.

        Args:
            events: see :meth:`soft_loss`.
        """
        if isinstance(events, SoftEvents) and self.traits.objective == "cross-entropy":
            targets = events.distributions[:, 1:]
            return soft_cross_entropy_once(self.scores(events.inputs[:, :-1])[..., : targets.shape[-1]], targets)
        return self.soft_loss(events)

    def soft_loss(self, events, params=None, users=None):
        """The loss with which the model trains on synthetic sequences: its own, over soft targets.

        Args:
            events: ``P``, shape [B, xi, V], which is both history and target; or
                :class:`recbole_farzi.soft_events.SoftEvents`, whose history is items; or, of a model whose hidden states are
                had, :class:`recbole_farzi.soft_events.LatentEvents`, of which no tensor of all events and items is made.
            params: see :meth:`scores`.
            users: distributions over users [B, U], or None for the average user.

        Returns:
            Scalar; in nats an event where the model's own loss is a cross-entropy.
        """
        if isinstance(events, LatentEvents):
            return self._blockwise_loss(events, params, users)
        distributions, inputs = events if isinstance(events, SoftEvents) else (events, None)
        batch, length, vocabulary = distributions.shape
        flat = distributions.reshape(-1, vocabulary)
        first = self.traits.first
        ids = virtual_ids((batch, length), first, device=flat.device)
        if self.traits.objective != "cross-entropy":
            return self._own_loss(ids, users, params, SoftVocabulary(flat, first), alone=True, inputs=inputs)
        if inputs is not None:
            scores = self.scores(inputs[:, :-1], params, users=users)[..., 1:vocabulary]
            return soft_cross_entropy_dense(scores, distributions[:, 1:, 1:]).mean()
        scores = self.scores(ids[:, :-1], params, flat, users)
        real = scores[..., 1:vocabulary]
        if self.traits.linear_scores:
            last = scores.shape[-1] - batch * length
            target = (ids[:, 1:] - first + last).unsqueeze(-1)
            return soft_cross_entropy(real, scores.gather(-1, target).squeeze(-1)).mean()
        return soft_cross_entropy_dense(real, distributions[:, 1:, 1:]).mean()

    def _blockwise_loss(self, events, params, users):
        """Cross-entropy against the soft events: ``log sum_v exp(h . E_v) - h . (p E)``, its sums over the vocabulary in blocks."""
        latent, decoder, bias, temperature, inputs = events
        table, (batch, length, _) = self.item_table(params), latent.shape
        made = latent if inputs is None else latent[:, 1:]
        soft = soft_embeddings(made.reshape(-1, latent.shape[-1]), decoder, bias, temperature, table)
        if inputs is None:
            ids = virtual_ids((batch, length), self.traits.first, device=latent.device)
            hidden = self.hidden(ids[:, :-1], params, users, soft)
            soft = soft.view(batch, length, -1)[:, 1:].reshape(-1, soft.shape[-1])
        else:
            hidden = self.hidden(inputs[:, :-1], params, users)
        hidden = hidden.reshape(soft.shape)
        return (log_sum_exp(hidden, table) - (hidden * soft).sum(dim=-1)).mean()

    def row_scores(self, item_seq, lengths, users=None, params=None):
        """Scores of every item after given histories; log probabilities where the model scores by probabilities.

        Args:
            item_seq: ids, shape [r, n], n at most the model's maximum; 0 is padding, on the right.
            lengths: shape [r].
            users: user ids [r], or None for the average user.
            params: see :meth:`scores`.

        Returns:
            Shape [r, V].
        """
        item_seq = nn.functional.pad(item_seq, (0, self.length - item_seq.shape[1]))
        return self._row_scores(item_seq, lengths, users, params)

    def similarities(self, items):
        """``E_x E``: similarity of all items but the padding to given ones, by the model's own item table.

        Args:
            items: ids, of any shape.

        Returns:
            That shape and [V - 1].
        """
        table = self.model.get_parameter(self.traits.item_tables[0])[: self.vocabulary]
        return table[items] @ table[1:].T

    def _cut(self, last_only):
        return (last_only or self.last_only) and not self.traits.causal

    def _next_scores(self, windows, params=None, last_only=False, inputs=None):
        """Scores of the items but padding for each next event [r, V - 1], and which it is [r]; -1: there is none."""
        ids, users = _parts(windows)
        histories = ids if inputs is None else inputs
        if self.traits.causal:
            scores, targets = self.scores(histories[:, :-1], params, users=users), ids[:, 1:].reshape(-1)
        else:
            prefixes, lengths, _, rows = prefix_rows(histories, self.length, self._cut(last_only))
            _, _, targets, _ = prefix_rows(ids, self.length, self._cut(last_only))
            scores = self._row_scores(prefixes, lengths, _of_rows(users, rows), params)
        return scores[..., 1 : self.vocabulary].reshape(-1, self.vocabulary - 1), targets - 1

    def _own_loss(self, ids, users, params, vocabulary=None, last_only=False, alone=False, inputs=None):
        """The model's ``calculate_loss`` on all rows of the sequences, with what is random in it replayable.

        ``inputs``, of the shape of ``ids``, is what stands in the histories in place of the ids.
        """
        traits = self.traits
        with replayable():
            if traits.objective == "sequence":
                # What is masked is predicted: one id is both. It is looked up as the input, and predicted as the target.
                item_seq, lengths, targets, rows = sequence_rows(ids, self.length, last_only)
                if inputs is not None and getattr(self.model, "loss_type", "CE") == "CE":
                    vocabulary = SoftVocabulary(vocabulary.distributions, vocabulary.first, inputs.reshape(-1))
            else:
                item_seq, lengths, targets, rows = prefix_rows(ids, self.length, last_only)
                if inputs is not None:
                    item_seq, _, _, _ = prefix_rows(inputs, self.length, last_only)
            users, user_vocabulary = self._users(_of_rows(users, rows), len(rows), ids.device)
            batch = interaction(
                self.model, item_seq, lengths, users, targets, self.vocabulary, traits.reads, traits.transform
            )
            with contextlib.ExitStack() as stack:
                if alone:
                    stack.enter_context(partners_from_the_batch(self.model, batch))
                loss = self._call("calculate_loss", batch, params, vocabulary, user_vocabulary)
        loss = sum(loss) if isinstance(loss, tuple) else loss
        return loss.reshape(())

    def _full_sort(self, item_seq, lengths, users, params, vocabulary):
        users, user_vocabulary = self._users(users, len(item_seq), item_seq.device)
        # Some models compute their loss on the way, of a target that is no part of the scores.
        rows = interaction(self.model, item_seq, lengths, users, torch.ones_like(lengths), self.vocabulary, ())
        return self._call("full_sort_predict", rows, params, vocabulary, user_vocabulary, self.traits.linear_scores)

    def _row_scores(self, item_seq, lengths, users, params, vocabulary=None):
        score = self._full_sort if self.traits.ranks else self._score_one_by_one
        size = max(1, len(item_seq)) if self.model.training else _ROWS
        scores = [
            self._as_logits(score(seq, size, user, params, vocabulary))
            for seq, size, user in zip(
                item_seq.split(size), lengths.split(size), [None] * len(item_seq) if users is None else users.split(size)
            )
        ]
        return torch.cat(scores)

    def _score_one_by_one(self, item_seq, lengths, users, params, vocabulary):
        """What RecBole does in evaluation where a model has no ``full_sort_predict``: ``predict`` for every item."""
        users, user_vocabulary = self._users(users, len(item_seq), item_seq.device)
        targets = torch.arange(self.vocabulary, device=item_seq.device)
        scores = []
        for row in range(len(item_seq)):
            part = slice(row, row + 1)
            rows = [value[part].repeat_interleave(len(targets), dim=0) for value in (item_seq, lengths, users)]
            batch = interaction(
                self.model, *rows, targets, self.vocabulary, {getattr(self.model, "NEG_ITEM_SEQ", None)}
            )
            scores.append(self._call("predict", batch, params, vocabulary, user_vocabulary))
        return torch.stack(scores)

    def _call(self, method, rows, params, items, users, extend=False):
        """A method of the model under given parameters, with ids that may be virtual.

        With ``extend`` the item tables themselves get the virtual rows, so that the model scores virtual items too; with
        :class:`_UnitVectors` for ``items`` they are replaced, and looked up as they are.
        """
        replaced = {} if params is None else dict(params)
        own = dict(self.model.named_parameters(remove_duplicate=False)) if items is not None or users is not None else {}
        tables = []
        with contextlib.ExitStack() as stack:
            for names, vocabulary in ((self.traits.item_tables, items), (self.traits.user_tables, users)):
                for name in names if vocabulary is not None else ():
                    table = replaced.get(name, own[name])
                    if isinstance(vocabulary, _UnitVectors):
                        replaced[name] = units = torch.eye(table.shape[1], dtype=table.dtype, device=table.device)
                        tables.append((units, vocabulary.of(table)))
                    elif extend and vocabulary is items:
                        replaced[name] = vocabulary.extend(table)
                    else:
                        tables.append((table, vocabulary))
            stack.enter_context(features_of_virtual_ids(self.model, None if isinstance(items, _UnitVectors) else items, users))
            if tables or (items is not None and not extend):
                stack.enter_context(SoftIds(None if extend else items, tables))
            replaced = {"model." + name: value for name, value in replaced.items()}
            return torch.func.functional_call(self, replaced, (method, rows))

    def _users(self, users, rows, device):
        """Ids of the rows' users, and the :class:`SoftVocabulary` of those that are virtual (None: none is)."""
        count = self.traits.users
        if count == 0:
            return torch.ones(rows, dtype=torch.long, device=device), None
        if users is None:
            dtype = next(self.model.parameters()).dtype
            average = torch.full((1, count), 1.0 / (count - 1), dtype=dtype, device=device)
            average[:, 0] = 0.0
            return torch.full((rows,), count, dtype=torch.long, device=device), SoftVocabulary(average, count)
        if users.is_floating_point():
            return virtual_ids((rows,), count, device=device), SoftVocabulary(users, count)
        return users, None

    def _as_logits(self, scores):
        return torch.log(scores + _TINY) if self.traits.probabilities else scores


class _UnitVectors:
    """What stands for the item table where hidden states are wanted: see :meth:`Student.hidden`."""

    def __init__(self, first, virtual):
        self.first, self.virtual = first, virtual

    def of(self, table):
        """A vocabulary whose rows are those of the table and the virtual ones, whatever it extends."""
        if self.virtual is not None:
            between = table.new_zeros(self.first - len(table), table.shape[1])
            table = torch.cat([table, between, self.virtual])
        return SimpleNamespace(extend=lambda units: table)


def _parts(windows):
    return (windows, None) if torch.is_tensor(windows) else (windows.items, windows.users)


def _of_rows(users, rows):
    return None if users is None else users[rows]


@contextlib.contextmanager
def every_position(model):
    """Make the model return all positions where it would gather the last: most of RecBole's models end so."""
    model.gather_indexes = lambda output, index: output
    try:
        yield
    finally:
        del model.gather_indexes
