"""BatchTopK: the N·k largest latents of a batch, and a threshold that stands for them at inference."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.concepts.sae.active import Active
from ierf.concepts.sae.rules.rule import ALL, Weights, best, largest
from ierf.concepts.sae.rules.topk import TopK
from ierf.concepts.sae.totals import gathered, ranks

_MEMORY = 0.99
"""Of the running mean of the threshold, per step."""
_GUESS = 0.8
"""Share of the last threshold above which the next one is looked for first."""


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

    def choice(self, pre: Float[Tensor, "N K"]) -> Active:
        kept = self._smallest_kept(pre.float() if pre.dtype == torch.bfloat16 else pre)
        old = self.threshold
        self.threshold.copy_(_MEMORY * old + (1 - _MEMORY) * kept if bool(old > 0) else kept)
        return Active.of_mask((pre >= kept) & (pre > 0), pre.to(kept.dtype))

    def _smallest_kept(self, pre: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
        """The (N·k)-th largest over all ranks, at least 0."""
        count, guess = len(pre) * self.k, _GUESS * float(self.threshold)
        if ranks() == 1:
            return largest(pre, count, guess).clamp_min(0)
        everywhere = count * ranks()
        above = pre[pre > 0]
        return best(gathered(best(above, everywhere)), everywhere).amin().clamp_min(0)
