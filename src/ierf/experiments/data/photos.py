"""A data set as the experiments see it: names of photographs, and a reader of one photograph at a time."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image, ImageDraw

_END = 1 << 15
Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1): the first and the last column and row, both inside."""


@dataclass(frozen=True)
class Photo:
    """A photograph and where in it the objects of a class are."""

    name: str
    image: Image.Image
    label: int | None = None
    """The class that the photograph shows; None where only its objects are known."""
    objects: Mapping[int, Image.Image] = field(default_factory=dict)
    """Class -> its mask, of the photograph's size, white on black."""


@dataclass(frozen=True)
class DataSet:
    """Photographs by name, read one at a time."""

    name: str
    fingerprint: str
    """Differs where the data differ."""
    names: tuple[str, ...]
    read: Callable[[str], Photo]


def drawn(data: DataSet, limit: int | None, seed: int) -> list[str]:
    """`limit` photographs drawn by `seed`, in the order of the data set; a larger limit contains a smaller one."""
    order = torch.randperm(len(data.names), generator=torch.Generator().manual_seed(seed)).tolist()
    return [data.names[i] for i in sorted(order[:limit])]


def box_mask(size: tuple[int, int], boxes: Sequence[Box]) -> Image.Image:
    """The union of boxes as a mask of `size` = (width, height)."""
    mask = Image.new("L", size)
    for box in boxes:
        ImageDraw.Draw(mask).rectangle(box, fill=255)
    return mask


def file_fingerprint(path: Path) -> str:
    """A digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def folder_fingerprint(folder: Path, files: Sequence[Path]) -> str:
    """A digest of the names and sizes of files, and of the first and the last 32 KiB of each."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_END))
            file.seek(max(_END, size - _END))
            digest.update(file.read(_END))
    return digest.hexdigest()[:16]
