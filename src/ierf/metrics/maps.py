"""A map as the metrics see it: at the resolution of the pixels, and of one size for all samples and methods."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from ierf.errors import IerfError


def normalise_map(map: Float[Tensor, "*N h w"]) -> Float[Tensor, "*N h w"]:
    """`φ / max|φ|`, sample by sample (arXiv 2605.00474, VII-G): within [−1, 1], where the paper clamps.

    A map of zeros stays one; a map with a value that is not finite becomes NaN.
    """
    largest = map.abs().amax((-2, -1), keepdim=True)
    return map / largest.where(largest != 0, 1)


def at_pixels(map: Float[Tensor, "N h w"], size: tuple[int, int]) -> Float[Tensor, "N H W"]:
    """Maps of another size than the pixels' brought to it, bilinearly, as figures show them.

    Every metric does so before anything else. Raises `IerfError` for a tensor that holds no maps.
    """
    if map.ndim != 3 or 0 in map.shape[1:]:
        raise IerfError(f"maps are a tensor (samples, rows, columns), not {tuple(map.shape)}")
    map = map.to(torch.promote_types(map.dtype, torch.float32))
    if map.shape[1:] == size:
        return map
    return F.interpolate(map[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def constant(map: Float[Tensor, "N h w"]) -> Bool[Tensor, " N"]:
    """Which maps are the same everywhere: they prefer no pixel."""
    low, high = map.flatten(1).aminmax(dim=1)
    return low == high


def finite(map: Float[Tensor, "N h w"]) -> Bool[Tensor, " N"]:
    """Which samples have a map without NaN and infinity; the others have no score."""
    return map.isfinite().flatten(1).all(1)
