"""Where things lie in the folder of a store, and is it whole?

Zarr v3 arrays, one chunk per block, written from the specification: see docs/store-format.md. Chunks are made here and
not by the zarr package, so that each is one file that is written whole and whose checksum is known; zarr reads them.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.store.arrays import METADATA, ArraySpec
from ierf.store.files import RECORDS, checksum, read_json
from ierf.store.plan import ZERO, LayerPlan, Plan, differences
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


Glance = tuple[tuple[object, ...], ...]
_KNOWN: WeakKeyDictionary[nn.Module, tuple[Glance, str]] = WeakKeyDictionary()


def weights_hash(net: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of all parameters and buffers.

    That of a network is kept as long as its tensors are the same ones in the same versions and have the same sums,
    which are much quicker.
    """
    glance = tuple((name, *_glance(tensor)) for name, tensor in sorted(net.state_dict().items()))
    known = _KNOWN.get(net)
    if known is None or known[0] != glance:
        _KNOWN[net] = known = glance, _hashed(net)
    return known[1]


def _glance(tensor: Tensor) -> tuple[object, ...]:
    """What changes with a tensor's values, whether they are written by an operation or behind autograd's back."""
    version = 0 if tensor.is_inference() else tensor._version
    numbers = tensor.detach()
    numbers = numbers if numbers.is_floating_point() else numbers.to(torch.float64)
    sums = [float(part.sum(dtype=torch.float64)) for part in (numbers, numbers.flatten()[::2], numbers.flatten()[::3])]
    return (tensor.data_ptr(), version, tensor.dtype, tuple(tensor.shape), *map(str, sums))


def _hashed(net: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def identity(model: VisionModel) -> dict[str, Any]:
    """What makes a model the same: its name, its weights, its preprocessing."""
    return {"name": model.name, "weights": weights_hash(model.net), "preprocessing": asdict(model.preprocess)}


def check_model(folder: Path, plan: Plan, model: VisionModel) -> None:
    """Raises an `IerfError` that says how a model differs from the one that a store was made with."""
    if differs := list(differences(plan.model, as_json(identity(model)), "model")):
        raise IerfError(f"the store {str(folder)!r} was made with another model: {'; '.join(differs)}")


def as_json(content: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(content))


def problems(path: str | Path) -> Iterator[str]:
    """What is wrong with a store, in words, file by file; nothing if it is whole.

    Every file is read: chunks against the checksums of their blocks, metadata against the plan.
    Raises `IerfError` if there is no store.
    """
    folder = Path(path)
    if not (folder / PLAN).exists():
        raise IerfError(f"there is no PFV–iERF store at {str(path)!r}; `ierf collect` makes one")
    plan = Plan.from_json(read_json(folder / PLAN), str(path))
    yield from _manifest(folder, plan)
    for name, content in metadata(plan):
        if not _is_json(folder / name, content):
            yield f"{name} is missing or not as the plan has it"
    for layer in plan.layers:
        if layer.shift is not None:
            yield from _file(folder, f"{shift_path(layer)}/c/0", layer.shift)
    for block in range(plan.blocks):
        yield from _block(folder, plan, block)


def _manifest(folder: Path, plan: Plan) -> Iterator[str]:
    if not (folder / MANIFEST).exists():
        yield "the store is not complete; `ierf collect` with the same arguments finishes it"
        return
    there = manifest(folder)
    if not (folder / NAMES).exists() or checksum((folder / NAMES).read_bytes()) != there["names_checksum"]:
        yield f"{NAMES} is missing or was changed"
    expected = json.loads(json.dumps(plan.to_json()))
    if any(there.get(key) != value for key, value in expected.items()):
        yield f"{PLAN} and the manifest differ; images are being appended, or were not to the end"


def _block(folder: Path, plan: Plan, block: int) -> Iterator[str]:
    path = marker(folder, block)
    if not path.exists():
        yield f"block {block} is missing"
        return
    content = read_json(path)
    checksums = content.get("checksums") if isinstance(content, dict) else None
    if not isinstance(checksums, dict):
        yield f"the record of block {block} was changed"
        return
    for array in arrays(plan):
        name = array.chunk_path(block)
        yield from _file(folder, name, checksums.get(name))


def _file(folder: Path, name: str, expected: str | None) -> Iterator[str]:
    if not (folder / name).exists():
        yield f"{name} is missing"
    elif checksum((folder / name).read_bytes()) != expected:
        yield f"{name} was changed"


def _is_json(path: Path, content: object) -> bool:
    try:
        return bool(read_json(path) == content)
    except IerfError:
        return False
