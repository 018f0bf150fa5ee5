"""The summary itself: latent events, token decoder, temperature; and what they amount to as soft or hard events."""

from dataclasses import dataclass, replace
from typing import Optional

import torch

from recbole_farzi.errors import DataError
from recbole_farzi.soft_events import LatentEvents, SoftEvents, soft_distributions

__all__ = ["Summary", "bytes_of_an_id", "stored_bytes"]

_LEVELS = 127  # on either side of 0, of a number of 8 bits
_MANTISSA = 16  # bits of a scale: with the 7 of a level a product fits in the 24 of a 32-bit float
_BYTES_OF_A_SCALE = 4
_SMALLEST = 1e-30  # largest number of a scale below which all are 0


@dataclass(frozen=True)
class Summary:
    """A distilled dataset over ``V`` items (item 0 is padding).

    Attributes:
        latent: ``Z``, shape [mu, xi, d]: mu synthetic sequences of xi events.
        decoder: ``M``, shape [d, V].
        bias: ``b``, shape [V]: the decoder's learnt log-popularity.
        temperature: ``tau``.
        inputs: id of the item that each event is where it is read as a part of the history, shape [mu, xi]; None where it is
            read as its distribution, as in the paper.
    """

    latent: torch.Tensor
    decoder: torch.Tensor
    bias: torch.Tensor
    temperature: float
    inputs: Optional[torch.Tensor] = None

    def __post_init__(self):
        _, _, d = self.latent.shape
        if self.decoder.shape != (d, self.bias.shape[0]):
            raise DataError(
                f"summary does not fit together: latent {tuple(self.latent.shape)}, decoder "
                f"{tuple(self.decoder.shape)}, bias {tuple(self.bias.shape)}"
            )
        if self.inputs is not None and self.inputs.shape != self.latent.shape[:2]:
            raise DataError(
                f"summary does not fit together: latent {tuple(self.latent.shape)}, inputs {tuple(self.inputs.shape)}"
            )

    @property
    def tensors(self):
        """``(Z, M, b)``, what distillation optimises."""
        return self.latent, self.decoder, self.bias

    @property
    def events(self):
        """Number of synthetic events, mu times xi."""
        return self.latent.shape[0] * self.latent.shape[1]

    @property
    def bits(self):
        """The fewest bits a number, 8, 16 or 32, that hold all of them exactly; see :meth:`rounded`."""
        for bits in (8, 16):
            rounded = self.rounded(bits)
            if rounded is not self and all(map(torch.equal, self.tensors, rounded.tensors)):
                return bits
        return 32

    @property
    def nbytes(self):
        """Size in bytes with :attr:`bits` a number, and two bytes an input where its id fits."""
        rank, vocabulary = self.decoder.shape
        ids = 0 if self.inputs is None else self.inputs.numel() * bytes_of_an_id(vocabulary)
        return stored_bytes(self.events, rank, vocabulary, self.bits) + ids

    def rounded(self, bits=16):
        """The nearest summary that so many bits a number hold exactly; itself where a number is beyond the range of 16-bit floats.

        With 8 bits an entry of ``Z`` or ``M`` is a whole number from -127 to 127 times the scale of its latent dimension; ``b`` has
        16-bit floats.

        Args:
            bits: 8, 16 or 32.
        """
        if bits == 32:
            return self
        tensors = [t.detach().half().to(t.dtype) for t in self.tensors]
        if not all(torch.isfinite(t).all() for t in tensors):
            return self
        if bits == 8:
            tensors[:2] = _on_grid(self.latent.detach(), (0, 1)), _on_grid(self.decoder.detach(), (1,))
        return replace(self, latent=tensors[0], decoder=tensors[1], bias=tensors[2])

    def training_events(self, traits=None):
        """What a student trains on: ``P``, or :class:`recbole_farzi.soft_events.SoftEvents` where events have inputs; but
        :class:`recbole_farzi.soft_events.LatentEvents` where it reads them in blocks.

        Args:
            traits: :class:`recbole_farzi.inspection.ModelTraits` of the student; None: it does not read in blocks.
        """
        if traits is not None and traits.by_blocks(self.events):
            return LatentEvents(*self.tensors, self.temperature, self.inputs)
        return self.distributions() if self.inputs is None else SoftEvents(self.distributions(), self.inputs)

    def distributions(self):
        """``P``, shape [mu, xi, V]; see :func:`recbole_farzi.soft_events.soft_distributions`."""
        return soft_distributions(self.latent, self.decoder, self.temperature, self.bias)

    def hard(self, samples, seed):
        """Hard sequences of item ids.

        Args:
            samples: sequences drawn from each synthetic one, each event independently of the others; 0 takes the
                likeliest item of each event.
            seed: of the draws.

        Returns:
            Shape [mu * max(samples, 1), xi], integers from 1 to V - 1.
        """
        generator, rows = torch.Generator().manual_seed(seed), []
        for sequence in self.latent.detach():  # one at a time: in float64 all of P may be large
            p = soft_distributions(sequence, self.decoder.detach(), self.temperature, self.bias.detach()).double().cpu()
            if samples == 0:
                rows.append(p.argmax(dim=-1, keepdim=True).T)
            else:
                rows.append(torch.multinomial(p, samples, replacement=True, generator=generator).T)
        return torch.cat(rows)

    def to(self, device):
        """The same summary on another device, detached from any graph."""
        inputs = None if self.inputs is None else self.inputs.to(device)
        return Summary(*(t.detach().to(device) for t in self.tensors), self.temperature, inputs)


def bytes_of_an_id(vocabulary):
    """Bytes of an item's id in a vocabulary (with padding)."""
    return 2 if vocabulary <= 2**16 else 4


def stored_bytes(events, rank, vocabulary, bits):
    """What ``Z``, ``M`` and ``b`` take with so many bits a number; see :meth:`Summary.rounded`.

    Args:
        events: mu times xi.
        rank: d.
        vocabulary: V, with padding.
        bits: 8, 16 or 32.
    """
    scales = 2 * rank * _BYTES_OF_A_SCALE if bits == 8 else 0
    return rank * (events + vocabulary) * bits // 8 + vocabulary * max(bits, 16) // 8 + scales


def _on_grid(values, over):
    """The nearest multiples, from -127 to 127 times, of a scale for all values along ``over``. What is on a grid stays there, bit for
    bit: a scale has so few digits that its multiples are exact."""
    largest = values.abs().amax(dim=over, keepdim=True)
    mantissa, exponent = torch.frexp(largest / _LEVELS)
    scale = torch.ldexp(torch.ceil(mantissa * 2.0**_MANTISSA) / 2.0**_MANTISSA, exponent)
    scale = torch.where(largest > _SMALLEST, scale, torch.ones_like(scale))
    return torch.where(largest > _SMALLEST, torch.round(values / scale) * scale, torch.zeros_like(values))
