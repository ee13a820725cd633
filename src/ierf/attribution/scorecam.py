"""Score-CAM: a channel weighs what the class scores when only the places where the channel is active are shown."""

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.cam import enlarged, feature_map, map_node, quotient, weighted
from ierf.attribution.objective import explaining_logits
from ierf.attribution.portions import portions
from ierf.attribution.targets import Target
from ierf.model import VisionModel


def scorecam(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    encoder: str | None = None,
    at_once: int = 64,
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k w_k A^k)`, `w = softmax_k y(x ⊙ H^k)`, `H^k` = A^k scaled up to the picture and to [0, 1].

    Wang et al., arXiv 1910.01279, Algorithm 1. The score of the baseline picture, which the paper subtracts, drops out
    of the softmax. A constant channel masks everything. No gradients; one forward pass per channel.

    Args:
        encoder: the layer to take as the encoder output; None finds it.
        at_once: most masked images in one pass.
    """
    with explaining_logits(model, x, target) as y:
        run = y.record(y.pixels, encoder)
        a = feature_map(run, map_node(run, resolution))
        del run
        scores, size = a.new_zeros(a.shape[:2]), tuple(y.pixels.shape[2:])
        with torch.no_grad():
            for some, channels in portions(len(a), a.shape[1], at_once):
                masks = _to_unit(enlarged(a[some, channels], size))
                scores[some, channels] = y(y.pixels[some, None] * masks[:, :, None], some)
        return weighted(scores.softmax(1).view(*scores.shape, *[1] * (a.ndim - 2)), a, resolution, size)


def _to_unit(maps: Float[Tensor, "N K H W"]) -> Float[Tensor, "N K H W"]:
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return quotient(maps - low, high - low)
