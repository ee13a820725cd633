"""Matryoshka: every prefix of the dictionary is a dictionary."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ierf.concepts.sae.losses import nested
from ierf.concepts.sae.rules.batchtopk import BatchTopK
from ierf.concepts.sae.rules.rule import Objective, Stage, Weights
from ierf.errors import IerfError

_HALVINGS = 4
"""Default prefixes: K/16, K/8, K/4, K/2, K."""
_SMALLEST = 1 / 64
"""Of random prefixes, as a share of K."""


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
