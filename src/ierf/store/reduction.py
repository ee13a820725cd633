"""iERFs small enough to keep: fewer cells, one byte each."""

from math import ceil

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

ZERO = 128
"""The byte that stands for 0."""
_LEVELS = 127
_USUAL_SIDE = 64


def reduced_size(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """The (rows, columns) to which maps of this size are reduced: the longer one becomes `side`, never more than it is.

    None divides it by the least whole number that leaves at most 64: 224 becomes 56, 64 stays.
    """
    longer = max(size)
    shrink = max(1.0, ceil(longer / _USUAL_SIDE) if side is None else longer / side)
    return max(1, round(size[0] / shrink)), max(1, round(size[1] / shrink))


def reduced(maps: Float[Tensor, "*batch H W"], size: tuple[int, int]) -> Float[Tensor, "*batch h w"]:
    """Sums over the area of each cell: `m'_o = Σ_i |o ∩ i| m_i`, so that a map keeps its sum.

    It is the area mean times the number of pixels of a cell, also where cells cut through pixels.
    """
    rows, columns = (_overlap(n, side).to(maps) for n, side in zip(size, maps.shape[-2:], strict=True))
    return rows @ maps @ columns.T


def quantised(maps: Float[Tensor, "R h w"]) -> tuple[UInt8[Tensor, "R h w"], Float[Tensor, " R"]]:
    """Bytes `q` and a scale `s` for each map: `m ≈ (q − 128) s`, `s = max |m| / 127`; exact at 0, within s/2 else."""
    scale = maps.flatten(1).abs().amax(1) / _LEVELS
    steps = (maps / scale.masked_fill(scale == 0, torch.inf).view(-1, 1, 1)).round()
    return (steps + ZERO).to(torch.uint8), scale.float()


def restored(quantised: UInt8[Tensor, "*batch h w"], scale: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch h w"]:
    """The maps again, float32."""
    return (quantised.float() - ZERO) * scale[..., None, None]


def _overlap(cells: int, pixels: int) -> Float[Tensor, "cells pixels"]:
    """The part of each pixel's side that lies in each of `cells` equal intervals of the axis; columns sum to 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    left = torch.arange(pixels, dtype=torch.float64)
    start, end = torch.maximum(edges[:-1, None], left), torch.minimum(edges[1:, None], left + 1)
    return (end - start).clamp_min(0)
