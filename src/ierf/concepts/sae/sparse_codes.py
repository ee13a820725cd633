"""The codes of a batch as what is not zero of them, and the products that cost no more than that.

With K latents of which k are active, a dense decoder multiplies N·K·C numbers of which all but N·k·C are zero. Only the
encoder's forward pass needs all of them: nobody knows before which latents are the largest.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class SparseCodes:
    """Codes row by row: sample n has the latents and values from `offsets[n]` to the next offset."""

    offsets: Int[Tensor, " N"]
    latents: Int[Tensor, " A"]
    values: Float[Tensor, " A"]
    n_latents: int

    @classmethod
    def of_rows(cls, latents: Int[Tensor, "N k"], values: Float[Tensor, "N k"], n_latents: int) -> "SparseCodes":
        """The same number of latents for every sample."""
        offsets = torch.arange(0, latents.numel(), latents.shape[1], device=latents.device)
        return cls(offsets, latents.flatten(), values.flatten(), n_latents)

    @classmethod
    def of_mask(cls, mask: Bool[Tensor, "N K"], dense: Float[Tensor, "N K"]) -> "SparseCodes":
        """The values of a dense matrix where the mask is true."""
        rows, latents = mask.nonzero(as_tuple=True)
        return cls(_starts(rows, len(mask)), latents, dense[rows, latents], mask.shape[1])

    @property
    def rows(self) -> Int[Tensor, " A"]:
        """The sample of each value."""
        counts = torch.diff(self.offsets, append=self.offsets.new_tensor([len(self.latents)]))
        return torch.arange(len(self.offsets), device=counts.device).repeat_interleave(counts)

    def with_values(self, values: Float[Tensor, " A"]) -> "SparseCodes":
        return SparseCodes(self.offsets, self.latents, values, self.n_latents)

    def between(self, first: int, end: int) -> "SparseCodes":
        """Only the latents `first … end − 1`, of a dictionary that has them all."""
        inside = ((self.latents >= first) & (self.latents < end)).nonzero()[:, 0]
        offsets = _starts(self.rows[inside], len(self.offsets))
        return SparseCodes(offsets, self.latents[inside], self.values[inside], self.n_latents)

    def decode(self, decoder: Float[Tensor, "K C"]) -> Float[Tensor, "N C"]:
        """U V with A·C multiplications; the gradients of U and V cost as much."""
        return F.embedding_bag(self.latents, decoder, self.offsets, mode="sum", per_sample_weights=self.values)

    def dense(self) -> Float[Tensor, "N K"]:
        out = self.values.new_zeros(len(self.offsets), self.n_latents)
        return out.index_put((self.rows, self.latents), self.values)

    def counts(self) -> Int[Tensor, " K"]:
        """In how many samples each latent is positive."""
        return torch.bincount(self.latents[self.values.detach() > 0], minlength=self.n_latents)


def encoded(
    chosen: SparseCodes, x: Float[Tensor, "N C"], encoder: Float[Tensor, "K C"], bias: Float[Tensor, " K"]
) -> SparseCodes:
    """Chosen pre-activations `⟨w_k, x_n⟩ + b_k`, which are known already, with their gradients to W and b.

    A pre-activation that was not chosen has no gradient, so ∂/∂w_k is a sum over the samples that chose k. `x` gets
    none.
    """
    values: Tensor = _Encoded.apply(chosen.values, x, encoder, bias, chosen)  # type: ignore[no-untyped-call]
    return chosen.with_values(values)


class _Encoded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, x: Tensor, encoder: Tensor, bias: Tensor, chosen: SparseCodes
    ) -> Float[Tensor, " A"]:
        ctx.save_for_backward(x)
        ctx.chosen = chosen
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (gradient,), chosen = ctx.saved_tensors, gradients, ctx.chosen
        order = chosen.latents.argsort(stable=True)
        starts = _starts(chosen.latents[order], chosen.n_latents)
        weights = gradient[order].to(x.dtype)
        of_encoder = F.embedding_bag(chosen.rows[order], x, starts, mode="sum", per_sample_weights=weights)
        of_bias = gradient.new_zeros(chosen.n_latents)
        return None, None, of_encoder, of_bias.index_add_(0, chosen.latents, gradient), None


def _starts(sorted_rows: Int[Tensor, " A"], n: int) -> Int[Tensor, " N"]:
    """Where each of n rows begins in a sorted list of rows."""
    return torch.searchsorted(sorted_rows.contiguous(), torch.arange(n, device=sorted_rows.device))
