"""Photographs in a fixed order: opened by their address, read ahead of the network, those of a store."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from jaxtyping import Int
from PIL import Image

from ierf.errors import IerfError
from ierf.files import missing
from ierf.model import ImageLike, Preprocess
from ierf.store.arrays import StoredArray
from ierf.store.files import checksum
from ierf.store.image_sources import Folder, HubDataset, Listed, Parquet
from ierf.store.layout import IMAGE_ARRAYS, NAMES
from ierf.store.plan import Plan
from ierf.typed import parsed

T = TypeVar("T")


class Images(Protocol):
    """Photographs in a fixed order."""

    @property
    def address(self) -> str:
        """What opens them again; empty for pictures in memory."""

    @property
    def names(self) -> Sequence[str]:
        """One for each photograph, none twice."""

    @property
    def fingerprint(self) -> str:
        """Changes when the photographs do."""

    def label(self, index: int) -> int:
        """The class of a photograph; −1 if it has none."""

    def read(self, index: int) -> Image.Image:
        """A photograph, 8-bit RGB. Raises `IerfError` if it cannot be read."""


def open_images(data: str | Path | Sequence[ImageLike] | Images) -> Images:
    """Photographs by their address: a folder, a parquet file or a folder of them, `hf:OWNER/NAME?split=…`; or a list.

    Raises `IerfError` where there are none.
    """
    if isinstance(data, str | Path):
        return _at(str(data))
    if isinstance(data, Sequence):
        return Listed(data)
    return data


def _at(address: str) -> Images:
    if address.startswith("hf:"):
        return HubDataset(address)
    path = Path(address)
    if not path.exists():
        raise missing(path)
    if path.suffix == ".parquet":
        return Parquet(path, [path])
    if path.is_dir() and (files := sorted(path.glob("*.parquet"))):
        return Parquet(path, files)
    return Folder(path)


class First:
    """The first `count` of other photographs."""

    def __init__(self, images: Images, count: int) -> None:
        if count < 1:
            raise IerfError(f"at least one image is needed, not {count}")
        self._images, self.address, self.names = images, images.address, images.names[:count]
        self.fingerprint = images.fingerprint

    def label(self, index: int) -> int:
        return self._images.label(index)

    def read(self, index: int) -> Image.Image:
        return self._images.read(index)


def read_ahead(
    read: Callable[[int], T], indices: Iterable[int], workers: int, ahead: int
) -> Iterator[tuple[int, T | IerfError]]:
    """`read(i)` of each index in order, at most `ahead` of them waiting; an `IerfError` comes out as a value."""
    left = iter(indices)
    pool = ThreadPoolExecutor(workers, "ierf-read")
    try:
        waiting: deque[tuple[int, Future[T]]] = deque((i, pool.submit(read, i)) for i in islice(left, ahead))
        while waiting:
            index, future = waiting.popleft()
            try:
                found: T | IerfError = future.result()
            except IerfError as error:
                found = error
            waiting.extend((i, pool.submit(read, i)) for i in islice(left, 1))
            yield index, found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class StoredPhotographs:
    """What a store was made of: names, labels and predicted classes from its folder, pictures from where they lie.

    Args:
        folder, manifest, plan: the store's.
        images: where the photographs are now, if they were moved or came from memory.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        plan: Plan,
        images: str | Path | Sequence[ImageLike] | None = None,
    ) -> None:
        self._folder, self._manifest, self._plan, self._images = folder, manifest, plan, images
        self._opened: dict[str, Images] = {}

    @cached_property
    def labels(self) -> Int[np.ndarray, " N"]:
        """The class of each image as its source gave it; −1 if it gave none."""
        return self._per_image("labels")

    @cached_property
    def predictions(self) -> Int[np.ndarray, " N"]:
        """The model's predicted class of each image; −1 for those that were skipped."""
        return self._per_image("predictions")

    @property
    def kept(self) -> Int[np.ndarray, " N"]:
        """The images that were not skipped."""
        return np.flatnonzero(self.predictions >= 0)

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """The images that could not be read, with the reason."""
        return [(self.name(index), reason) for index, reason in self._manifest["skipped"]]

    def name(self, image: int) -> str:
        """The name of an image, relative to its folder or file."""
        return str(self._names[image])

    def photo(self, image: int) -> Image.Image:
        """An image as it lies in its source. Raises `IerfError` if the source is gone or has changed."""
        source = next(s for s in reversed(self._plan.sources) if s.first <= image)
        images = self._source(source.address)
        index = image - source.first
        if index >= len(images.names) or images.names[index] != self.name(image):
            raise IerfError(
                f"the photographs at {source.address or 'images='} are not those of the store: "
                f"number {index} is not {self.name(image)!r}"
            )
        return images.read(index)

    def view(self, image: int) -> Image.Image:
        """The part of an image that the model saw."""
        fields = self._plan.model["preprocessing"]
        lists = {name: tuple(fields[name]) for name in ("size", "mean", "std")}
        return Preprocess(**{**fields, **lists}).view(self.photo(image))

    @cached_property
    def _names(self) -> list[str | None]:
        """Those of the complete store; an append that was cut may have written more behind them."""
        path, count = self._folder / NAMES, self._plan.images
        content = path.read_bytes() if path.is_file() else b""
        lines = content.split(b"\n")[:count]
        whole = b"".join(line + b"\n" for line in lines)
        if len(lines) != count or checksum(whole) != self._manifest["names_checksum"]:
            raise IerfError(f"{str(path)!r} is missing or was changed; collect the store anew")
        return [parsed(line) for line in lines]

    def _source(self, address: str) -> Images:
        if address not in self._opened:
            where = self._images if self._images is not None else address
            if isinstance(where, str) and not where:
                raise IerfError("the photographs of this store were in memory; open it with images=")
            self._opened[address] = open_images(where)
        return self._opened[address]

    def _per_image(self, name: str) -> Int[np.ndarray, " N"]:
        return StoredArray(self._folder, self._plan, IMAGE_ARRAYS[name]).rows(np.arange(self._plan.images))
