"""Grad-CAM++: Grad-CAM that counts every position at which a channel speaks for the class."""

from jaxtyping import Float
from torch import Tensor

from ierf.attribution.cam import class_activation_map, quotient, spatial_sum
from ierf.attribution.targets import Target
from ierf.model import VisionModel


def gradcam_pp(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k w_k A^k)`, `w_k = Σ_ij α_ij ReLU(g_ij)`, `α_ij = g_ij² / (2 g_ij² + Σ_ab A_ab g_ij³)`, `g = ∂y/∂A`.

    Chattopadhyay et al., arXiv 1710.11063: the score is exp y, whose derivatives are exp(y) gⁿ. Its
    factor exp(y), the same for the whole map of a sample, is left out. Computed as `α = 1 / (2 + g Σ A)`,
    which is the same and does not underflow.

    `A` is the encoder output for resolution "low" and "input" (scaled up), the output of the layer at "high", or of
    the layer that `resolution` names; of a transformer, its patches (see `ierf.attribution.cam`).
    encoder: the layer to take as the encoder output; None finds it.
    """
    return class_activation_map(_weights, model, x, target, resolution, encoder)


def _weights(a: Float[Tensor, "N K *map"], slope: Float[Tensor, "N K *map"]) -> Float[Tensor, "N K *#map"]:
    return spatial_sum(quotient(slope.clamp_min(0), 2 + spatial_sum(a) * slope))
