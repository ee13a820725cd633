"""The manifest of a complete store, and the names of its images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ierf.errors import IerfError
from ierf.store.files import checksum, read_json
from ierf.store.layout import MANIFEST, NAMES
from ierf.typed import FieldError, parsed, typed


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


def image_names(folder: Path, count: int, expected: str) -> list[str | None]:
    """Those of the complete store; an append that was cut may have written more behind them.

    Raises `IerfError` where they are not those that the manifest was written with.
    """
    path = folder / NAMES
    content = path.read_bytes() if path.is_file() else b""
    lines = content.split(b"\n")[:count]
    if len(lines) != count or checksum(b"".join(line + b"\n" for line in lines)) != expected:
        raise IerfError(f"{str(path)!r} is missing or was changed; collect the store anew")
    return [parsed(line) for line in lines]
