"""Integrated gradients along the way from a baseline to the picture (arXiv 1703.01365, Eq. 1)."""

import torch
from jaxtyping import Float
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn

from ierf.attribution.gradients import slopes
from ierf.attribution.objective import Objective, explaining, portions
from ierf.attribution.targets import Target
from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.model import VisionModel, as_vision_model

Baseline = float | Float[Tensor, "#N 3 H W"]
"""Pixels of a picture without evidence, as the network sees them: one number, or a tensor that broadcasts over x."""


@renamed(at_once="batch")
def integrated_gradients(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    baseline: Baseline = 0.0,
    steps: int = 64,
    batch: int = 32,
) -> Float[Tensor, "N H W"]:
    """`Σ_channels (x − x₀) ⊙ ∫₀¹ ∂y/∂x (x₀ + α (x − x₀)) dα` (Sundararajan et al., arXiv 1703.01365, Eq. 1).

    By Gauss–Legendre quadrature, whose weights sum to 1 and whose points avoid both ends. The map sums to
    `y(x) − y(x₀)`, up to what `completeness_error` says.

    Args:
        baseline: `x₀`; zero is the mean colour of the usual preprocessing.
        steps: points on the way.
        batch: most images in one pass.
    """
    with explaining(model, x, target, resolution) as y:
        return _integral(y, baseline_like(y.pixels, baseline), steps, batch).sum(1)


@renamed(at_once="batch")
def completeness_error(
    model: VisionModel | nn.Module,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    *,
    baseline: Baseline = 0.0,
    steps: int = 64,
    batch: int = 32,
) -> Float[Tensor, " N"]:
    """`Σ map − (y(x) − y(x₀))` of integrated gradients with the same options: what the quadrature gets wrong."""
    with explaining(as_vision_model(model), x, target, "input") as y:
        start = baseline_like(y.pixels, baseline)
        total = _integral(y, start, steps, batch).flatten(1).sum(1)
        with torch.no_grad():
            ends = y(torch.stack([start, y.pixels], 1))
        return total - (ends[:, 1] - ends[:, 0])


def baseline_like(pixels: Tensor, baseline: Baseline) -> Tensor:
    """The baseline as a tensor of the pixels' shape. Raises `IerfError` if it cannot be one."""
    given = torch.as_tensor(baseline).to(pixels)
    try:
        return given.expand_as(pixels)
    except RuntimeError:
        shapes = f"{tuple(given.shape)}, the pixels {tuple(pixels.shape)}"
        raise IerfError(f"a baseline is one number or pixels like those explained; it has the shape {shapes}") from None


def _integral(y: Objective, start: Tensor, steps: int, batch: int) -> Float[Tensor, "N C H W"]:
    if steps < 1:
        raise IerfError(f"the way from the baseline needs at least one step, not {steps}")
    points, weights = (torch.from_numpy(numbers).to(start) for numbers in leggauss(steps))
    axes = [1] * (start.ndim - 1)
    alpha, weight = ((points + 1) / 2).view(-1, *axes), (weights / 2).view(-1, *axes)
    way = y.pixels.detach() - start
    average = torch.zeros_like(way)
    for some, part in portions(len(way), steps, batch):
        slope = slopes(y, start[some, None] + alpha[part] * way[some, None], some)
        average[some] += (weight[part] * slope).sum(1)
    return way * average
