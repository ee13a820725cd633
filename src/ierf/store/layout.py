"""Where things lie in the folder of a store: Zarr v3 arrays, one chunk per block, written from the specification.

See docs/store-format.md. Chunks are made here and not by the zarr package, so that each is one file that is written
whole and whose checksum is known; zarr reads them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ierf.store.plan import LayerPlan, Plan
from ierf.store.reduction import ZERO

MANIFEST = "zarr.json"
RECORDS = "collection"
"""The folder of what is not Zarr: the plan, the images' names, the markers of blocks, locks."""
PLAN = f"{RECORDS}/plan.json"
NAMES = f"{RECORDS}/images.jsonl"
NOTHING = -1
"""Label, prediction or position where there is none."""


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


def layer_arrays(layer: LayerPlan, pfv_type: str) -> dict[str, ArraySpec]:
    """The arrays of one layer by their names."""
    found = {
        "pfvs": (pfv_type, 0, {"channel": layer.channels}),
        "positions": ("int32", NOTHING, {"axis": len(layer.map)}),
        "relevances": ("float32", 0, {}),
        "norms": ("float32", 0, {}),
    }
    if layer.ierf_size is not None:
        found["ierfs"] = ("uint8", ZERO, dict(zip(("y", "x"), layer.ierf_size, strict=True)))
        found["ierf_scales"] = ("float32", 0, {})
    return {
        name: ArraySpec(
            f"layers/{layer.name}/{name}",
            tuple(axes.values()),
            dtype,
            fill,
            tuple(axes),
            layer.rows_per_image,
            compressed=name == "ierfs",
        )
        for name, (dtype, fill, axes) in found.items()
    }


def shift_path(layer: LayerPlan) -> str:
    """The array of a layer that has no rows: its μ_BN, one chunk."""
    return f"layers/{layer.name}/shift"


def shift_bytes(shift: Float[np.ndarray, " C"]) -> bytes:
    """As the file of that chunk."""
    return shift.astype("<f4").tobytes()


IMAGE_ARRAYS = {name: ArraySpec(f"images/{name}", (), "int32", NOTHING, ()) for name in ("labels", "predictions")}


def arrays(plan: Plan) -> Iterator[ArraySpec]:
    """All arrays of a store."""
    yield from IMAGE_ARRAYS.values()
    for layer in plan.layers:
        yield from layer_arrays(layer, plan.pfv_type).values()


def group(attributes: dict[str, Any]) -> dict[str, Any]:
    """`zarr.json` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def metadata(plan: Plan) -> Iterator[tuple[str, dict[str, Any]]]:
    """The `zarr.json` of everything but the root, by path."""
    for path in ("images", "layers"):
        yield f"{path}/{MANIFEST}", group({})
    for layer in json.loads(json.dumps(plan.to_json()["layers"])):
        yield f"layers/{layer['name']}/{MANIFEST}", group(layer)
    for array in arrays(plan):
        yield f"{array.path}/{MANIFEST}", array.metadata(plan)
    for of_layer in plan.layers:
        if of_layer.shift is not None:
            yield f"{shift_path(of_layer)}/{MANIFEST}", _whole_array(of_layer.channels)


def _whole_array(channels: int) -> dict[str, Any]:
    """`zarr.json` of an array of float32 in one chunk."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [channels],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [channels]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "dimension_names": ["channel"],
        "attributes": {},
    }


def marker(folder: Path, block: int) -> Path:
    """The file that says that a block is whole, with its checksums."""
    return folder / RECORDS / "blocks" / f"{block:08d}.json"


@cache
def _zstd() -> Any:
    from numcodecs.zstd import Zstd

    return Zstd(level=3, checksum=False)
