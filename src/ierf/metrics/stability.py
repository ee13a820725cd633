"""Eq. 34 of arXiv 2605.00474: how much a map changes when its picture hardly does."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.metrics.scoring import at_pixels, normalise_map, pictures

Explain = Callable[[Float[Tensor, "n 3 H W"]], Float[Tensor, "n h w"]]
"""Pictures to maps, sample by sample."""


@renamed(at_once="batch")
def stability(
    explain: Explain,
    x: Float[Tensor, "N 3 H W"],
    *,
    samples: int = 200,
    noise: float = 0.1,
    seed: int = 0,
    batch: int = 64,
) -> Float[Tensor, " N"]:
    """`max_s ‖φ(x) − φ(x + σ ε_s)‖₂ / ‖σ ε_s‖₂`, ε_s ~ N(0, 1); low is good (arXiv 2605.00474, Eq. 34).

    After Alvarez-Melis & Jaakkola, arXiv 1806.07538. Each φ is scaled bilinearly to the pixels and then divided by its
    own max |φ|. Every sample sees the same `ε_s`. `explain` should hold the class fixed, lest the score tell how often
    noise changes the prediction: `partial(ierf.attribute, model, target=30)`. A map that is not finite gives NaN.
    A map that never changes, zeros among them, is perfectly stable: read this score beside others.

    Args:
        samples: how many noisy copies.
        noise: σ, in units of x.
        seed: of the noise.
        batch: most images that `explain` gets at once.

    Raises:
        IerfError: no noise, no copies, or an `explain` that does not return a map per picture.
    """
    if samples < 1 or noise <= 0 or batch < 1:
        raise IerfError(f"samples={samples}, noise={noise} and batch={batch} must all be positive")
    x = pictures(x)
    maps = torch.cat([_maps(explain, some) for some in torch.split(x, batch)])
    seeds = torch.randint(1 << 32, (samples,), generator=torch.Generator().manual_seed(seed)).tolist()
    worst = torch.zeros_like(maps[:, 0, 0])
    for pair in torch.split(torch.arange(samples * len(x)), batch):
        s, i = pair // len(x), (pair % len(x)).to(x.device)
        drawn = torch.stack([_normal(x[0], one) for one in seeds[int(s[0]) : int(s[-1]) + 1]])
        noisy = x[i] + noise * drawn[s - s[0]]
        ratio = _distance(_maps(explain, noisy), maps[i]) / _distance(noisy, x[i])
        worst = worst.scatter_reduce(0, i, ratio.to(worst), "amax")
    return worst


def _maps(explain: Explain, x: Tensor) -> Float[Tensor, "n H W"]:
    maps = explain(x)
    if not isinstance(maps, Tensor):
        raise IerfError(f"explain returns a tensor of maps (n, h, w), not {type(maps).__name__}")
    maps = maps.detach()
    if len(maps) != len(x):
        raise IerfError(f"explain returned {len(maps)} maps for {len(x)} pictures; it must return one for each")
    height, width = x.shape[2:]
    return normalise_map(at_pixels(maps, (height, width)))


def _distance(a: Tensor, b: Tensor) -> Float[Tensor, " n"]:
    return (a.double() - b.double()).flatten(1).square().sum(1).sqrt()


def _normal(like: Tensor, seed: int) -> Tensor:
    """The noise of one copy, whatever else is drawn; made on the CPU, so that every device sees the same."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)
