"""Autoencoders that keep the largest latents: TopK, BatchTopK and Matryoshka."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.concepts.sae.losses import SparseCodes, auxk, encoded, gathered, nested, ranks, unexplained
from ierf.concepts.sae.rule import ALL, Objective, Rule, Stage, Weights, best, largest
from ierf.errors import IerfError

_MEMORY = 0.99
"""Of the running mean of the threshold, per step."""
_GUESS = 0.8
"""Share of the last threshold above which the next one is looked for first."""
_HALVINGS = 4
"""Default prefixes: K/16, K/8, K/4, K/2, K."""
_SMALLEST = 1 / 64
"""Of random prefixes, as a share of K."""


class TopK(Rule):
    """z = ReLU(TopK(W_e (x − b_d) + b_e)), x̂ = W_d z + b_d, FVU + α·AuxK (Gao 2024, arXiv 2406.04093).

    Args:
        aux: α, the weight of AuxK; 0 for none.
        k_aux: how many dead latents AuxK takes per sample; None: 512, at most half of the channels.
    """

    pointwise = False

    def __init__(
        self, n_features: int, n_latents: int, k: int, *, aux: float = 1 / 32, k_aux: int | None = None
    ) -> None:
        super().__init__()
        if not 1 <= k <= n_latents:
            raise IerfError(f"k is between 1 and the number of latents, {n_latents}; got {k}")
        self.k, self.aux, self.k_aux = k, aux, k_aux or max(1, min(512, n_features // 2))

    def activation(
        self, weights: Weights, pre: Float[Tensor, "N k"], latents: Int[Tensor, " k"] | slice = ALL
    ) -> Float[Tensor, "N k"]:
        values, latents = pre.topk(self.k, dim=1, sorted=False)
        return torch.zeros_like(pre).scatter(1, latents, values.relu())

    def objective(self, weights: Weights, x: Float[Tensor, "N C"], stage: Stage) -> Objective:
        codes = self.chosen(weights, x)
        x_hat = codes.decode(weights.decoder) + weights.decoder_bias
        loss = unexplained(x, x_hat) + self.revival(weights, x, x_hat, stage)
        return Objective(loss, x_hat, codes.counts())

    def chosen(self, weights: Weights, x: Float[Tensor, "N C"]) -> SparseCodes:
        """The codes of a batch in training; the choice itself has no gradient."""
        centred, bias = weights.centred(x)
        with torch.no_grad():
            chosen = self.choice(F.linear(centred, weights.encoder, bias))
        codes = encoded(chosen, centred, weights.encoder, bias)
        return codes.with_values(codes.values.relu())

    def choice(self, pre: Float[Tensor, "N K"]) -> SparseCodes:
        """Which pre-activations of a batch are kept."""
        values, latents = pre.topk(self.k, dim=1, sorted=False)
        return SparseCodes.of_rows(latents, values.float() if values.dtype == torch.bfloat16 else values, pre.shape[1])

    def revival(
        self, weights: Weights, x: Float[Tensor, "N C"], x_hat: Float[Tensor, "N C"], stage: Stage
    ) -> Float[Tensor, ""]:
        """α·AuxK; 0 while no latent is dead."""
        dead = stage.dead.nonzero()[:, 0]
        if not self.aux or not len(dead):
            return x.new_zeros(())
        centred, bias = weights.centred(x)
        pre = F.linear(centred, weights.encoder[dead], bias[dead])
        return self.aux * auxk(x, x_hat, pre, weights.decoder[dead], self.k_aux)


class BatchTopK(TopK):
    """In training the N·k largest of N·K pre-activations; at inference those above θ (Bussmann 2024, arXiv 2412.06410).

    θ is the running mean of the smallest value that was kept: a buffer, saved and loaded with the weights, so that a
    sample's codes do not depend on its batch mates.
    """

    pointwise = True

    def __init__(
        self, n_features: int, n_latents: int, k: int, *, aux: float = 1 / 32, k_aux: int | None = None
    ) -> None:
        super().__init__(n_features, n_latents, k, aux=aux, k_aux=k_aux)
        self.threshold: Tensor
        self.register_buffer("threshold", torch.zeros(()))

    def activation(
        self, weights: Weights, pre: Float[Tensor, "N k"], latents: Int[Tensor, " k"] | slice = ALL
    ) -> Float[Tensor, "N k"]:
        return pre * (pre > self.threshold)

    def choice(self, pre: Float[Tensor, "N K"]) -> SparseCodes:
        kept = self._smallest_kept(pre.float() if pre.dtype == torch.bfloat16 else pre)
        old = self.threshold
        self.threshold.copy_(_MEMORY * old + (1 - _MEMORY) * kept if bool(old > 0) else kept)
        return SparseCodes.of_mask((pre >= kept) & (pre > 0), pre.to(kept.dtype))

    def _smallest_kept(self, pre: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
        """The (N·k)-th largest over all ranks, at least 0."""
        count, guess = len(pre) * self.k, _GUESS * float(self.threshold)
        if ranks() == 1:
            return largest(pre, count, guess).clamp_min(0)
        everywhere = count * ranks()
        above = pre[pre > 0]
        return best(gathered(best(above, everywhere)), everywhere).amin().clamp_min(0)


class Matryoshka(BatchTopK):
    """Σ_m w_m FVU(x, x̂_{<K_m}) + α·AuxK over prefixes K_1 < … < K_M = K, Σ_m w_m = 1 (Bussmann 2025, arXiv 2503.17547).

    One BatchTopK chooses among all latents; the first ones learn what is common, the last ones what is left.

    Args:
        prefixes: their ends, growing, the last one K; None: K/16, K/8, K/4, K/2, K; "random": five ends drawn anew in
            every step, log-uniformly.
        weights: one per prefix, in any scale; None: equal.
    """

    def __init__(
        self,
        n_features: int,
        n_latents: int,
        k: int,
        *,
        prefixes: Sequence[int] | Literal["random"] | None = None,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        aux: float = 1 / 32,
        k_aux: int | None = None,
    ) -> None:
        super().__init__(n_features, n_latents, k, aux=aux, k_aux=k_aux)
        self.n_latents, self.seed = n_latents, seed
        halves = [max(1, n_latents >> i) for i in range(_HALVINGS, -1, -1)]
        self.fixed = None if prefixes == "random" else sorted(set(halves)) if prefixes is None else list(prefixes)
        if self.fixed is not None and (
            sorted(set(self.fixed)) != self.fixed or self.fixed[0] < 1 or self.fixed[-1] != n_latents
        ):
            raise IerfError(f"prefixes grow and end with all {n_latents} latents; got {self.fixed}")
        count = _HALVINGS + 1 if self.fixed is None else len(self.fixed)
        given = [1.0] * count if weights is None else list(weights)
        if len(given) != count or min(given) < 0 or not sum(given) > 0:
            raise IerfError(f"prefixes have one weight each, none negative, not all zero; got {given} for {count}")
        self.shares = [weight / math.fsum(given) for weight in given]

    def prefixes(self, step: int) -> list[int]:
        """The ends of the prefixes in a step; what is random depends on seed and step alone."""
        if self.fixed is not None:
            return self.fixed
        random = np.random.default_rng([self.seed, step])
        ends = np.exp(random.uniform(math.log(_SMALLEST), 0, _HALVINGS)) * self.n_latents
        return [*sorted(max(1, int(end)) for end in ends), self.n_latents]

    def objective(self, weights: Weights, x: Float[Tensor, "N C"], stage: Stage) -> Objective:
        codes = self.chosen(weights, x)
        loss, x_hat = nested(x, codes, weights.decoder, weights.decoder_bias, self.prefixes(stage.step), self.shares)
        return Objective(loss + self.revival(weights, x, x_hat, stage), x_hat, codes.counts())
