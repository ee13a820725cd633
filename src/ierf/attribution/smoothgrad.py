"""SmoothGrad: the gradient, averaged over noisy copies of the picture."""

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.gradients import slopes, strongest_channel
from ierf.attribution.objective import explaining
from ierf.attribution.portions import portions
from ierf.attribution.targets import Target
from ierf.errors import IerfError
from ierf.model import VisionModel


def smoothgrad(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    at_once: int = 32,
) -> Float[Tensor, "N H W"]:
    """`max_channel |1/n Σ_s ∂y/∂x (x + σ ε_s)|`, ε_s ~ N(0, 1), σ = noise · (max x − min x) of each sample.

    Smilkov et al., arXiv 1706.03825, Sec. 3. The same `ε_s` for every sample, so that a map depends neither on batch
    mates nor, by chance, on small changes of the picture.

    Args:
        samples: n, how many noisy copies.
        noise: their standard deviation as a share of the sample's range.
        seed: of the noise.
        at_once: most images in one pass.
    """
    if samples < 1:
        raise IerfError(f"SmoothGrad averages over at least one noisy copy, not {samples}")
    with explaining(model, x, target, resolution) as y:
        pixels = y.pixels.detach()
        low, high = pixels.flatten(1).aminmax(dim=1)
        sigma = (noise * (high - low)).view(-1, *[1] * pixels.ndim)
        seeds = torch.randint(1 << 32, (samples,), generator=torch.Generator().manual_seed(seed)).tolist()
        total = torch.zeros_like(pixels)
        for some, copies in portions(len(pixels), samples, at_once):
            epsilon = torch.stack([_normal(pixels[0], one) for one in seeds[copies]])
            total[some] += slopes(y, pixels[some, None] + sigma[some] * epsilon, some).sum(1)
        return strongest_channel(total / samples)


def _normal(like: Tensor, seed: int) -> Tensor:
    """The noise of one copy, whatever else is drawn; made on the CPU, so that every device sees the same."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)
