"""L1: as many latents as the penalty lets live."""

from typing import Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor

from ierf.concepts.sae.losses import l1, mean_squared_error, weighted_l1
from ierf.concepts.sae.rules.rule import ALL, Objective, Rule, Stage, Weights, active_counts
from ierf.errors import UnknownNameError

Form = Literal["ierf", "gig"]


class L1(Rule):
    """z = ReLU(W_e (h − b_d)), ĥ = W_d z − b_h, ‖h − ĥ‖² + λ‖z‖₁ (arXiv 2605.00474 Eq. 8–9): form "ierf".

    f = ReLU(W_e x + b_e), x̂ = W_d f + b_d, ‖x − x̂‖² + λ Σ_i |f_i| ‖W_d,i‖₂ (GIG Eq. 11): form "gig". Longer decoder
    columns would make Eq. 9 smaller for nothing, so "ierf" keeps them at norm 1; "gig" leaves them free.
    """

    def __init__(self, n_features: int, n_latents: int, k: int, *, lam: float = 1.0, form: Form = "ierf") -> None:
        super().__init__()
        if form not in get_args(Form):
            raise UnknownNameError("form of an L1 autoencoder", form, get_args(Form))
        self.lam, self.form = lam, form
        self.unit_norm = form == "ierf"
        self.input_bias = "own" if form == "ierf" else "none"
        self.encoder_bias = form == "gig"

    def activation(
        self, weights: Weights, pre: Float[Tensor, "N k"], latents: Int[Tensor, " k"] | slice = ALL
    ) -> Float[Tensor, "N k"]:
        return pre.relu()

    def objective(self, weights: Weights, x: Float[Tensor, "N C"], stage: Stage) -> Objective:
        codes = weights.pre(x).relu()
        x_hat = codes @ weights.decoder + weights.decoder_bias
        penalty = l1(codes) if self.form == "ierf" else weighted_l1(codes, weights.decoder)
        loss = mean_squared_error(x, x_hat) + stage.ramp * self.lam * penalty
        return Objective(loss, x_hat, active_counts(codes))
