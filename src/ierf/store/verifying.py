"""Is a store whole?"""

import json
from collections.abc import Iterator
from pathlib import Path

from ierf.errors import IerfError
from ierf.store.files import checksum, read_json
from ierf.store.layout import MANIFEST, NAMES, PLAN, arrays, marker, metadata, shift_path
from ierf.store.manifest import manifest
from ierf.store.plan import Plan


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
