"""Files that survive a killed process and a power cut: written whole, and on the disk before the next one begins."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ierf.errors import IerfError
from ierf.typed import FieldError, parsed


def write(path: Path, content: bytes) -> None:
    """Put `content` at `path`, all of it or nothing, over what was there; on return it is on the disk.

    What a killed writer leaves behind is called `<name>.part`, and the next writer of the same file replaces it.
    Raises `IerfError` that names the file and the reason: no permission, no space, a folder in the way.
    """
    if path.exists() and not path.is_file():
        raise IerfError(f"cannot write {str(path)!r}: it is {'a folder' if path.is_dir() else 'no regular file'}")
    part = path.with_name(f"{path.name}.part")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)


def write_json(path: Path, content: Any) -> None:
    """The same for JSON, indented, keys in the order given."""
    write(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises `IerfError` if it is damaged."""
    try:
        return parsed(path.read_bytes())
    except OSError as error:
        raise IerfError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except FieldError as error:
        raise IerfError(f"{str(path)!r} is damaged: {error}; make it anew") from None


def checksum(content: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Inside: what the operating system refuses becomes an `IerfError`."""
    try:
        yield
    except OSError as error:
        way_out = (
            "give the name of a folder"
            if isinstance(error, FileExistsError | NotADirectoryError)
            else "finished blocks stay, and the same command goes on from there"
        )
        raise IerfError(f"cannot write {str(path)!r}: {error.strerror or error}; {way_out}") from error


def _sync_folder(folder: Path) -> None:
    """Makes the names of the files in a folder as durable as their contents."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
