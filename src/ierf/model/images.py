"""Photographs: found in folders, read whatever they turn out to be, their pixels as 8-bit RGB."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from jaxtyping import Num, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ierf.errors import IerfError
from ierf.files import missing
from ierf.muted import muted

ImageLike = str | Path | Image.Image | np.ndarray

MAX_MEGAPIXELS = 512
_PILLOWS_LIMIT = Lock()
IMAGE_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    }
)


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """The image files that `paths` stand for: files as they are, folders searched recursively, each folder sorted.

    Hidden files are left out of a folder. Raises `IerfError` for a folder without images and for a path that does not
    exist, with the names nearest to it.
    """
    return [image for path in paths for image in _images_at(Path(path))]


def read_image(path: str | Path) -> Image.Image:
    """The photograph at `path`: 8-bit RGB, upright, the first frame, transparency on white, no profile.

    Raises `IerfError` that names the file and the reason: missing, a folder, empty, cut short, not an image, or more
    than 512 megapixels.
    """
    path = Path(path)
    if not path.exists():
        raise missing(path)
    if path.is_dir():
        raise _unreadable(path, "it is a folder")
    if path.is_file() and path.stat().st_size == 0:
        raise _unreadable(path, "the file is empty")
    with muted():
        return _decode(path)


def as_image(image: ImageLike) -> Image.Image:
    """A path, a PIL image or uint8 pixels (H, W, 3) as an upright 8-bit RGB picture."""
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, np.ndarray):
        return from_array(image)
    if isinstance(image, Image.Image):
        return to_rgb(_upright(image))
    raise IerfError(f"an image is a path, a PIL image or a uint8 array, not {type(image).__name__}")


def as_input(image: object) -> Tensor | None:
    """An input that needs no preparing: a float tensor (C, H, W) or (1, C, H, W), or a `.npy` file of one; else None.

    Raises `IerfError` for a file that is no array of numbers, or for whole numbers, whose scale is not known.
    """
    if isinstance(image, str | Path) and Path(image).suffix.lower() == ".npy":
        image = _array(Path(image))
    if not isinstance(image, Tensor):
        return None
    if not image.is_floating_point():
        raise IerfError(
            f"a tensor is an input in the network's own units and of floating point, not {image.dtype}; give pixels as "
            "a uint8 array (H, W, 3) or an image file"
        )
    return image.detach()[0] if image.ndim == 4 and len(image) == 1 else image.detach()


def _array(path: Path) -> Tensor:
    if not path.exists():
        raise missing(path)
    try:
        values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise ValueError("it holds no array")
        return torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))
    except (OSError, ValueError, TypeError, EOFError, MemoryError) as error:
        raise _unreadable(path, " ".join(str(error).split()) or "it is damaged") from None


def _decode(path: Path) -> Image.Image:
    try:
        with _opened(path) as image:
            megapixels = image.width * image.height / 1e6
            if megapixels > MAX_MEGAPIXELS:
                raise _unreadable(path, f"its {megapixels:.0f} megapixels exceed the limit of {MAX_MEGAPIXELS}")
            image.load()
            return to_rgb(_upright(image))
    except IerfError:
        raise
    except UnidentifiedImageError:
        raise _unreadable(path, "it is not an image, or of a kind that Pillow does not know") from None
    except MemoryError:
        raise _unreadable(path, "it does not fit into memory") from None
    except PermissionError:
        raise _unreadable(path, "reading it is not allowed") from None
    except Exception as error:
        raise _unreadable(path, _reason(error)) from None


def _opened(path: Path) -> Image.Image:
    """Pillow's own limit on pixels is lower than ours and global: only where it is in the way it is lifted, while the
    header is read."""
    try:
        return Image.open(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pass
    with _PILLOWS_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF block says; a block that cannot be parsed says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, KeyError, TypeError, IndexError, OverflowError):
        return image


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "the file is cut short"
    return f"the file is damaged ({text or type(error).__name__})"


def _unreadable(path: Path, reason: str) -> IerfError:
    return IerfError(f"cannot read the image {str(path)!r}: {reason}")


def _images_at(path: Path) -> list[Path]:
    if not path.exists():
        raise missing(path)
    if not path.is_dir():
        return [path]
    images = sorted(file for file in path.rglob("*") if _is_image(file))
    if not images:
        raise IerfError(f"the folder {str(path)!r} holds no images (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    return images


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()


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
