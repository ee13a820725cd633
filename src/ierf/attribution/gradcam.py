"""Grad-CAM: the class's gradient, averaged over positions, weighs the channels of a feature map."""

from jaxtyping import Float
from torch import Tensor

from ierf.attribution.cam import class_activation_map
from ierf.attribution.targets import Target
from ierf.model import VisionModel


def gradcam(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k α_k A^k)` with `α` the spatial mean of ∂y/∂A (Selvaraju et al., arXiv 1610.02391, Eq. 1–2).

    `A` is the encoder output for resolution "low" and "input" (scaled up), the output of the layer at "high", or of
    the layer that `resolution` names; of a transformer, its patches (see `ierf.attribution.cam`).
    encoder: the layer to take as the encoder output; None finds it.
    """
    return class_activation_map(_weights, model, x, target, resolution, encoder)


def _weights(a: Float[Tensor, "N K *map"], slope: Float[Tensor, "N K *map"]) -> Float[Tensor, "N K *#map"]:
    return slope.mean(tuple(range(2, a.ndim)), keepdim=True)
