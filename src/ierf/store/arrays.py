"""The Zarr v3 arrays of a store: how one lies in files, and its rows read from the disk."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ierf.errors import IerfError
from ierf.store.files import read_json
from ierf.store.plan import Plan

_ZSTD = b"\x28\xb5\x2f\xfd"


METADATA = "zarr.json"
"""The file in a folder of Zarr that says what the folder holds."""
Rows = int | slice | Int[np.ndarray, " R"] | list[int]


@dataclass(frozen=True)
class ArraySpec:
    """One array: `rows_per_image` rows for each image, in the order of the images."""

    path: str
    shape: tuple[int, ...]
    """Of one row."""
    dtype: str
    fill: int
    axes: tuple[str, ...]
    rows_per_image: int = 1
    compressed: bool = False

    def metadata(self, plan: Plan) -> dict[str, Any]:
        """`zarr.json` of the array."""
        codecs: list[dict[str, Any]] = [{"name": "bytes"}]
        if np.dtype(self.dtype).itemsize > 1:
            codecs[0]["configuration"] = {"endian": "little"}
        if self.compressed:
            codecs.append({"name": "zstd", "configuration": {"level": 3, "checksum": False}})
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [plan.images * self.rows_per_image, *self.shape],
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self._chunk(plan)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": self.fill,
            "codecs": codecs,
            "dimension_names": ["row" if self.path.startswith("layers/") else "image", *self.axes],
            "attributes": {},
        }

    def chunk_path(self, block: int) -> str:
        return "/".join([self.path, "c", str(block), *("0" for _ in self.shape)])

    def empty(self, plan: Plan) -> np.ndarray:
        """A chunk in which nothing was written."""
        return np.full(self._chunk(plan), self.fill, self.dtype)

    def encoded(self, chunk: np.ndarray) -> bytes:
        """A chunk as the bytes of its file."""
        content = chunk.astype(np.dtype(self.dtype).newbyteorder("<"), copy=False).tobytes()
        return bytes(_zstd().encode(content)) if self.compressed else content

    def _chunk(self, plan: Plan) -> list[int]:
        return [plan.block * self.rows_per_image, *self.shape]


class StoredArray:
    """Rows of an array, of which only the chunks that they lie in are read; each chunk's size is checked first.

    Raises `IerfError`, here and in reading, that names the file and what is wrong with it.
    """

    def __init__(self, folder: Path, plan: Plan, spec: ArraySpec) -> None:
        import zarr

        self._folder, self._spec, path = folder, spec, folder / spec.path / METADATA
        expected = spec.metadata(plan)
        found = read_json(path)
        for name in expected if isinstance(found, dict) else ():
            if name not in ("attributes", "dimension_names") and not _agrees(name, found.get(name), expected[name]):
                raise IerfError(
                    f"{str(path)!r} is damaged: {name} is {_short(found.get(name))}, not {_short(expected[name])}; "
                    "collect the store anew"
                )
        with self._read():
            self._array: Any = zarr.open_array(str(folder), path=spec.path, mode="r")
        self.shape = (int(expected["shape"][0]), *spec.shape)
        self.dtype = np.dtype(spec.dtype)
        self.chunk = int(expected["chunk_grid"]["configuration"]["chunk_shape"][0])
        self._bytes = self.chunk * int(np.prod(spec.shape, dtype=np.int64)) * self.dtype.itemsize
        self._sound: set[int] = set()

    def rows(self, places: Int[np.ndarray, " R"]) -> np.ndarray:
        """In any order: their span at once where they are dense, else only the chunks they lie in."""
        if not len(places):
            return np.empty((0, *self.shape[1:]), self.dtype)
        low, high = int(places.min()), int(places.max()) + 1
        if high - low <= 2 * len(places):
            self._check(np.arange(low // self.chunk, (high - 1) // self.chunk + 1))
            with self._read():
                span = np.asarray(self._array[low:high])
            found = span if bool((np.diff(places) == 1).all()) else span[places - low]
        else:
            distinct, back = np.unique(places, return_inverse=True)
            self._check(np.unique(distinct // self.chunk))
            with self._read():
                found = np.asarray(self._array.oindex[distinct])[back]
        if self.dtype.kind == "f" and not np.isfinite(found).all():
            raise IerfError(
                f"{str(self._folder / self._spec.path)!r} is damaged: it has values that are not finite; "
                "collect the store anew"
            )
        return found

    def _check(self, blocks: Int[np.ndarray, " B"]) -> None:
        for block in map(int, blocks):
            if block not in self._sound:
                self._check_size(self._folder / self._spec.chunk_path(block))
                self._sound.add(block)

    def _check_size(self, path: Path) -> None:
        """That a chunk's file is as large as it must be, or says that its content is."""
        try:
            with open(path, "rb") as file:
                size, head = path.stat().st_size, file.read(18)
        except OSError as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            raise IerfError(f"{str(path)!r} {reason}; collect the store anew") from None
        holds = _content_size(head) if self._spec.compressed else size
        if holds != self._bytes or size > self._bytes + self._bytes // 128 + 1024:
            raise IerfError(
                f"{str(path)!r} is damaged: it holds {'?' if holds is None else holds} bytes, not {self._bytes}; "
                "collect the store anew"
            )

    @contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise IerfError(
                f"{str(self._folder / self._spec.path)!r} is damaged ({reason}); collect the store anew"
            ) from None


def _content_size(head: bytes) -> int | None:
    """What a Zstandard frame says that it holds (RFC 8878, 3.1.1.1); None for another file, or if it does not say."""
    if len(head) < 6 or not head.startswith(_ZSTD):
        return None
    descriptor = head[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    length = (single, 2, 4, 8)[flag]
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    if not length or len(head) < start + length:
        return None
    return int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)


def _agrees(name: str, found: Any, expected: Any) -> bool:
    """Images may be on their way to the end of a store: then an array is longer than the manifest has it."""
    if name != "shape":
        return bool(json.dumps(found) == json.dumps(expected))
    whole = isinstance(found, list) and len(found) == len(expected) and all(type(n) is int for n in found)
    return whole and found[0] >= expected[0] and found[1:] == expected[1:]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


class Column:
    """What a layer's rows hold, numbered without the rows of images that were skipped.

    `column[rows]` reads only the chunks in which these rows lie; `rows` is a number, a slice, or an array of numbers.
    """

    def __init__(
        self,
        array: StoredArray,
        places: Int[np.ndarray, " R"],
        finish: Callable[[np.ndarray, Any], np.ndarray] | None = None,
    ) -> None:
        self._array, self._places, self._finish = array, places, finish
        self.shape: tuple[int, ...] = (len(places), *array.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Column({' × '.join(map(str, self.shape))} {self.dtype})"

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self._array.dtype

    @property
    def chunk(self) -> int:
        """Rows in one chunk, with those of skipped images."""
        return self._array.chunk

    def __getitem__(self, rows: Rows) -> np.ndarray:
        if isinstance(rows, int | np.integer):
            return np.asarray(self[[int(rows)]][0])
        places = self._places[rows]
        values = self._array.rows(places)
        return values if self._finish is None else self._finish(values, places)

    def torch(self, rows: Rows = slice(None)) -> Tensor:
        """The same as a tensor on the CPU."""
        return torch.from_numpy(np.asarray(self[rows]))

    def chunks(self) -> list[Int[np.ndarray, " R"]]:
        """The rows of each chunk, in order; chunks without rows are left out."""
        ends = np.flatnonzero(np.diff(self._places // self.chunk)) + 1
        return list(np.split(np.arange(len(self)), ends)) if len(self) else []


@cache
def _zstd() -> Any:
    from numcodecs.zstd import Zstd

    return Zstd(level=3, checksum=False)
