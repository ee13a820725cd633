"""Writing files whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from ierf.errors import IerfError


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


def _replace(path: Path, content: bytes) -> None:
    with NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as part:
        try:
            part.write(content)
            part.close()
            os.chmod(part.name, 0o666 & ~_umask())
            os.replace(part.name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part.name)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
