"""Sums over a large vocabulary that go through it block by block, with exact first and second derivatives.

Pure tensor mathematics: nothing here knows RecBole. Of N rows and V items no tensor of N V numbers exists, forward or backward: a
block of scores at a time is made, used and forgotten, and made again where a derivative wants it. ``E`` is the item table
[V, D], whose row 0 is the padding and takes no part; ``dot`` below is a sum over the items of a row.

========================================  ===============================================================================
``log_sum_exp(h, E)``                     ``log sum_v exp(h . E_v)``: the first part of a soft cross-entropy
``soft_embeddings(Z, M, b, tau, E)``      ``softmax((Z M + b) / tau) E``: the expected embedding of soft events, which is the
                                          second part, ``h . (p E)``, and what is read of soft events in a history
========================================  ===============================================================================

With ``q = softmax(h E')``, a weight ``g`` for each row, and a direction ``(u, U)`` for ``(h, E)``:

* gradient of ``sum g log_sum_exp``: ``g q E`` for ``h`` and ``(g q)' h`` for ``E``;
* its derivative along the direction, ``sum g dot(q, t)`` with ``t = u E' + h U'``, has the gradients, with
  ``B = g q`` and ``A = B (t - dot(q, t))``, ``A E + B U`` for ``h``, ``A' h + B' u`` for ``E`` and ``dot(q, t)`` for ``g``.

With ``p = softmax((Z M + b) / tau)`` and a gradient ``G`` for the soft embeddings ``p E``:

* gradient: ``p' G`` for ``E``, and ``C = p (G E' - dot(p, G E')) / tau`` for the logits ``Z M + b``;
* that for ``E`` along ``U``, ``sum dot(p, G U')``, has the gradients ``p U`` for ``G`` and ``C`` with ``U`` for ``E`` for the logits.

The sums that make a softmax are gathered in one pass with a running maximum (Milakov and Gimelshein, "Online normalizer
calculation for softmax", 2018), as attention does (Rabe and Staats, "Self-attention does not need O(n^2) memory", 2021).
"""

import torch
from torch.autograd.function import once_differentiable

__all__ = ["log_sum_exp", "soft_embeddings"]

_SCORES = {"cpu": 2**19}  # numbers in a block of scores: what a processor keeps near
_SCORES_ELSEWHERE = 2**25
_LEAST = 256  # items in a block, however many rows there are


def log_sum_exp(states, table):
    """``log sum_v exp(h . E_v)`` of each row, without the padding.

    Args:
        states: ``h``, shape [N, D].
        table: ``E``, shape [V, D].

    Returns:
        Shape [N]; twice differentiable.
    """
    with torch.autocast(table.device.type, enabled=False):  # its operations in place would mix precisions
        return _LogSumExp.apply(states.to(table.dtype), table)


def soft_embeddings(latent, decoder, bias, temperature, table):
    """``softmax((Z M + b) / tau) E``, without the padding.

    Args:
        latent: ``Z``, shape [N, d].
        decoder: ``M``, shape [d, V].
        bias: ``b``, shape [V].
        temperature: ``tau``.
        table: ``E``, shape [V, D].

    Returns:
        Shape [N, D]. Differentiable for everything, and its gradient for the table is so again.
    """
    with torch.autocast(table.device.type, enabled=False):
        return _SoftEmbeddings.apply(latent, decoder, bias, table, float(temperature))


def _blocks(rows, table):
    """Slices of the items but the padding."""
    width = max(_LEAST, _SCORES.get(table.device.type, _SCORES_ELSEWHERE) // max(rows, 1))
    return [slice(first, min(first + width, len(table))) for first in range(1, len(table), width)]


def _softmax_sums(logits, rows, table):
    """``log sum_v exp(l_v)`` [N, 1] and ``softmax(l) E`` [N, D], ``logits`` being a function from a block to ``l`` [N, block]."""
    most = table.new_full((rows, 1), -torch.inf)
    total, mean = table.new_zeros(rows, 1), table.new_zeros(rows, table.shape[1])
    for block in _blocks(rows, table):
        scores = logits(block)
        highest = torch.maximum(most, scores.amax(dim=1, keepdim=True))
        before = torch.exp(most - highest)
        scores.sub_(highest).exp_()
        total.mul_(before).add_(scores.sum(dim=1, keepdim=True))
        mean.mul_(before).addmm_(scores, table[block])
        most = highest
    return total.log().add_(most), mean.div_(total)


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, table):
        log, mean = _softmax_sums(lambda block: states @ table[block].T, len(states), table)
        ctx.save_for_backward(states, table, log, mean)
        return log.squeeze(1)

    @staticmethod
    def backward(ctx, weights):
        return _LogSumExpGradient.apply(weights.unsqueeze(1), *ctx.saved_tensors)


class _LogSumExpGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, states, table, log, mean):
        ctx.save_for_backward(weights, states, table, log, mean)
        of_table = torch.zeros_like(table)
        for block in _blocks(len(states), table):
            weighed = (states @ table[block].T).sub_(log).exp_().mul_(weights)
            torch.mm(weighed.T, states, out=of_table[block])
        return weights * mean, of_table

    @staticmethod
    @once_differentiable
    def backward(ctx, u_states, u_table):
        weights, states, table, log, mean = ctx.saved_tensors
        blocks = _blocks(len(states), table)

        def probabilities(block):
            return (states @ table[block].T).sub_(log).exp_()

        expected = torch.zeros_like(states)
        for block in blocks:
            expected.addmm_(probabilities(block), u_table[block])
        shift = (u_states * mean + states * expected).sum(dim=1, keepdim=True)
        of_states, of_table = torch.zeros_like(states), torch.zeros_like(table)
        for block in blocks:
            turn = (u_states @ table[block].T).addmm_(states, u_table[block].T).sub_(shift)
            once = probabilities(block).mul_(weights)
            twice = turn.mul_(once)
            of_states.addmm_(twice, table[block]).addmm_(once, u_table[block])
            torch.mm(twice.T, states, out=of_table[block]).addmm_(once.T, u_states)
        return shift, of_states, of_table, None, None


class _SoftEmbeddings(torch.autograd.Function):
    @staticmethod
    def forward(ctx, latent, decoder, bias, table, temperature):
        logits = _logits(latent, decoder, bias, temperature)
        log, mean = _softmax_sums(logits, len(latent), table)
        ctx.save_for_backward(latent, decoder, bias, table, log, mean)
        ctx.temperature = temperature
        return mean

    @staticmethod
    def backward(ctx, gradient):
        *inputs, log, mean = ctx.saved_tensors
        wanted = any(ctx.needs_input_grad[:3])
        return *_SoftEmbeddingsGradient.apply(gradient, *inputs, log, mean.detach(), ctx.temperature, wanted), None


class _SoftEmbeddingsGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gradient, latent, decoder, bias, table, log, mean, temperature, wanted):
        ctx.save_for_backward(gradient, latent, decoder, bias, table, log)
        ctx.set_materialize_grads(False)
        ctx.temperature = temperature
        shift, of_table = (gradient * mean).sum(dim=1, keepdim=True), torch.zeros_like(table)
        made = _Made(latent, decoder, bias) if wanted else None
        logits = _logits(latent, decoder, bias, temperature)
        for block in _blocks(len(latent), table):
            p = logits(block).sub_(log).exp_()
            torch.mm(p.T, gradient, out=of_table[block])
            if wanted:
                made.add(block, (gradient @ table[block].T).sub_(shift).mul_(p).div_(temperature))
        return *(made.gradients if wanted else (None, None, None)), of_table

    @staticmethod
    @once_differentiable
    def backward(ctx, u_latent, u_decoder, u_bias, u_table):
        if any(u is not None for u in (u_latent, u_decoder, u_bias)):
            raise NotImplementedError("the second derivative for what soft events are made of is not implemented in blocks")
        if u_table is None:
            return (None,) * 9
        gradient, latent, decoder, bias, table, log = ctx.saved_tensors
        logits, blocks = _logits(latent, decoder, bias, ctx.temperature), _blocks(len(latent), table)
        expected = torch.zeros_like(gradient)
        for block in blocks:
            expected.addmm_(logits(block).sub_(log).exp_(), u_table[block])
        if not any(ctx.needs_input_grad[1:4]):
            return expected, *(None,) * 8
        shift, made = (gradient * expected).sum(dim=1, keepdim=True), _Made(latent, decoder, bias)
        for block in blocks:
            p = logits(block).sub_(log).exp_()
            made.add(block, (gradient @ u_table[block].T).sub_(shift).mul_(p).div_(ctx.temperature))
        return expected, *made.gradients, *(None,) * 5


def _logits(latent, decoder, bias, temperature):
    """Function from a block of items to ``(Z M + b) / tau`` [N, block]."""
    return lambda block: torch.addmm(bias[block], latent, decoder[:, block]).div_(temperature)


class _Made:
    """Gradients for ``Z``, ``M`` and ``b``, gathered from those for the logits, block by block."""

    def __init__(self, latent, decoder, bias):
        self.latent, self.decoder = latent, decoder
        self.gradients = tuple(torch.zeros_like(value) for value in (latent, decoder, bias))

    def add(self, block, of_logits):
        of_latent, of_decoder, of_bias = self.gradients
        of_latent.addmm_(of_logits, self.decoder[:, block].T)
        of_decoder[:, block] = self.latent.T @ of_logits
        of_bias[block] = of_logits.sum(dim=0)
