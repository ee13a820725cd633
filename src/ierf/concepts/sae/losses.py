"""The losses of sparse autoencoders: functions of tensors, each with its formula and source; and their sparse codes.

All are those of the whole batch, under data-parallel training of all ranks' batches together.

With K latents of which k are active, a dense decoder multiplies N·K·C numbers of which all but N·k·C are zero. Only the
encoder's forward pass needs all of them: nobody knows before which latents are the largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, distributed
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


_TINY = 1e-20
"""Keeps 0/0 from being NaN where all samples are the same."""


def ranks() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def total(part: Tensor) -> Tensor:
    """The sum of all ranks' parts, with the gradient of one's own.

    What a rank's backward pass gives is then its part of the gradient of the whole loss; parts add up too.
    """
    if ranks() == 1:
        return part
    summed: Tensor = _Total.apply(part)  # type: ignore[no-untyped-call]
    return summed


def add_up(parts: list[Tensor]) -> None:
    """Replace each tensor by its sum over the ranks."""
    if ranks() > 1:
        for part in parts:
            distributed.all_reduce(part)


def gathered(part: Float[Tensor, " A"]) -> Float[Tensor, " B"]:
    """All ranks' numbers, one behind the other; every rank gives as many."""
    if ranks() == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(ranks())]
    distributed.all_gather(parts, part.contiguous())
    return torch.cat(parts)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        summed = part.detach().clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def mean_squared_error(x: Float[Tensor, "N C"], x_hat: Float[Tensor, "N C"]) -> Float[Tensor, ""]:
    """1/N Σ_n ‖x_n − x̂_n‖², summed over channels (arXiv 2605.00474 Eq. 9, first term)."""
    return total((x - x_hat).square().sum()) / samples(x)


def l1(codes: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
    """1/N Σ_n ‖z_n‖₁ (arXiv 2605.00474 Eq. 9, second term). Asks for decoder columns of norm 1."""
    return total(codes.abs().sum()) / samples(codes)


def weighted_l1(codes: Float[Tensor, "N K"], decoder: Float[Tensor, "K C"]) -> Float[Tensor, ""]:
    """1/N Σ_n Σ_i |f_i(x_n)| ‖W_d,i‖₂ (GIG Eq. 11): what a latent adds, whatever the norm of its column."""
    return total((codes.abs() @ decoder.norm(dim=1)).sum()) / samples(codes)


def variance(x: Float[Tensor, "N C"]) -> Float[Tensor, ""]:
    """Σ_n ‖x_n − x̄‖², without gradient."""
    x = x.detach()
    mean = total(x.sum(0)) / samples(x)
    return total((x - mean).square().sum()).clamp_min(_TINY)


def unexplained(x: Float[Tensor, "N C"], x_hat: Float[Tensor, "N C"]) -> Float[Tensor, ""]:
    """Share of variance left, FVU: Σ_n ‖x_n − x̂_n‖² / Σ_n ‖x_n − x̄‖² (Gao 2024, arXiv 2406.04093)."""
    return total((x - x_hat).square().sum()) / variance(x)


def auxk(
    x: Float[Tensor, "N C"],
    x_hat: Float[Tensor, "N C"],
    dead_pre: Float[Tensor, "N D"],
    dead_decoder: Float[Tensor, "D C"],
    k_aux: int,
) -> Float[Tensor, ""]:
    """What dead latents could do for the error (Gao 2024, App. A.2): ‖e − ê‖² / ‖e − ē‖², ê = TopK_aux(z_dead) W_dead.

    The residual e = x − x̂ is a constant, so that living latents are not drawn towards what the dead ones do; ê has no
    decoder bias, which x̂ has already. The gradient reaches the dead latents' encoder and decoder.

    Args:
        dead_pre: pre-activations of the D dead latents, with their gradient.
        dead_decoder: their decoder columns, as rows.
    """
    residual = (x - x_hat).detach()
    values, latents = dead_pre.topk(min(k_aux, dead_pre.shape[1]), dim=1, sorted=False)
    codes = torch.zeros_like(dead_pre).scatter(1, latents, values.relu())
    return unexplained(residual, codes @ dead_decoder)


def nested(
    x: Float[Tensor, "N C"],
    codes: SparseCodes,
    decoder: Float[Tensor, "K C"],
    decoder_bias: Float[Tensor, " C"],
    prefixes: Sequence[int],
    weights: Sequence[float],
) -> tuple[Float[Tensor, ""], Float[Tensor, "N C"]]:
    """Σ_m w_m FVU(x, U_{<K_m} V_{<K_m} + b) over growing prefixes of the dictionary, and the last reconstruction.

    Bussmann 2025, arXiv 2503.17547. A latent is decoded once: each reconstruction is the one before plus its own part.
    """
    x_hat, loss, first = decoder_bias.expand_as(x), x.new_zeros(()), 0
    for end, weight in zip(prefixes, weights, strict=True):
        x_hat = x_hat + codes.between(first, end).decode(decoder)
        loss, first = loss + weight * unexplained(x, x_hat), end
    return loss, x_hat


def samples(x: Tensor) -> Float[Tensor, ""]:
    """How many rows all ranks have together."""
    return total(torch.tensor(float(len(x)), device=x.device))
