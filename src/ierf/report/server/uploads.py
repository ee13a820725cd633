"""Photographs from the network: decoded with care."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from ierf.model import VisionModel
from ierf.model.images import as_image
from ierf.report.explain import scene
from ierf.report.server.limits import RETRY_AFTER, Limits, RefusedError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that Pillow decodes by itself, without calling another program."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A photograph, named by its content."""

    id: str
    picture: Image.Image
    """Upright, 8-bit RGB."""
    view: bytes
    """The part that the model sees, a PNG file."""

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return 3 * self.picture.width * self.picture.height + len(self.view)


class Arriving:
    """Room for the files of uploads that are on their way, or wait to be read. Of one thread, the event loop's."""

    def __init__(self, room: int) -> None:
        self._room = room

    @contextmanager
    def upload(self, size: int) -> Iterator[None]:
        """Inside: so many bytes may come. Raises `RefusedError` 503 where there is no room for them."""
        if size > self._room:
            raise RefusedError(503, "too many photographs arrive at once; try again in a moment", RETRY_AFTER)
        self._room -= size
        try:
            yield
        finally:
            self._room += size


def opened(model: VisionModel, content: bytes, limits: Limits) -> Photo:
    """The photograph in a file's bytes.

    Raises `RefusedError`: 415 for what is no image of `FORMATS`, 413 for too many pixels, 422 for a damaged file.
    """
    picture, view = _decoded(content, limits.pixels), BytesIO()
    scene(model, picture).save(view, "PNG")
    return Photo(name_of(content), picture, view.getvalue())


def name_of(content: bytes) -> str:
    """The id of the photograph in a file's bytes."""
    return sha256(content).hexdigest()[:32]


def _decoded(content: bytes, most_pixels: int) -> Image.Image:
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > most_pixels:
                raise _too_large(most_pixels)
            image.load()
            return as_image(image)
    except RefusedError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(most_pixels) from None
    except UnidentifiedImageError:
        raise RefusedError(415, f"this is no photograph; send one of {', '.join(FORMATS)}") from None
    except Exception:
        raise RefusedError(422, "the photograph cannot be read: its file is damaged or cut short") from None


def _too_large(most_pixels: int) -> RefusedError:
    return RefusedError(413, f"the photograph has more than {most_pixels / 1e6:g} megapixels; send a smaller one")
