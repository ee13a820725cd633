"""Files: written whole or not at all; which ones are near where one is missing."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from ierf.errors import IerfError, suggestion


def write(path: Path, content: bytes) -> Path:
    """Put `content` at `path`, all of it or nothing, over what was there; missing folders are made, links are followed.

    Raises `IerfError` that names the file and the reason: no permission, no space, a folder or a device in the way.
    """
    try:
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            raise IerfError(f"cannot write {str(path)!r}: it is {'a folder' if target.is_dir() else 'no regular file'}")
        _replace(target, content)
    except OSError as error:
        raise IerfError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path


def missing(path: Path) -> IerfError:
    """The error for a path that does not exist, with the names nearest to it in the folder where it should be."""
    folder = path.parent
    if not folder.is_dir():
        return IerfError(f"there is no file {str(path)!r}: its folder does not exist")
    names = sorted(entry.name for entry in folder.iterdir())
    return IerfError(f"there is no file {str(path)!r}{suggestion(path.name, names)}")


def _replace(path: Path, content: bytes) -> None:
    """By a new file beside it, whose permissions the operating system takes from the process."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            file.write(content)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
