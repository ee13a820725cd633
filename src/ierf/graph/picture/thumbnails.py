"""The pictures of a node: what its concept looks like elsewhere, and where it is on this photograph."""

from base64 import b64encode
from io import BytesIO

import numpy as np
from PIL import Image

from ierf.graph.structure.cells import Cells
from ierf.graph.structure.node import Node
from ierf.store import lit

SIDE = 128
"""Pixels of a thumbnail: about twice as many as it is drawn with."""


def mosaic(exemplars: tuple[bytes, ...]) -> Image.Image | None:
    """The first four exemplars in a square; None where there are none."""
    if not exemplars:
        return None
    half, sheet = SIDE // 2, Image.new("RGB", (SIDE, SIDE), "#808080")
    for i, content in enumerate(exemplars[:4]):
        sheet.paste(opened(content).resize((half - 1, half - 1)), (i % 2 * (half + 1), i // 2 * (half + 1)))
    return sheet


def located(view: bytes, node: Node) -> Image.Image | None:
    """The photograph, bright where the node's concept is (`u_pq`); None without a photograph or a map."""
    return _lit(view, node.map)


def caused(view: bytes, node: Node) -> Image.Image | None:
    """The photograph, bright at the pixels that caused the concept: the node's iERF."""
    return _lit(view, node.ierf)


def opened(content: bytes) -> Image.Image:
    """An encoded picture."""
    with Image.open(BytesIO(content)) as picture:
        return picture.convert("RGB")


def encoded(picture: Image.Image) -> bytes:
    """A thumbnail as a JPEG file."""
    content = BytesIO()
    picture.save(content, "JPEG", quality=85)
    return content.getvalue()


def lossless(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    content = BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def uri(picture: Image.Image) -> str:
    """A thumbnail inside a page."""
    return f"data:image/jpeg;base64,{b64encode(encoded(picture)).decode()}"


def _lit(view: bytes, cells: Cells | None) -> Image.Image | None:
    if not view or cells is None:
        return None
    values: np.ndarray = cells.tensor().numpy()
    photo = opened(view).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return lit(photo, -values if values.sum() < 0 else values)
