"""Where photographs come from: a folder, parquet files, a data set of the hub, or a list."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from ierf.errors import IerfError
from ierf.extras import extra
from ierf.model import ImageLike, as_image, find_images, read_image

NO_LABEL = -1
_GROUPS_HELD = 2
"""Row groups of parquet files in memory at once."""


class Folder:
    """The image files below a folder, sorted; the label is the place of their subfolder among the sorted ones."""

    def __init__(self, path: Path) -> None:
        self.address = os.path.abspath(path)
        root = Path(self.address) if path.is_dir() else Path(self.address).parent
        self._files = find_images([self.address])
        self.names = [file.relative_to(root).as_posix() for file in self._files]
        self._classes = sorted({name.split("/")[0] for name in self.names if "/" in name})

    @cached_property
    def fingerprint(self) -> str:
        sizes = (file.stat().st_size for file in self._files)
        return _hash(f"{name} {size}" for name, size in zip(self.names, sizes, strict=True))

    def label(self, index: int) -> int:
        folder, slash, _ = self.names[index].partition("/")
        return self._classes.index(folder) if slash else NO_LABEL

    def read(self, index: int) -> Image.Image:
        return read_image(self._files[index])


class Parquet:
    """Rows of parquet files: the column `image` holds encoded pictures (or structs with `bytes`), `label` classes."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self.address = os.path.abspath(path)
        parquet = extra("pyarrow.parquet", "parquet")
        self._files = []
        for file in files:
            try:
                self._files.append(parquet.ParquetFile(file))
            except (OSError, ValueError) as error:
                raise IerfError(f"cannot read {str(file)!r} as a parquet file: {error}") from None
            columns = self._files[-1].schema_arrow.names
            if "image" not in columns:
                raise IerfError(f"{str(file)!r} has no column 'image', but {', '.join(columns)}")
        self.names = [
            f"{file.name}:{row}"
            for file, opened in zip(files, self._files, strict=True)
            for row in range(opened.metadata.num_rows)
        ]
        self._groups = [
            (opened, group, opened.metadata.row_group(group).num_rows)
            for opened in self._files
            for group in range(opened.num_row_groups)
        ]
        self._starts = np.cumsum([0, *(rows for _, _, rows in self._groups)])
        self._held: OrderedDict[int, dict[str, list[Any]]] = OrderedDict()
        self._lock = Lock()

    @cached_property
    def fingerprint(self) -> str:
        footers = [file.metadata.row_group(group).to_dict() for file, group, _ in self._groups]
        return _hash([*self.names[:1], *map(repr, footers)])

    def label(self, index: int) -> int:
        labels, row = self._column("label", index)
        return NO_LABEL if labels is None or labels[row] is None else int(labels[row])

    def read(self, index: int) -> Image.Image:
        images, row = self._column("image", index)
        image = images[row] if images is not None else None
        return decoded(image["bytes"] if isinstance(image, dict) else image, self.names[index])

    def _column(self, name: str, index: int) -> tuple[list[Any] | None, int]:
        """A column of the row group that holds a photograph, and the photograph's row in it."""
        at = int(np.searchsorted(self._starts, index, side="right")) - 1
        with self._lock:
            if at not in self._held:
                file, group, _ = self._groups[at]
                columns = [c for c in ("image", "label") if c in file.schema_arrow.names]
                self._held[at] = file.read_row_group(group, columns=columns).to_pydict()
                if len(self._held) > _GROUPS_HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(at)
            return self._held[at].get(name), index - int(self._starts[at])


class HubDataset:
    """A data set of the Hugging Face hub, `hf:OWNER/NAME?split=validation`, with its columns `image` and `label`."""

    def __init__(self, address: str) -> None:
        name, _, query = address.removeprefix("hf:").partition("?")
        options = dict(pair.split("=", 1) for pair in query.split("&") if "=" in pair)
        self.address = address
        datasets = extra("datasets", "datasets")
        try:
            self._rows = datasets.load_dataset(name, options.get("config"), split=options.get("split", "train"))
        except Exception as error:
            raise IerfError(f"cannot load the data set {address!r}: {' '.join(str(error).split())}") from None
        if "image" not in self._rows.column_names:
            raise IerfError(f"{address!r} has no column 'image', but {', '.join(self._rows.column_names)}")
        self.names = [str(row) for row in range(len(self._rows))]
        self.fingerprint: str = self._rows._fingerprint
        self._labels = self._rows["label"] if "label" in self._rows.column_names else None
        self._lock = Lock()

    def label(self, index: int) -> int:
        return NO_LABEL if self._labels is None else int(self._labels[index])

    def read(self, index: int) -> Image.Image:
        try:
            with self._lock:
                image = self._rows[index]["image"]
            return as_image(image)
        except Exception as error:
            raise _unreadable(self.names[index], error) from None


class Listed:
    """Paths, PIL images or uint8 arrays in the order given; pictures in memory go by number."""

    address = ""

    def __init__(self, images: Sequence[ImageLike]) -> None:
        if not images:
            raise IerfError("there are no images to collect from; give a folder, a parquet file or a list of them")
        self._images = images
        names = [str(image) if isinstance(image, str | Path) else f"{i}" for i, image in enumerate(images)]
        self.names = names if len(set(names)) == len(names) else [f"{i}:{name}" for i, name in enumerate(names)]

    @cached_property
    def fingerprint(self) -> str:
        return _hash(f"{name} {_content(image)}" for name, image in zip(self.names, self._images, strict=True))

    def label(self, index: int) -> int:
        return NO_LABEL

    def read(self, index: int) -> Image.Image:
        return as_image(self._images[index])


def decoded(content: bytes | None, name: str) -> Image.Image:
    """An encoded picture, 8-bit RGB. Raises `IerfError` with its name if that is impossible."""
    if not content:
        raise IerfError(f"cannot read the image {name!r}: it is empty")
    try:
        with Image.open(BytesIO(content)) as image:
            image.load()
            return as_image(image)
    except Exception as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> IerfError:
    return IerfError(f"cannot read the image {name!r}: {' '.join(str(error).split()) or type(error).__name__}")


def _content(image: ImageLike) -> str:
    if isinstance(image, str | Path):
        path = Path(image)
        return str(path.stat().st_size) if path.is_file() else "missing"
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


def _hash(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()
