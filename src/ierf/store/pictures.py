"""PFV–iERF pairs as pictures."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ierf.store.plan import token_name

_DIM = 0.3
"""Brightness of a photograph where an iERF is nothing."""
_SMOOTHING = 0.015
"""Standard deviation of the smoothing of an iERF, for display, as a share of the photograph's shorter side."""
_PERCENTILE = 99.5
_MASS = 0.95
_MARGIN = 0.1
_LEAST = 0.25
"""A part is at least so much of the photograph's shorter side: what surrounds an iERF helps to recognise it."""
_GAP = 8
_HEADING = 28

_LEAST_FONT = 10
_FONTS = 11
"""Lines of text on a picture's side."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Position = tuple[int, ...]


def lit(photo: Image.Image, ierf: Float[np.ndarray, "h w"]) -> Image.Image:
    """The photograph bright where the iERF is positive and dim elsewhere."""
    positive = np.maximum(ierf, 0)
    top = np.percentile(positive, _PERCENTILE) or positive.max() or 1.0
    light = Image.fromarray(np.rint(255 * np.clip(positive / top, 0, 1)).astype(np.uint8))
    light = light.resize(photo.size, Image.Resampling.BICUBIC)
    light = light.filter(ImageFilter.GaussianBlur(_SMOOTHING * min(photo.size)))
    strength = np.asarray(light, dtype=np.float32)[..., None]
    strength = np.sqrt(strength / max(1.0, float(strength.max())))
    return Image.fromarray(np.rint(np.asarray(photo) * (_DIM + (1 - _DIM) * strength)).astype(np.uint8))


def part(picture: Image.Image, box: Box, side: int, position: Position, cells: Position) -> Image.Image:
    """A part of a picture, `side` pixels on its longer side, with the cell at `position` outlined.

    The picture is divided into `cells`, (rows, columns). A token that is no patch has its name instead of a cell.
    """
    left, top, right, bottom = box
    scale = side / max(right - left, bottom - top)
    size = max(1, round(scale * (right - left))), max(1, round(scale * (bottom - top)))
    enlarged = picture.resize(size, Image.Resampling.BICUBIC, box=box)
    draw = ImageDraw.Draw(enlarged)
    if _is_token(position, cells):
        font = ImageFont.load_default(max(_LEAST_FONT, side / _FONTS))
        draw.text((2, size[1] - 2), token_name(position[0]), "white", font, "lb", stroke_width=1, stroke_fill="black")
    elif len(position) == 2:
        across, down = picture.width / cells[1], picture.height / cells[0]
        x0, x1 = (round(scale * (column * across - left)) for column in (position[1], position[1] + 1))
        y0, y1 = (round(scale * (row * down - top)) for row in (position[0], position[0] + 1))
        draw.rectangle((x0 - 1, y0 - 1, x1, y1), outline="black")
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline="white")
    return enlarged


def covered(picture: Image.Image, ierf: Float[np.ndarray, "h w"], position: Position, cells: Position) -> Box:
    """What to show of a PFV's picture: the part that its iERF covers, everything for a token that is no patch."""
    return everything(picture) if _is_token(position, cells) else window(ierf, picture.size)


def everything(picture: Image.Image) -> Box:
    return 0.0, 0.0, float(picture.width), float(picture.height)


def window(ierf: Float[np.ndarray, "h w"], size: tuple[int, int]) -> Box:
    """The square of a picture of `size` (width, height) that holds 95 % of the iERF's positive part on each axis."""
    positive = np.maximum(ierf, 0).astype(np.float64)
    spans = [_span(positive.sum(axis), full) for axis, full in zip((0, 1), size, strict=True)]
    wanted = (1 + 2 * _MARGIN) * max(high - low for low, high in spans)
    side = min(max(wanted, _LEAST * min(size)), *size)
    left, top = (
        min(max(0.0, (low + high - side) / 2), full - side) for (low, high), full in zip(spans, size, strict=True)
    )
    return left, top, left + side, top + side


def contact_sheet(pairs: Sequence[tuple[str, Sequence[tuple[Image.Image, Image.Image]]]], tile: int) -> Image.Image:
    """A strip for each title: photographs with their iERFs, and below each the part that the iERF covers.

    No picture is larger than `tile` pixels.
    """
    font = ImageFont.load_default(15)
    strip = _HEADING + 2 * tile + _GAP
    width = max(len(row) for _, row in pairs) * (tile + _GAP) + _GAP
    sheet = Image.new("RGB", (width, strip * len(pairs) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (title, row) in enumerate(pairs):
        top = i * strip + _HEADING
        draw.text((_GAP, top - 21), title, fill="black", font=font)
        for j, (whole, covered) in enumerate(row):
            left = _GAP + j * (tile + _GAP)
            sheet.paste(whole, (left, top))
            sheet.paste(covered, (left, top + tile + 2))
    return sheet


def _is_token(position: Position, cells: Position) -> bool:
    """Whether rows and columns are known, and the position has none."""
    return len(position) < len(cells)


def _span(mass: Float[np.ndarray, " n"], side: int) -> tuple[float, float]:
    """Where the middle 95 % of a distribution along an axis begin and end, in pixels."""
    if mass.sum() <= 0:
        return 0.0, float(side)
    share = np.concatenate([[0.0], np.cumsum(mass) / mass.sum()])
    edges = np.linspace(0, side, len(share))
    low, high = np.interp([(1 - _MASS) / 2, (1 + _MASS) / 2], share, edges)
    return float(low), float(high)
