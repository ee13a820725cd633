"""Maps over photographs: placed on a grid, smoothed, normalised, enlarged, and coloured by sign."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from ierf.attribution import TokenGrid
from ierf.errors import IerfError

WARM = ((1.0, 0.78, 0.25), (0.96, 0.42, 0.06), (0.72, 0.05, 0.10))
COOL = ((0.55, 0.85, 1.0), (0.16, 0.52, 0.90), (0.12, 0.17, 0.62))
"""From weak to strong, RGB in [0, 1]: amber to crimson, sky to navy. Told apart with any colour vision."""

OPACITY = 0.82
"""Of the strongest colour."""


def diverging(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 4"]:
    """RGBA in [0, 1] for values in [−1, 1]: hue by sign, darker and more opaque with size, 0 fully transparent."""
    strength = np.clip(np.abs(values), 0, 1)
    warm, cool = _along(WARM, strength), _along(COOL, strength)
    colour = np.where(values[..., None] > 0, warm, cool)
    return np.concatenate([colour, OPACITY * strength[..., None]], -1)


def _along(stops: tuple[tuple[float, ...], ...], where: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(where, at, channel) for channel in zip(*stops, strict=True)], -1)


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


SMOOTHING = 0.012
"""Standard deviation of the smoothing of pixel maps, for display, as a share of the map's shorter side."""

_GREY = (0.16, 0.62)
"""What black and white of the photograph become beneath an overlay."""
_DIM = 0.22
"""Brightness of the photograph where an iERF is nothing."""
_FINE = 48
"""Maps with at least so many cells along a side are pixel maps: noisy and sparse."""


def overlay(photo: Image.Image, relevance: Float[np.ndarray, "h w"]) -> Image.Image:
    """The photograph, grey and dim, under the map's colours: warm is evidence for, cool against, zero is clear.

    The map is normalised by the 99.5th percentile of its absolute values and enlarged to the photograph's size; pixel
    maps are smoothed first.
    """
    values = enlarged(normalised(smoothed(relevance, display_sigma(relevance))), _size(photo))
    return _blend(beneath(photo), diverging(values))


def cells(photo: Image.Image, relevance: Float[np.ndarray, "h w"]) -> Image.Image:
    """The same, with the map's cells as they are."""
    return _blend(beneath(photo), diverging(enlarged(normalised(relevance), _size(photo), smooth=False)))


def with_inset(picture: Image.Image, small: Image.Image, share: float = 0.27) -> Image.Image:
    """`small` in the lower right corner of `picture`, framed in white."""
    framed, side = picture.copy(), round(share * min(picture.size))
    scaled = small.resize((side, round(side * small.height / small.width)), Image.Resampling.BOX)
    edge = max(2, side // 40)
    corner = (picture.width - scaled.width - 3 * edge, picture.height - scaled.height - 3 * edge)
    frame = (
        corner[0] - edge,
        corner[1] - edge,
        corner[0] + scaled.width + edge - 1,
        corner[1] + scaled.height + edge - 1,
    )
    ImageDraw.Draw(framed).rectangle(frame, fill="white")
    framed.paste(scaled, corner)
    return framed


def spotlight(
    photo: Image.Image, ierf: Float[np.ndarray, "h w"], cell: tuple[int, int] | None, grid: Size
) -> Image.Image:
    """The photograph bright where the iERF is positive and dim elsewhere, the PFV's cell of its `grid` outlined."""
    light = smoothed(np.maximum(ierf, 0), 1.5 * display_sigma(ierf))
    mask = np.clip(enlarged(normalised(light), _size(photo)), 0, 1)[..., None] ** 0.7
    lit = _as_picture(_as_array(photo) * (_DIM + (1 - _DIM) * mask))
    return lit if cell is None else _outlined(lit, cell, grid)


def beneath(photo: Image.Image) -> Image.Image:
    """What an overlay lies on: the photograph in grey, with less contrast."""
    grey = np.asarray(photo.convert("L"), dtype=np.float32)[..., None] / 255
    return _as_picture(np.repeat(_GREY[0] + (_GREY[1] - _GREY[0]) * grey, 3, -1))


def display_sigma(relevance: Float[np.ndarray, "h w"]) -> float:
    """By how many of its cells a map is smoothed for display; 0 for coarse maps."""
    side = min(relevance.shape)
    return SMOOTHING * side if side >= _FINE else 0.0


def _blend(photo: Image.Image, colours: Float[np.ndarray, "H W 4"]) -> Image.Image:
    alpha = colours[..., 3:]
    return _as_picture(_as_array(photo) * (1 - alpha) + colours[..., :3] * alpha)


def _outlined(picture: Image.Image, cell: tuple[int, int], grid: Size) -> Image.Image:
    marked = picture.copy()
    draw = ImageDraw.Draw(marked)
    down, across = picture.height / grid[0], picture.width / grid[1]
    left, top = round(cell[1] * across), round(cell[0] * down)
    right, bottom = round((cell[1] + 1) * across) - 1, round((cell[0] + 1) * down) - 1
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black", width=4)
    draw.rectangle((left, top, right, bottom), outline="white", width=2)
    return marked


def _as_array(picture: Image.Image) -> Float[np.ndarray, "H W 3"]:
    return np.asarray(picture, dtype=np.float32) / 255


def _as_picture(pixels: Float[np.ndarray, "H W 3"]) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def _size(picture: Image.Image) -> Size:
    return picture.height, picture.width
