"""What a kind of sparse autoencoder has to say: `z = σ(W_e (x − b_in) + b_e)` and its loss (Eq. 8–9)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

ALL = slice(None)


@dataclass(frozen=True)
class Weights:
    """z = σ(W_e (x − b_in) + b_e), x̂ = z W_d + b_d, with latents as rows of both matrices."""

    encoder: Float[Tensor, "K C"]
    encoder_bias: Float[Tensor, " K"]
    input_bias: Float[Tensor, " C"] | None
    """What is subtracted from the input: the decoder's bias itself, another vector, or nothing."""
    decoder: Float[Tensor, "K C"]
    decoder_bias: Float[Tensor, " C"]

    def centred(self, x: Float[Tensor, "N C"]) -> tuple[Float[Tensor, "N C"], Float[Tensor, " K"]]:
        """x − b_in as a constant, and b_e with the gradient −W_e of b_in: together W_e (x − b_in) + b_e."""
        if self.input_bias is None:
            return x, self.encoder_bias
        constant = self.input_bias.detach()
        return x - constant, self.encoder_bias - self.encoder.detach() @ (self.input_bias - constant)

    def pre(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """The pre-activations W_e (x − b_in) + b_e."""
        return F.linear(x if self.input_bias is None else x - self.input_bias, self.encoder, self.encoder_bias)


@dataclass(frozen=True)
class Stage:
    """Where training is."""

    step: int
    ramp: float
    """From 0 to 1 in the first steps: what sparsity penalties are multiplied with."""
    dead: Bool[Tensor, " K"]


@dataclass(frozen=True)
class Objective:
    """What a batch gives."""

    loss: Float[Tensor, ""]
    x_hat: Float[Tensor, "N C"]
    counts: Int[Tensor, " K"]
    """In how many samples of this rank each latent was active."""


class Rule(nn.Module, ABC):
    """A kind: its parameters beside the weights, codes at inference, the loss in training."""

    unit_norm: bool = True
    """Whether decoder columns keep the norm 1."""
    input_bias: str = "decoder"
    """What is subtracted from the input: the "decoder" bias, a vector of its "own", or "none"."""
    encoder_bias: bool = True
    pointwise: bool = True
    """Whether a code depends on its own latent's pre-activation alone, and never falls when that grows."""

    def begin(self, weights: Weights, x: Float[Tensor, "N C"]) -> None:
        """What is fixed by the first batch; nothing, as a rule."""
        return

    def codes(self, weights: Weights, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """The codes of a sample, whatever its batch mates are."""
        return self.activation(weights, weights.pre(x))

    @abstractmethod
    def activation(
        self, weights: Weights, pre: Float[Tensor, "N k"], latents: Int[Tensor, " k"] | slice = ALL
    ) -> Float[Tensor, "N k"]:
        """σ: the codes of pre-activations; those of some latents only if the kind is `pointwise`."""

    @abstractmethod
    def objective(self, weights: Weights, x: Float[Tensor, "N C"], stage: Stage) -> Objective:
        """The loss of a batch in training."""


def active_counts(codes: Float[Tensor, "N K"]) -> Int[Tensor, " K"]:
    """In how many samples each latent is positive."""
    return (codes.detach() > 0).sum(0)


def rectangle(u: Tensor) -> Tensor:
    """The kernel 1[|u| < ½]."""
    return (u.abs() < 0.5).to(u.dtype)


def largest(pre: Float[Tensor, "N K"], count: int, guess: float) -> Float[Tensor, ""]:
    """The `count`-th largest of all entries, exactly; quick where at least so many lie above the guess."""
    above = pre[pre > guess]
    among = above if above.numel() >= count else pre.flatten()
    return among.topk(count, sorted=False).values.amin() if among.numel() > count else among.amin()


def best(values: Float[Tensor, " A"], count: int) -> Float[Tensor, " count"]:
    """The `count` largest; −∞ where there are fewer."""
    found = values.topk(min(count, len(values)), sorted=False).values
    return torch.cat([found, found.new_full((count - len(found),), -torch.inf)])
