"""Eqs. 31 to 33 of arXiv 2605.00474: is the evidence on the object, and on how few pixels is it?"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ierf.errors import IerfError
from ierf.metrics.scoring import Preset, at_pixels, check_preset, constant, finite


def pointing_game(
    map: Float[Tensor, "*N h w"], mask: Bool[Tensor, "*N H W"], tolerance: float = 15
) -> Float[Tensor, "*N"]:
    """1 if the map's maximum lies at most `tolerance` pixels from the mask, else 0 (arXiv 2605.00474, Eq. 31).

    That is the arg-max inside the mask dilated by a disc. Maps coarser than the mask are scaled up bilinearly.
    `tolerance` counts pixels of the mask; 15 is meant for a side of 224. An empty mask gives NaN, never a hit;
    so does a map with a value that is not finite. A map that is the same everywhere points nowhere and is no hit. Of
    several maxima the first counts, row by row.
    """
    if not tolerance >= 0:
        raise IerfError(f"a tolerance is a number of pixels, 0 or more, not {tolerance}")
    flat, masks, shape = _pairs(map, mask)
    peak = flat.flatten(1).argmax(1)
    row, column = peak // flat.shape[2], peak % flat.shape[2]
    down = torch.arange(flat.shape[1], device=flat.device)[:, None] - row[:, None, None]
    right = torch.arange(flat.shape[2], device=flat.device) - column[:, None, None]
    near = down.square() + right.square() <= tolerance**2
    hit = ((near & masks).flatten(1).any(1) & ~constant(map.reshape(-1, *map.shape[-2:]))).to(flat)
    return torch.where(masks.flatten(1).any(1) & finite(flat), hit, torch.nan).reshape(shape)


def attribution_localization(
    map: Float[Tensor, "*N h w"], mask: Bool[Tensor, "*N H W"], preset: Preset = "paper"
) -> Float[Tensor, "*N"]:
    """The share of positive relevance inside the mask, `Σ_mask max(map, 0) / Σ max(map, 0)` (Eq. 32).

    The preset "quantus" takes |map| for max(map, 0): evidence against the class counts as much as evidence for it.
    NaN for an empty mask and for a map without positive relevance.
    """
    check_preset(preset)
    flat, masks, shape = _pairs(map, mask)
    relevance = (flat.abs() if preset == "quantus" else flat.clamp_min(0)).flatten(1).double()
    share = (relevance * masks.flatten(1)).sum(1) / relevance.sum(1)
    return torch.where(masks.flatten(1).any(1), share, torch.nan).to(flat).reshape(shape)


def _pairs(map: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Maps (N, H, W) at the masks' resolution, masks as booleans, and the shape of the scores."""
    if map.ndim < 2 or mask.ndim < 2 or 0 in map.shape[-2:] or 0 in mask.shape[-2:]:
        raise IerfError(
            f"maps and masks have rows and columns, (…, h, w) and (…, H, W); got {tuple(map.shape)} and "
            f"{tuple(mask.shape)}"
        )
    if mask.is_floating_point() and not bool(torch.isfinite(mask).all()):
        raise IerfError("a mask is True or False at each pixel; this one holds NaN or infinity")
    masks = mask.reshape(-1, *mask.shape[-2:]).to(map.device).bool()
    maps = map.reshape(-1, *map.shape[-2:])
    if [n for n in map.shape[:-2] if n != 1] != [n for n in mask.shape[:-2] if n != 1]:
        raise IerfError(
            f"{len(maps)} maps for {len(masks)} masks, of shapes {tuple(map.shape)} and {tuple(mask.shape)}; give one "
            "mask per map"
        )
    height, width = masks.shape[1:]
    return at_pixels(maps, (height, width)), masks, tuple(map.shape[:-2])


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
