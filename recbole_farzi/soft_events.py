"""Soft events: sequences whose every event is a distribution over items, read by models that know only ids.

Pure tensor mathematics: nothing here knows RecBole. ``V`` is the size of the vocabulary with the padding item,
which is item 0 and carries no mass.

Two identities make soft events cheap (see ``docs/method.md``):

* **Virtual vocabulary.** ``embedding(p) = p E`` for a distribution ``p`` over items. With the table extended,
  ``E' = concat(E, P E)``, each soft event has an id of its own, ``V + k``, which any model that looks ids up in
  a table can read (:mod:`recbole_farzi.soft_ids`).
* **Soft cross-entropy.** If scores are linear in the item's embedding, ``s_v = h . E_v``, then for a soft target ``p``
  ``-sum_v p_v log softmax(s)_v = logsumexp(s) - h . (p E)``: the score of the *virtual* item is all that is needed.
"""

from typing import NamedTuple, Optional

import torch

__all__ = [
    "WHOLE_EVENTS",
    "LatentEvents",
    "SoftEvents",
    "rows_of",
    "soft_cross_entropy",
    "soft_cross_entropy_dense",
    "soft_cross_entropy_once",
    "soft_distributions",
    "virtual_ids",
]


WHOLE_EVENTS = 128 * 2**20  # bytes of ``P`` above which it is not made, where a model can do without


class SoftEvents(NamedTuple):
    """Sequences whose events are items to those who read them as a history, and distributions to those who predict them.

    Attributes:
        distributions: ``P``, what is expected of each event, shape [n, xi, V].
        inputs: id of the item that each event is as a part of the history, shape [n, xi].
    """

    distributions: torch.Tensor
    inputs: torch.Tensor

    def to(self, device):
        """The same on another device; RecBole's trainer asks it of a batch."""
        return SoftEvents(*(part.to(device) for part in self))


class LatentEvents(NamedTuple):
    """Soft events as what they are made of, where ``P`` would be too large: :mod:`recbole_farzi.vocabulary_blocks` reads them.

    Attributes:
        latent: ``Z``, shape [n, xi, d].
        decoder: ``M``, shape [d, V].
        bias: ``b``, shape [V].
        temperature: ``tau``.
        inputs: id of the item that each event is as a part of the history, shape [n, xi]; None: its distribution.
    """

    latent: torch.Tensor
    decoder: torch.Tensor
    bias: torch.Tensor
    temperature: float
    inputs: Optional[torch.Tensor] = None

    def to(self, device):
        """The same on another device; RecBole's trainer asks it of a batch."""
        return LatentEvents(*(part.to(device) if torch.is_tensor(part) else part for part in self))


def rows_of(events, rows):
    """Some sequences of ``P`` [n, xi, V], of :class:`SoftEvents` or of :class:`LatentEvents`; ``rows`` [r] is a tensor."""
    if isinstance(events, LatentEvents):
        inputs = None if events.inputs is None else events.inputs[rows]
        return events._replace(latent=events.latent[rows], inputs=inputs)
    if isinstance(events, SoftEvents):
        return SoftEvents(*(part.index_select(0, rows.to(part.device)) for part in events))  # twice as fast as ``part[rows]``
    return events[rows]


def soft_distributions(latent, decoder, temperature=1.0, bias=None):
    """Materialise soft events: ``softmax((Z M + b) / tau)``, padding excluded (arXiv 2310.09983, section 3.2).

    Args:
        latent: ``Z``, shape [..., d].
        decoder: ``M``, shape [d, V]. Its column 0 belongs to the padding item and is not used.
        temperature: ``tau``, a positive number; smaller is sharper.
        bias: ``b``, shape [V], or None. A learnt log-popularity, shared by all events.

    Returns:
        Distributions over items, shape [..., V]; entry 0 is exactly 0.
    """
    logits = latent @ decoder[:, 1:]
    if bias is not None:
        logits = logits + bias[1:]
    probabilities = torch.softmax(logits / temperature, dim=-1)
    return torch.nn.functional.pad(probabilities, (1, 0))


def virtual_ids(shape, first, device=None):
    """Ids ``first, first + 1, ...`` of soft events, in the order in which their distributions are flattened."""
    count = 1
    for size in shape:
        count *= size
    return torch.arange(first, first + count, device=device).view(shape)


def soft_cross_entropy(scores, target_scores):
    """Cross-entropy against soft targets from the scores of the virtual items (the identity above).

    Args:
        scores: scores of the real items, padding left out, shape [n, V - 1].
        target_scores: score of each row's soft target as if it were an item, ``h . (p E)``, shape [n].

    Returns:
        Cross-entropy of each row in nats, shape [n].
    """
    return torch.logsumexp(scores, dim=-1) - target_scores


def soft_cross_entropy_dense(scores, targets):
    """Cross-entropy against soft targets by definition; for models whose scores are not linear in the item table.

    Args:
        scores: scores of the real items, padding left out, shape [n, V - 1].
        targets: distributions over the same items, shape [n, V - 1].

    Returns:
        Cross-entropy of each row in nats, shape [n].
    """
    return torch.logsumexp(scores, dim=-1) - (targets * scores).sum(dim=-1)


def soft_cross_entropy_once(scores, targets):
    """The mean of :func:`soft_cross_entropy_dense` in half as many passes over the scores, for training: differentiable once, by the scores.

    Args:
        scores: scores of all items, the padding first, which does not count, shape [..., V].
        targets: distributions over the same items, shape [..., V]; the padding has no mass.

    Returns:
        Scalar, in nats an event.
    """
    return _SoftCrossEntropy.apply(scores, targets)


class _SoftCrossEntropy(torch.autograd.Function):
    """``mean(logsumexp(s) - p . s)``, whose derivative by ``s`` is ``(softmax(s) - p)`` over the number of events."""

    @staticmethod
    def forward(ctx, scores, targets):
        shown = scores.detach().to(torch.promote_types(scores.dtype, targets.dtype), copy=True)  # scores of mixed precision have fewer bits
        shown[..., 0] = -torch.inf
        probabilities = torch.softmax(shown, dim=-1)
        log_sums = shown.amax(dim=-1) - probabilities.amax(dim=-1).log()  # softmax of the largest is exp(largest - logsumexp)
        shown[..., 0] = 0.0
        expected = shown.mul_(targets).sum() / log_sums.numel()
        ctx.save_for_backward(probabilities.sub_(targets))
        ctx.dtype = scores.dtype
        return log_sums.mean() - expected

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (difference,) = ctx.saved_tensors
        return (difference * (gradient / difference[..., 0].numel())).to(ctx.dtype), None
