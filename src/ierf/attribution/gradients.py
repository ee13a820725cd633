"""Explanations by the plain gradient, the baselines of every comparison."""

from jaxtyping import Float
from torch import Tensor

from ierf.attribution.objective import Objective, explaining, slope_of
from ierf.attribution.targets import Target
from ierf.model import VisionModel


def gradient(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Target = None, resolution: str = "input"
) -> Float[Tensor, "N H W"]:
    """Class saliency: the maximum over colour channels of |∂y/∂x| (Simonyan et al., arXiv 1312.6034, Sec. 3)."""
    with explaining(model, x, target, resolution) as y:
        return strongest_channel(slopes(y, y.pixels[:, None])[:, 0])


def gradient_x_input(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Target = None, resolution: str = "input"
) -> Float[Tensor, "N H W"]:
    """`Σ_channels x ⊙ ∂y/∂x` (Shrikumar et al., arXiv 1605.01713)."""
    with explaining(model, x, target, resolution) as y:
        return (y.pixels.detach() * slopes(y, y.pixels[:, None])[:, 0]).sum(1)


def slopes(
    y: Objective, images: Float[Tensor, "n S C H W"], samples: slice = slice(None)
) -> Float[Tensor, "n S C H W"]:
    """`∂y/∂x` at S variants of each of `samples`, in one forward and one backward pass."""
    points = images.detach().requires_grad_()
    return slope_of(y(points, samples).sum(), points)


def strongest_channel(slope: Float[Tensor, "N C H W"]) -> Float[Tensor, "N H W"]:
    """`max_c |slope_c|`: one number per pixel."""
    return slope.abs().amax(1)
