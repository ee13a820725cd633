"""Is a store whole, and a model the same? By SHA-256."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.store.files import checksum, read_json
from ierf.store.layout import MANIFEST, NAMES, PLAN, arrays, manifest, marker, metadata, shift_path
from ierf.store.plan import Plan, differences

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
