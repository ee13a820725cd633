"""LayerCAM: every position weighs its channels by its own positive gradient, so that fine layers serve too."""

from jaxtyping import Float
from torch import Tensor

from ierf.attribution.cam import class_activation_map
from ierf.attribution.targets import Target
from ierf.model import VisionModel


def layercam(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k ReLU(∂y/∂A_ij^k) A_ij^k)` (Jiang et al., IEEE TIP 2021).

    `A` is the encoder output for resolution "low" and "input" (scaled up), the output of the layer at "high", or of
    the layer that `resolution` names; of a transformer, its patches (see `ierf.attribution.cam`).
    encoder: the layer to take as the encoder output; None finds it.
    """
    return class_activation_map(_weights, model, x, target, resolution, encoder)


def _weights(a: Float[Tensor, "N K *map"], slope: Float[Tensor, "N K *map"]) -> Float[Tensor, "N K *#map"]:
    return slope.clamp_min(0)
