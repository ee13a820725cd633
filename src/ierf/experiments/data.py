"""Photographs with what is known of them: a label, masks or boxes; and where they come from, by an address."""

import csv
import hashlib
import io
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from ierf.errors import IerfError, UnknownNameError
from ierf.extras import extra
from ierf.files import missing
from ierf.model import find_images, read_image

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


def parquet(path: Path, classes: str | None = None) -> DataSet:
    """Rows with `image` (an encoded picture), and `label` with or without `box`, or COCO's `annotations` as JSON.

    A row is named by `file_name`, else by its number. A box may be null.

    Args:
        classes: for annotations, JSON that maps the model's class indices to names of categories.
    """
    file = extra("pyarrow.parquet", "parquet").ParquetFile(path)
    columns = [c for c in ("image", "label", "box", "annotations") if c in file.schema_arrow.names]
    if "image" not in columns:
        raise IerfError(f"{str(path)!r} has no column 'image'")
    if "file_name" in file.schema_arrow.names:
        names = [str(name) for name in file.read(columns=["file_name"])["file_name"].to_pylist()]
    else:
        names = [f"{i:05d}" for i in range(file.metadata.num_rows)]
    index = {name: i for i, name in enumerate(names)}
    category_of = category_of_class(path, classes) if "annotations" in columns else {}

    starts = [0, *accumulate(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))]

    @lru_cache(maxsize=1)
    def group(number: int) -> Any:
        """Rows that the file stores together; a pass in order reads each group once."""
        return file.read_row_group(number, columns=columns)

    def read(name: str) -> Photo:
        number = bisect_right(starts, index[name]) - 1
        (row,) = group(number).slice(index[name] - starts[number], 1).to_pylist()
        image = Image.open(io.BytesIO(row["image"])).convert("RGB")
        if "annotations" in row:
            return annotated(name, image, json.loads(row["annotations"]), category_of)
        label, box = row.get("label"), row.get("box")
        objects = {} if box is None or label is None else {label: box_mask(image.size, [tuple(box)])}
        return Photo(name, image, label, objects)

    return DataSet(path.name, file_fingerprint(path), tuple(index), read)


@dataclass(frozen=True)
class _Kind:
    read: Callable[..., DataSet]
    options: tuple[str, ...]
    shows: Callable[[Path], bool]
    """Whether a path without a kind is of this one."""


KINDS: Mapping[str, _Kind] = {
    "parquet": _Kind(parquet, ("classes",), lambda path: path.suffix == ".parquet"),
    "coco": _Kind(coco_json, ("images", "classes"), lambda path: path.suffix == ".json"),
    "imagenet-s": _Kind(
        imagenet_s, ("split", "classes"), lambda path: path.is_dir() and any(path.glob("*-segmentation"))
    ),
    "boxes": _Kind(boxes, ("images",), lambda path: path.suffix == ".csv"),
    "folder": _Kind(folder, (), lambda path: path.is_dir()),
}
"""parquet     files with the columns image, label and box, or image and annotations (COCO's, as JSON)
coco        an annotation file as COCO's; images: their folder; classes: JSON, class index -> category
imagenet-s  the folder that the authors of ImageNet-S publish; split; classes: a wnid per line, as the logits are
boxes       a table with the columns file, label, x0, y0, x1, y1; images: the files' folder
folder      photographs alone"""


def open_data(address: str) -> DataSet:
    """The data set at an address. Raises `IerfError` for what is missing, damaged or of no known kind."""
    place, _, query = address.strip().partition("?")
    name, colon, rest = place.partition(":")
    kind, path = (name, Path(rest)) if colon and name in KINDS else (None, Path(place))
    path = path.expanduser()
    if not path.exists():
        raise missing(path)
    if kind is None:
        kind = next((k for k, one in KINDS.items() if one.shows(path)), None)
    if kind is None:
        raise IerfError(
            f"{str(path)!r} is no data set of a known kind; say which: {', '.join(KINDS)}, as in boxes:FILE"
        )
    return KINDS[kind].read(path, **_options(address, kind, query))


def _options(address: str, kind: str, query: str) -> dict[str, Path | str]:
    pairs = [option.partition("=") for option in query.split("&") if option]
    for name, _, value in pairs:
        if name not in KINDS[kind].options:
            raise UnknownNameError(f"option of {kind!r} data", name, KINDS[kind].options)
        if not value:
            raise IerfError(f"an option of a data set is given as ?name=value, which {address!r} does not do")
    return {name: value for name, _, value in pairs}
