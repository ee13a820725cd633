"""How few pixels hold the relevance."""

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError


def sparseness(map: Float[Tensor, "*N h w"]) -> Float[Tensor, "*N"]:
    """The Gini index of |map| (arXiv 2605.00474, Eq. 33): 0 if all pixels are equal, towards 1 if one has everything.

    `1 − 2 Σ_k v_(k)/‖v‖₁ · (d − k + ½)/d` over the ascending values; [0, 0, 0, 1] gives 0.75. NaN for an all-zero map.
    """
    if map.ndim < 2 or 0 in map.shape[-2:]:
        raise IerfError(f"a map has rows and columns, (…, h, w); got {tuple(map.shape)}")
    values = map.flatten(-2).abs().double().sort(-1).values
    d = values.shape[-1]
    weights = (d - torch.arange(1, d + 1, device=values.device, dtype=values.dtype) + 0.5) / d
    return (1 - 2 * (values * weights).sum(-1) / values.sum(-1)).to(map)
