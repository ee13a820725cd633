"""JumpReLU: a threshold per latent, learnt through straight-through estimators."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ierf.concepts.sae.losses import samples, unexplained
from ierf.concepts.sae.rules.rule import ALL, Objective, Rule, Stage, Weights, active_counts, best, rectangle
from ierf.concepts.sae.totals import gathered, ranks, total
from ierf.errors import IerfError


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
