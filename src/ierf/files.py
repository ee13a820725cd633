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
        return put(path, content)
    except OSError as error:
        raise IerfError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def put(path: Path, content: bytes, *, durable: bool = False) -> Path:
    """`write`, for somebody who words the operating system's errors (`OSError`) otherwise.

    durable: on return the content is on the disk, also after a power cut. What a killed writer leaves behind is then
    called `<name>.part`, and the next writer of the same file replaces it, so there must be one writer at a time.
    """
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not target.is_file():
        raise IerfError(f"cannot write {str(path)!r}: it is {'a folder' if target.is_dir() else 'no regular file'}")
    part = target.with_name(f"{target.name}.part" if durable else f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "wb" if durable else "xb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    if durable:
        _sync_folder(target.parent)
    return path


def _sync_folder(folder: Path) -> None:
    """Makes the names of the files in a folder as durable as their contents."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def missing(path: Path) -> IerfError:
    """The error for a path that does not exist, with the names nearest to it in the folder where it should be."""
    folder = path.parent
    if not folder.is_dir():
        return IerfError(f"there is no file {str(path)!r}: its folder does not exist")
    names = sorted(entry.name for entry in folder.iterdir())
    return IerfError(f"there is no file {str(path)!r}{suggestion(path.name, names)}")
