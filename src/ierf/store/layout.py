"""Where things lie in the folder of a store: Zarr v3 arrays, one chunk per block, written from the specification.

See docs/store-format.md. Chunks are made here and not by the zarr package, so that each is one file that is written
whole and whose checksum is known; zarr reads them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ierf.errors import IerfError
from ierf.store.arrays import METADATA, ArraySpec
from ierf.store.files import RECORDS, read_json
from ierf.store.plan import LayerPlan, Plan
from ierf.store.sampling import ZERO
from ierf.typed import FieldError, typed

MANIFEST = METADATA
PLAN = f"{RECORDS}/plan.json"
NAMES = f"{RECORDS}/images.jsonl"
NOTHING = -1
"""Label, prediction or position where there is none."""


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


@dataclass(frozen=True)
class _Beside:
    """What a manifest holds beside the plan."""

    images: int
    skipped: tuple[tuple[int, str], ...]
    names_checksum: str


def manifest(folder: Path) -> dict[str, Any]:
    """The attributes of the root group. Raises `IerfError` that names the field which is missing or wrong."""
    path = folder / MANIFEST
    content = read_json(path)
    attributes = content.get("attributes") if isinstance(content, dict) else None
    try:
        if not isinstance(attributes, dict):
            raise FieldError("attributes is missing")
        beside = typed({n: attributes[n] for n in _Beside.__dataclass_fields__ if n in attributes}, _Beside)
        if any(not 0 <= index < beside.images for index, _ in beside.skipped):
            raise FieldError("skipped has an image that does not exist")
    except FieldError as error:
        raise IerfError(f"{str(path)!r} is damaged: {error}; collect the store anew") from None
    return attributes
