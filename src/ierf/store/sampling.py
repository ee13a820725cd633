"""Which PFVs of an image are kept, where they were, and their iERFs at a size that can be kept."""

import hashlib
from math import ceil
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

Sampling = Literal["relevance", "uniform", "all"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)
NO_ROW = -1
"""The row of a token that is no patch; its column is its place in the sequence."""
ZERO = 128
"""The byte that stands for 0."""
_LEVELS = 127
_USUAL_SIDE = 64


def draw(weights: Float[np.ndarray, " P"], count: int, key: str) -> Int[np.ndarray, " count"]:
    """`count` different positions, one after the other with probability ∝ the positive part of `weights` that is left.

    The `count` largest of `log w_p + g_p` with Gumbel noise `g` are such a draw (Kool et al., ICML 2019); positions
    without weight follow, each as likely as the others. The same `key` gives the same draw.
    """
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()))
    positive = weights > 0
    score = np.log(weights, where=positive, out=np.zeros(len(weights))) + random.gumbel(size=len(weights))
    return np.lexsort((-score, ~positive))[:count]


def stored_positions(
    places: Int[np.ndarray, "*batch"], size: tuple[int, ...], prefix: int
) -> Int[np.ndarray, "*batch axes"]:
    """Places in a sequence of `prefix` tokens and then a row-major map of this size -> what a store keeps of them.

    (row, column) on the map; (−1, index) of a token in front of it, where no patch can be.
    """
    found = np.stack(np.unravel_index(np.maximum(places - prefix, 0), size), -1)
    if prefix:
        tokens = np.stack([np.full_like(places, NO_ROW), places], -1)
        found = np.where((places < prefix)[..., None], tokens, found)
    return found.astype(np.int32)


def position_of(stored: Int[np.ndarray, " axes"]) -> tuple[int, ...]:
    """A position as `ierf.effective_receptive_fields` takes it: (row, column), or (index,) of a token."""
    first, *rest = map(int, stored)
    return tuple(rest) if first == NO_ROW else (first, *rest)


def token_name(index: int) -> str:
    """What a token in front of the patches is called: the first one "class token"."""
    return f"prefix token {index}" if index else "class token"


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
