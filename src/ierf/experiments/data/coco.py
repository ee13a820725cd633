"""Photographs with COCO's annotations: polygons, run lengths or boxes of categories."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ierf.errors import IerfError
from ierf.experiments.data.photos import DataSet, Photo, box_mask, file_fingerprint
from ierf.model import read_image
from ierf.model.files import missing

CLASSES = "imagenet_to_coco.json"
"""The file beside the annotations that says which class is which category, if no other is named."""


def coco_json(path: Path, images: str | None = None, classes: str | None = None) -> DataSet:
    """An annotation file as COCO publishes it: `images`, `annotations`, `categories`.

    Args:
        images: the photographs' folder; default: that of the file.
        classes: JSON that maps the model's class indices to names of categories.
    """
    whole = read_json(path)
    try:
        category = {c["id"]: c["name"] for c in whole["categories"]}
        files = {str(i["file_name"]): i["id"] for i in whole["images"]}
        of_image: dict[Any, list[dict[str, Any]]] = {number: [] for number in files.values()}
        for annotation in whole["annotations"]:
            of_image[annotation["image_id"]].append(annotation | {"category": category[annotation["category_id"]]})
    except (KeyError, TypeError) as error:
        raise IerfError(f"{str(path)!r} is no COCO annotation file: it lacks {error}") from None
    category_of, folder = category_of_class(path, classes), Path(images) if images else path.parent

    def read(name: str) -> Photo:
        return annotated(name, read_image(folder / name), of_image[files[name]], category_of)

    return DataSet(path.name, file_fingerprint(path), tuple(files), read)


def annotated(
    name: str, image: Image.Image, annotations: Sequence[Mapping[str, Any]], category_of: Mapping[int, str]
) -> Photo:
    """The photograph with a mask for every class whose category is in it; crowds do not count."""
    single = [a for a in annotations if not a.get("iscrowd")]
    masks = {
        category: _union(image.size, [a for a in single if a["category"] == category])
        for category in dict.fromkeys(a["category"] for a in single)
    }
    return Photo(name, image, None, {c: masks[category] for c, category in category_of.items() if category in masks})


def category_of_class(path: Path, classes: str | None) -> dict[int, str]:
    """Class index -> category, from the named file or the usual one beside the data."""
    chosen = path.parent / CLASSES if classes is None else Path(classes)
    if classes is None and not chosen.exists():
        raise IerfError(
            "which class is which category? name a JSON file that maps class indices to categories: "
            f"{path}?classes=FILE"
        )
    return {int(index): str(category) for index, category in read_json(chosen).items()}


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises `IerfError` if it is missing or is none."""
    if not path.is_file():
        raise missing(path)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise IerfError(f"{str(path)!r} is not JSON: {error}") from None


def _union(size: tuple[int, int], annotations: Sequence[Mapping[str, Any]]) -> Image.Image:
    mask = Image.new("L", size)
    for annotation in annotations:
        mask.paste(255, mask=_mask(size, annotation))
    return mask


def _mask(size: tuple[int, int], annotation: Mapping[str, Any]) -> Image.Image:
    """One object: its polygons, its run lengths, or its box (x, y, width, height)."""
    shape = annotation.get("segmentation")
    if not shape:
        x, y, width, height = annotation["bbox"]
        return box_mask(size, [(x, y, x + width - 1, y + height - 1)])
    if isinstance(shape, Mapping):
        return _from_runs(shape)
    mask = Image.new("L", size)
    for polygon in shape:
        ImageDraw.Draw(mask).polygon(polygon, fill=255)
    return mask


def _from_runs(shape: Mapping[str, Any]) -> Image.Image:
    """Run lengths of background and object in turns, down the columns."""
    if not isinstance(shape["counts"], list):
        raise IerfError("compressed run lengths cannot be read; write them as numbers or polygons, as pycocotools does")
    height, width = shape["size"]
    runs = np.asarray(shape["counts"])
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return Image.fromarray(np.ascontiguousarray(values.reshape(width, height).T).astype(np.uint8) * 255)
