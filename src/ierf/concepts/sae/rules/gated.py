"""Gated: which latents are active and how strongly, decided apart."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ierf.concepts.sae.losses import l1, mean_squared_error
from ierf.concepts.sae.rules.rule import ALL, Objective, Rule, Stage, Weights, active_counts


class Gated(Rule):
    """z = H(π) ⊙ ReLU(e^r ⊙ W_e (x − b_d) + b_mag), π = W_e (x − b_d) + b_e (Rajamanoharan 2024, arXiv 2404.16014).

    ‖x − x̂‖² + λ‖ReLU(π)‖₁ + ‖x − ReLU(π) W_d − b_d‖² with the decoder of the last term held constant: the gates
    learn from the last two, so the penalty does not shrink magnitudes.
    """

    def __init__(self, n_features: int, n_latents: int, k: int, *, lam: float = 1.0) -> None:
        super().__init__()
        self.lam = lam
        self.log_gain = nn.Parameter(torch.zeros(n_latents))
        self.magnitude_bias = nn.Parameter(torch.zeros(n_latents))

    def activation(
        self, weights: Weights, pre: Float[Tensor, "N k"], latents: Int[Tensor, " k"] | slice = ALL
    ) -> Float[Tensor, "N k"]:
        magnitudes = (pre - weights.encoder_bias[latents]) * self.log_gain[latents].exp() + self.magnitude_bias[latents]
        return (pre > 0) * magnitudes.relu()

    def objective(self, weights: Weights, x: Float[Tensor, "N C"], stage: Stage) -> Objective:
        gates = weights.pre(x)
        codes = self.activation(weights, gates)
        x_hat = codes @ weights.decoder + weights.decoder_bias
        frozen = F.linear(gates.relu(), weights.decoder.detach().T, weights.decoder_bias.detach())
        loss = mean_squared_error(x, x_hat) + stage.ramp * self.lam * l1(gates.relu()) + mean_squared_error(x, frozen)
        return Objective(loss, x_hat, active_counts(codes))
