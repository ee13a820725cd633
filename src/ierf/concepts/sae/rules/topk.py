"""TopK: the k largest latents of each sample, and AuxK to bring dead ones back."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.concepts.sae.active import Active, encoded
from ierf.concepts.sae.losses import auxk, unexplained
from ierf.concepts.sae.rules.rule import ALL, Objective, Rule, Stage, Weights
from ierf.errors import IerfError


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

    def chosen(self, weights: Weights, x: Float[Tensor, "N C"]) -> Active:
        """The codes of a batch in training; the choice itself has no gradient."""
        centred, bias = weights.centred(x)
        with torch.no_grad():
            chosen = self.choice(F.linear(centred, weights.encoder, bias))
        codes = encoded(chosen, centred, weights.encoder, bias)
        return codes.with_values(codes.values.relu())

    def choice(self, pre: Float[Tensor, "N K"]) -> Active:
        """Which pre-activations of a batch are kept."""
        values, latents = pre.topk(self.k, dim=1, sorted=False)
        return Active.of_rows(latents, values.float() if values.dtype == torch.bfloat16 else values, pre.shape[1])

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
