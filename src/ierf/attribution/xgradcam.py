"""XGrad-CAM: Grad-CAM whose mean over positions is weighted by the activation itself."""

from jaxtyping import Float
from torch import Tensor

from ierf.attribution.cam import class_activation_map, quotient, spatial_sum
from ierf.attribution.targets import Target
from ierf.model import VisionModel


def xgradcam(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k α_k A^k)`, `α_k = Σ_ij (A_ij^k / Σ_ab A_ab^k) ∂y/∂A_ij^k` (Fu et al., arXiv 2008.02312).

    A channel whose activations sum to 0 has no weight.

    `A` is the encoder output for resolution "low" and "input" (scaled up), the output of the layer at "high", or of
    the layer that `resolution` names; of a transformer, its patches (see `ierf.attribution.cam`).
    encoder: the layer to take as the encoder output; None finds it.
    """
    return class_activation_map(_weights, model, x, target, resolution, encoder)


def _weights(a: Float[Tensor, "N K *map"], slope: Float[Tensor, "N K *map"]) -> Float[Tensor, "N K *#map"]:
    return quotient(spatial_sum(a * slope), spatial_sum(a))
