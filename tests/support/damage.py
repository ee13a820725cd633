"""Files that are damaged in every way that a type, a size or a name can be wrong."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ierf.errors import IerfError

JUNK: tuple[Any, ...] = (None, -1, 1e30, "x", [], {}, True, 10**12)
NO_JSON = (b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"[]", b"NaN", b"3")


def changed(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What JSON says, with one field taken out, added, cut, doubled, or of another type."""
    if isinstance(content, dict):
        for key, value in content.items():
            name = f"{path}.{key}"
            yield f"{name} missing", {k: v for k, v in content.items() if k != key}
            yield from ((f"{name} = {junk!r}", {**content, key: junk}) for junk in JUNK)
            yield from ((what, {**content, key: other}) for what, other in changed(value, name))
    elif isinstance(content, list):
        yield f"{path} empty", []
        yield f"{path} doubled", [*content, *content[:1]]
        if content:
            yield from ((f"{path}[0] = {junk!r}", [junk, *content[1:]]) for junk in JUNK)
            yield from ((what, [other, *content[1:]]) for what, other in changed(content[0], f"{path}[0]"))


def damages(path: Path, every: int = 1) -> Iterator[tuple[str, bytes | None]]:
    """What may lie in the place of a file: nothing, a part, something else; every n-th change of its fields."""
    content = path.read_bytes()
    yield "missing", None
    yield from ((f"bytes {junk[:6]!r}", junk) for junk in NO_JSON)
    yield from ((f"cut to {length}", content[:length]) for length in {1, len(content) // 2, len(content) - 3})
    if path.suffix == ".json":
        for i, (what, other) in enumerate(changed(json.loads(content))):
            if i % every == 0:
                yield what, json.dumps(other).encode()


def silent(
    root: Path, read: Callable[[Path], Any], every: int = 1, only: Callable[[Path], bool] = lambda path: True
) -> tuple[list[str], int]:
    """Damages after which reading gives something else, or ends in other words than an `IerfError` that says where it
    is; and how many were refused. All else must give what there was."""
    before, found, refused = read(root), list[str](), 0
    for path in sorted(one for one in root.rglob("*") if one.is_file() and only(one)):
        content = path.read_bytes()
        for what, other in damages(path, every):
            path.unlink()
            if other is not None:
                path.write_bytes(other)
            try:
                if read(root) != before:
                    found.append(f"{path.name}, {what}: another result")
            except IerfError as error:
                refused += 1
                if root.name not in str(error) and path.name not in str(error):
                    found.append(f"{path.name}, {what}: {error}")
            except Exception as error:
                found.append(f"{path.name}, {what}: {type(error).__name__} {error}")
            path.write_bytes(content)
    return found, refused
