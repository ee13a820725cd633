"""Gradients of the score by the pixels: saliency, gradient × input, and their mean over noisy copies."""

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.batching import portions
from ierf.attribution.objective import Objective, explaining, slope_of
from ierf.attribution.targets import Target
from ierf.deprecated import renamed
from ierf.errors import IerfError
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


@renamed(at_once="batch")
def smoothgrad(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    batch: int = 32,
) -> Float[Tensor, "N H W"]:
    """`max_channel |1/n Σ_s ∂y/∂x (x + σ ε_s)|`, ε_s ~ N(0, 1), σ = noise · (max x − min x) of each sample.

    Smilkov et al., arXiv 1706.03825, Sec. 3. The same `ε_s` for every sample, so that a map depends neither on batch
    mates nor, by chance, on small changes of the picture.

    Args:
        samples: n, how many noisy copies.
        noise: their standard deviation as a share of the sample's range.
        seed: of the noise.
        batch: most images in one pass.
    """
    if samples < 1:
        raise IerfError(f"SmoothGrad averages over at least one noisy copy, not {samples}")
    with explaining(model, x, target, resolution) as y:
        pixels = y.pixels.detach()
        low, high = pixels.flatten(1).aminmax(dim=1)
        sigma = (noise * (high - low)).view(-1, *[1] * pixels.ndim)
        seeds = torch.randint(1 << 32, (samples,), generator=torch.Generator().manual_seed(seed)).tolist()
        total = torch.zeros_like(pixels)
        for some, copies in portions(len(pixels), samples, batch):
            epsilon = torch.stack([_normal(pixels[0], one) for one in seeds[copies]])
            total[some] += slopes(y, pixels[some, None] + sigma[some] * epsilon, some).sum(1)
        return strongest_channel(total / samples)


def _normal(like: Tensor, seed: int) -> Tensor:
    """The noise of one copy, whatever else is drawn; made on the CPU, so that every device sees the same."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)
