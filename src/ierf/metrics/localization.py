"""Is the evidence on the object? Scores of a map against a mask."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def pointing_game(
    map: Float[Tensor, "*N h w"], mask: Bool[Tensor, "*N H W"], tolerance: float = 15
) -> Float[Tensor, "*N"]:
    """1 if the map's maximum lies at most `tolerance` pixels from the mask, else 0 (arXiv 2605.00474, Eq. 31).

    That is the arg-max inside the mask dilated by a disc. Maps coarser than the mask are scaled up bilinearly.
    `tolerance` counts pixels of the mask; 15 is meant for a side of 224. An empty mask gives NaN, never a hit.
    """
    flat, masks, shape = _pairs(map, mask)
    peak = flat.flatten(1).argmax(1)
    row, column = peak // flat.shape[2], peak % flat.shape[2]
    down = torch.arange(flat.shape[1], device=flat.device)[:, None] - row[:, None, None]
    right = torch.arange(flat.shape[2], device=flat.device) - column[:, None, None]
    near = down.square() + right.square() <= tolerance**2
    hit = (near & masks).flatten(1).any(1).to(flat)
    return torch.where(masks.flatten(1).any(1), hit, torch.nan).reshape(shape)


def attribution_localization(map: Float[Tensor, "*N h w"], mask: Bool[Tensor, "*N H W"]) -> Float[Tensor, "*N"]:
    """The share of positive relevance inside the mask, `Σ_mask max(map, 0) / Σ max(map, 0)` (Eq. 32).

    NaN for an empty mask and for a map without positive relevance.
    """
    flat, masks, shape = _pairs(map, mask)
    positive = flat.clamp_min(0).flatten(1).double()
    share = (positive * masks.flatten(1)).sum(1) / positive.sum(1)
    return torch.where(masks.flatten(1).any(1), share, torch.nan).to(flat).reshape(shape)


def _pairs(map: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Maps (N, H, W) at the masks' resolution, masks as booleans, and the shape of the scores."""
    masks = mask.reshape(-1, *mask.shape[-2:]).to(map.device).bool()
    maps = map.reshape(-1, *map.shape[-2:])
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps for {len(masks)} masks")
    if maps.shape != masks.shape:
        maps = F.interpolate(maps[:, None], size=masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return maps, masks, tuple(map.shape[:-2])
