"""Any picture's pixels as 8-bit RGB."""

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

from ierf.errors import IerfError


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in 8-bit RGB without profile or metadata: transparency on white, deep greys scaled, not clipped."""
    if image.mode == "RGB" and not image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(eight_bit(np.asarray(image), image.mode))
    if image.mode not in ("RGB", "L") or "transparency" in image.info:
        image = _on_white(image) if image.has_transparency_data else image
    rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def eight_bit(values: Num[np.ndarray, "H W"], mode: str) -> UInt8[np.ndarray, "H W"]:
    """Deep grey values scaled to 0 … 255: black and white are those of `value_range`."""
    low, high = value_range(values, mode)
    scaled = (np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low) - low) * (255 / (high - low))
    return np.asarray(np.rint(scaled), dtype=np.uint8)


def value_range(values: Num[np.ndarray, "H W"], mode: str) -> tuple[float, float]:
    """What counts as black and as white in a deep grey picture.

    16 bit: 0 and 65535, also where Pillow hands them out as 32-bit integers. Floating point: 0 and the first of 1, 255
    and 65535 that holds all values. Values outside of these: the least and the greatest.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    usual = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0,)
    if low >= 0 and high <= usual[-1]:
        return 0.0, next(top for top in usual if high <= top)
    return low, max(high, low + 1)


def from_array(pixels: np.ndarray) -> Image.Image:
    """An RGB picture of uint8 pixels (H, W, 3), (H, W, 4) or (H, W). Raises `IerfError` for anything else."""
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not fits or pixels.size == 0:
        raise IerfError(
            f"pixels must be a uint8 array of shape (height, width, 3), not {pixels.dtype} of shape {pixels.shape}"
        )
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)))


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
