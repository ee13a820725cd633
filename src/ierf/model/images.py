"""Reading photographs from disk, whatever they turn out to be."""

from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ierf.errors import IerfError
from ierf.model.files import missing
from ierf.model.pixels import from_array, to_rgb
from ierf.muted import muted

ImageLike = str | Path | Image.Image | np.ndarray

MAX_MEGAPIXELS = 512
_PILLOWS_LIMIT = Lock()


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
