"""From an address to a data set: `KIND:PATH?option=value`, or a path whose kind shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ierf.errors import IerfError, UnknownNameError
from ierf.experiments.data.coco import coco_json
from ierf.experiments.data.folders import boxes, folder, imagenet_s
from ierf.experiments.data.parquet import parquet
from ierf.experiments.data.photos import DataSet
from ierf.model.files import missing


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
