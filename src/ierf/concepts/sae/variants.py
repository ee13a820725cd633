"""The kinds of autoencoders by name; those with a penalty: L1 (arXiv 2605.00474, Eq. 8–9), gated, JumpReLU."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ierf.concepts.sae.losses import gathered, l1, mean_squared_error, ranks, samples, total, unexplained, weighted_l1
from ierf.concepts.sae.rule import ALL, Objective, Rule, Stage, Weights, active_counts, best, rectangle
from ierf.concepts.sae.topk import BatchTopK, Matryoshka, TopK
from ierf.errors import IerfError, UnknownNameError

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


class JumpReLU(Rule):
    """z = π·H(π − θ), π = W_e x + b_e; FVU + λ (‖z‖₀/k − 1)² (Rajamanoharan 2024, arXiv 2407.14435).

    The penalty draws the mean number of active latents to k. Thresholds begin where k latents of the first batch's
    samples are active on average, and learn through the estimators `jump_relu` and `steps_above`.

    Args:
        lam: λ.
        bandwidth: ε, the width within which a pre-activation moves its threshold; the input's mean square is 1.
    """

    input_bias = "none"

    def __init__(self, n_features: int, n_latents: int, k: int, *, lam: float = 0.1, bandwidth: float = 0.1) -> None:
        super().__init__()
        if not 1 <= k <= n_latents or bandwidth <= 0:
            raise IerfError(f"k is between 1 and {n_latents}, the bandwidth is positive; got {k} and {bandwidth}")
        self.k, self.lam, self.bandwidth = k, lam, bandwidth
        self.log_threshold = nn.Parameter(torch.zeros(n_latents))

    def begin(self, weights: Weights, x: Float[Tensor, "N C"]) -> None:
        pre = weights.pre(x)
        kept = gathered(best(pre.flatten(), self.k * len(pre) * ranks()))
        start = best(kept, self.k * len(pre) * ranks()).amin()
        self.log_threshold.fill_(float(start.clamp_min(self.bandwidth).log()))

    def activation(
        self, weights: Weights, pre: Float[Tensor, "N k"], latents: Int[Tensor, " k"] | slice = ALL
    ) -> Float[Tensor, "N k"]:
        return pre * (pre > self.log_threshold[latents].exp())

    def objective(self, weights: Weights, x: Float[Tensor, "N C"], stage: Stage) -> Objective:
        pre, threshold = weights.pre(x), self.log_threshold.exp()
        codes = jump_relu(pre, threshold, self.bandwidth)
        x_hat = codes @ weights.decoder + weights.decoder_bias
        l0 = total(steps_above(pre, threshold, self.bandwidth).sum()) / samples(x)
        loss = unexplained(x, x_hat) + stage.ramp * self.lam * (l0 / self.k - 1).square()
        return Objective(loss, x_hat, active_counts(codes))


def jump_relu(pre: Float[Tensor, "N K"], threshold: Float[Tensor, " K"], bandwidth: float) -> Float[Tensor, "N K"]:
    """π·H(π − θ) with ∂/∂π = H(π − θ) and ∂/∂θ = −θ/ε · 1[|π − θ| < ε/2] (the paper's pseudo-derivative)."""
    found: Tensor = _JumpReLU.apply(pre, threshold, bandwidth)  # type: ignore[no-untyped-call]
    return found


def steps_above(pre: Float[Tensor, "N K"], threshold: Float[Tensor, " K"], bandwidth: float) -> Float[Tensor, "N K"]:
    """H(π − θ) with ∂/∂π = 0 and ∂/∂θ = −1/ε · 1[|π − θ| < ε/2] (the paper's pseudo-derivative)."""
    found: Tensor = _Step.apply(pre, threshold, bandwidth)  # type: ignore[no-untyped-call]
    return found


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (pre, threshold), (gradient,) = ctx.saved_tensors, gradients
        near = rectangle((pre - threshold) / ctx.bandwidth)
        of_threshold = -(threshold / ctx.bandwidth) * (near * gradient).sum(0)
        return gradient * (pre > threshold), of_threshold, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (pre, threshold), (gradient,) = ctx.saved_tensors, gradients
        near = rectangle((pre - threshold) / ctx.bandwidth)
        return None, -(near * gradient).sum(0) / ctx.bandwidth, None


RULES: Mapping[str, type[Rule]] = {
    "l1": L1,
    "topk": TopK,
    "batchtopk": BatchTopK,
    "jumprelu": JumpReLU,
    "gated": Gated,
    "matryoshka": Matryoshka,
}

__all__ = ["RULES", "Objective", "Rule", "Stage", "Weights"]
