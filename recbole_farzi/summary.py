"""The summary itself: latent events, token decoder, temperature; and what they amount to as soft or hard events."""

from dataclasses import dataclass, replace
from typing import Optional

import torch

from recbole_farzi.errors import DataError
from recbole_farzi.soft_events import SoftEvents, soft_distributions

__all__ = ["Summary"]


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
    def nbytes(self):
        """Size in bytes: two a number where 16-bit floats hold every one of them exactly, two an input where its id fits."""
        exact = all(torch.equal(t, t.half().to(t.dtype)) for t in self.tensors)
        numbers = sum(t.numel() * (2 if exact else t.element_size()) for t in self.tensors)
        ids = 0 if self.inputs is None else self.inputs.numel() * (2 if len(self.bias) <= 2**16 else 4)
        return numbers + ids

    def rounded(self):
        """The nearest summary that 16-bit floats hold exactly; the same one where a number is beyond their range."""
        tensors = [t.detach().half().to(t.dtype) for t in self.tensors]
        if not all(torch.isfinite(t).all() for t in tensors):
            return self
        return replace(self, latent=tensors[0], decoder=tensors[1], bias=tensors[2])

    def training_events(self):
        """What a student trains on: ``P``, or :class:`recbole_farzi.soft_events.SoftEvents` where events have inputs."""
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
