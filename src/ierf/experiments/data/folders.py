"""Photographs in folders: ImageNet-S, a table of boxes, or photographs alone."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from ierf.errors import IerfError, UnknownNameError
from ierf.experiments.data.photos import Box, DataSet, Photo, box_mask, file_fingerprint, folder_fingerprint
from ierf.model import find_images, read_image
from ierf.model.files import missing
from ierf.model.loading.extras import extra

OTHER, IGNORED = 0, 1000
"""Values of an ImageNet-S mask that belong to no object."""


def imagenet_s(path: Path, split: str = "validation", classes: str | None = None) -> DataSet:
    """ImageNet-S as its authors publish it: `SPLIT/WNID/NAME.JPEG` beside `SPLIT-segmentation/WNID/NAME.png`.

    Gao et al., arXiv 2106.03149. A mask's red and 256 times its green are a category; 0 is anything else, 1000 is
    ignored, and what remains is the photograph's object.

    Args:
        split: "validation", "train-semi".
        classes: a file with one wnid per line, in the order of the model's logits; default: ImageNet's, from timm.
    """
    masks = sorted((path / f"{split}-segmentation").glob("*/*.png"))
    if not masks:
        found = sorted(p.name.removesuffix("-segmentation") for p in path.glob("*-segmentation"))
        raise UnknownNameError("split with masks", split, found)
    class_of = {wnid: i for i, wnid in enumerate(_wnids(classes))}
    by_name = {f"{mask.parent.name}/{mask.stem}": mask for mask in masks}
    unknown = next((mask.parent.name for mask in masks if mask.parent.name not in class_of), None)
    if unknown is not None:
        raise IerfError(
            f"the model's classes do not include {unknown!r}; name them, a wnid per line: {path}?classes=FILE"
        )

    def read(name: str) -> Photo:
        mask, label = by_name[name], class_of[by_name[name].parent.name]
        image = read_image(_beside(path / split / mask.parent.name, mask.stem))
        return Photo(name, image, label, {label: object_mask(mask)})

    return DataSet(f"{path.name}/{split}", folder_fingerprint(path, masks), tuple(by_name), read)


def object_mask(path: Path) -> Image.Image:
    """The object in an ImageNet-S mask, white on black."""
    with Image.open(path) as image:
        values = np.asarray(image.convert("RGB")).astype(np.int32)
    category = values[..., 0] + 256 * values[..., 1]
    return Image.fromarray(((category != OTHER) & (category != IGNORED)).astype(np.uint8) * 255)


def boxes(path: Path, images: str | None = None) -> DataSet:
    """A table with the columns file, label, x0, y0, x1, y1: a line for each box, the corners inside it."""
    folder = Path(images) if images else path.parent
    of_file: dict[str, list[tuple[int, Box]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as table:
            for row in csv.DictReader(table):
                x0, y0, x1, y1 = (float(row[name]) for name in ("x0", "y0", "x1", "y1"))
                of_file.setdefault(row["file"], []).append((int(row["label"]), (x0, y0, x1, y1)))
    except (KeyError, ValueError, TypeError) as error:
        raise IerfError(f"{str(path)!r} is no table of boxes file, label, x0, y0, x1, y1: {error}") from None

    def read(name: str) -> Photo:
        image, known = read_image(folder / name), of_file[name]
        labels = list(dict.fromkeys(label for label, _ in known))
        objects = {label: box_mask(image.size, [box for one, box in known if one == label]) for label in labels}
        return Photo(name, image, labels[0] if len(labels) == 1 else None, objects)

    return DataSet(path.name, file_fingerprint(path), tuple(of_file), read)


def folder(path: Path) -> DataSet:
    """Photographs of which nothing is known."""
    files = find_images([path])
    by_name = {file.relative_to(path).as_posix(): file for file in files}
    return DataSet(
        path.name,
        folder_fingerprint(path, files),
        tuple(by_name),
        lambda name: Photo(name, read_image(by_name[name])),
    )


def _wnids(classes: str | None) -> list[str]:
    if classes is None:
        return list(extra("timm.data", "timm").ImageNetInfo().label_names())
    file = Path(classes)
    if not file.is_file():
        raise missing(file)
    return file.read_text(encoding="utf-8").split()


def _beside(folder: Path, stem: str) -> Path:
    """The photograph of this name, whatever its suffix."""
    found = sorted(folder.glob(f"{stem}.*"))
    return found[0] if found else folder / f"{stem}.JPEG"
