"""Explanations by the plain gradient, the baselines of every comparison."""

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.running import running
from ierf.attribution.srd import logit_weights
from ierf.attribution.targets import PFV, Channel, Direction, Relevance, Target
from ierf.errors import IerfError
from ierf.model import VisionModel


def gradient(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Target = None, resolution: str = "input"
) -> Float[Tensor, "N H W"]:
    """Class saliency: the maximum over colour channels of |∂y^c/∂x| (Simonyan et al., arXiv 1312.6034, Sec. 3)."""
    return _input_gradient(model, x, target, resolution)[1].abs().amax(1)


def gradient_x_input(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Target = None, resolution: str = "input"
) -> Float[Tensor, "N H W"]:
    """`Σ_channels x ⊙ ∂y^c/∂x` (Shrikumar et al., arXiv 1605.01713)."""
    pixels, slope = _input_gradient(model, x, target, resolution)
    return (pixels * slope).sum(1)


def _input_gradient(model: VisionModel, x: Tensor, target: Target, resolution: str) -> tuple[Tensor, Tensor]:
    if resolution != "input":
        raise IerfError(f"a gradient by the pixels has resolution 'input', not {resolution!r}")
    if isinstance(target, Channel | PFV | Direction | Relevance):
        raise IerfError(f"gradient methods explain logits, not a {type(target).__name__}; use method 'srd' for that")
    with running(model, x) as (forward, pixels):
        logits = forward(pixels)
        (slope,) = torch.autograd.grad(logits, pixels, logit_weights(logits, target))
        return pixels.detach(), slope
