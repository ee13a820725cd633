"""From a relevance map to an array fit to be shown: on a grid, smoothed, normalised, enlarged."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ierf.attribution.token_grid import TokenGrid
from ierf.errors import IerfError

Size = tuple[int, int]
"""(height, width)."""

PERCENTILE = 99.5


def on_grid(relevance: Float[Tensor, "h w"] | Float[Tensor, " T"], like: Size) -> Float[np.ndarray, "h w"]:
    """The map as an array; a sequence of tokens loses its prefix tokens and becomes a grid with the shape of `like`."""
    values = relevance.detach().cpu().float()
    placed = values if values.ndim == 2 else _tokens(values.shape, like).to_map(values)
    grid: np.ndarray = placed.numpy()
    return grid


def _tokens(shape: Sequence[int], like: Size) -> TokenGrid:
    grid = TokenGrid.by_aspect(shape[0], like) if len(shape) == 1 else None
    if grid is not None:
        return grid
    raise IerfError(f"a map of shape {tuple(shape)} has no rows and columns, so it cannot be shown as a picture")


def normalised(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Divided by the 99.5th percentile of |values| (by the maximum where that is 0) and cut to [−1, 1]."""
    sizes = np.abs(values)
    scale = np.percentile(sizes, PERCENTILE) or sizes.max()
    return np.clip(values / scale, -1, 1) if scale > 0 else np.zeros_like(values)


def smoothed(values: Float[np.ndarray, "h w"], sigma: float) -> Float[np.ndarray, "h w"]:
    """Gaussian smoothing by `sigma` cells that keeps the sum: what would leave at the border is reflected."""
    if sigma <= 0:
        return values
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        values = np.apply_along_axis(_convolved, axis, values, kernel, reach)
    return values


def enlarged(values: Float[np.ndarray, "h w"], size: Size, *, smooth: bool = True) -> Float[np.ndarray, "H W"]:
    """Resampled to `size`: bicubic without overshoot, or as the cells that they are."""
    kind = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    large: np.ndarray = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size[::-1], kind))
    return large.clip(values.min(), values.max())


def _convolved(line: np.ndarray, kernel: np.ndarray, reach: int) -> np.ndarray:
    return np.convolve(np.pad(line, reach, mode="symmetric"), kernel, mode="valid")
