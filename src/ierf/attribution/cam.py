"""What the Grad-CAM family shares: a feature map A, the gradient ∂y/∂A, and how weighted channels become a map."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ierf.attribution.objective import explaining_logits, logit_value
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.targets import Target
from ierf.errors import IerfError
from ierf.model import VisionModel

Weigh = Callable[[Float[Tensor, "N K *map"], Float[Tensor, "N K *map"]], Float[Tensor, "N K *#map"]]
"""(A, ∂y/∂A) -> the weights of the channels, everywhere or position by position."""


def class_activation_map(
    weigh: Weigh, model: VisionModel, x: Tensor, target: Target, resolution: str, encoder: str | None
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k w_k A^k)` with weights made of A and its gradient, in one forward and one backward pass."""
    a, slope = feature_map_and_slope(model, x, target, resolution, encoder)
    return weighted(weigh(a, slope), a, resolution, tuple(x.shape[2:]))


def feature_map_and_slope(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Target, resolution: str, encoder: str | None
) -> tuple[Float[Tensor, "N K *map"], Float[Tensor, "N K *map"]]:
    """`A` and `∂y/∂A` at the encoder output ("low", "input"), the layer at "high", or a layer by name."""
    with explaining_logits(model, x, target) as y:
        run = y.record(y.pixels, encoder)
        node = map_node(run, resolution)
        (slope,) = torch.autograd.grad(
            logit_value(run.logits, y.target).sum(), run.tape.nodes[node].tensor, allow_unused=True
        )
        if slope is None:
            raise IerfError(f"the logits do not depend on the feature map at {run.tape.describe(node)!r}")
        return channels_first(run, node), slope.movedim(run.tape.nodes[node].axis, 1)


def map_node(run: RecordedPass, resolution: str) -> int:
    """The node of the feature map that a resolution means. Raises `IerfError` for a layer without positions."""
    node = run.encoder if resolution == "input" else run.at(resolution)
    if not run.tape.nodes[node].map_shape:
        raise IerfError(f"a class activation map needs a map with positions, and {run.tape.describe(node)!r} has none")
    return node


def channels_first(run: RecordedPass, node: int) -> Float[Tensor, "N K *map"]:
    """The feature map with its channels on axis 1, as a constant."""
    return run.pfvs(node).movedim(run.tape.nodes[node].axis, 1)


def weighted(
    weights: Float[Tensor, "N K *#map"], a: Float[Tensor, "N K *map"], resolution: str, size: tuple[int, ...]
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k w_k A^k)`; at resolution "input" scaled up bilinearly to `size`, as the authors of Grad-CAM do."""
    cam = (weights * a).sum(1).clamp_min(0)
    return cam if resolution != "input" else enlarged(cam[:, None], size)[:, 0]


def enlarged(maps: Float[Tensor, "N K h w"], size: tuple[int, ...]) -> Float[Tensor, "N K H W"]:
    """Bilinear, edges aligned. Raises `IerfError` for token sequences, which have no rows and columns."""
    if maps.ndim != 4:
        raise IerfError(
            f"a feature map with positions {tuple(maps.shape[2:])} cannot be scaled up to a picture; "
            'name a layer whose map has rows and columns, or ask for resolution="low"'
        )
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def spatial_sum(maps: Float[Tensor, "N K *map"]) -> Float[Tensor, "N K *ones"]:
    """Sums over positions, whose axes stay."""
    return maps.sum(tuple(range(2, maps.ndim)), keepdim=True)


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """`numerator / denominator`, 0 where the denominator is 0."""
    return numerator / denominator.masked_fill(denominator == 0, torch.inf)
