"""Writing what graphs are saved as."""

from pathlib import Path

from ierf.errors import IerfError


def write(path: Path, content: bytes) -> Path:
    """Put the content at `path`; missing folders are made. Raises `IerfError` with the reason where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise IerfError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path
