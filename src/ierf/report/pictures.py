"""Maps over photographs."""

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from ierf.report.colours import diverging
from ierf.report.grids import Size, enlarged, normalised, smoothed

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
