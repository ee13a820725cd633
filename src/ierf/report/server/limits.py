"""What the server takes from a browser, and how much it keeps."""

from dataclasses import dataclass

from ierf.errors import IerfError

_MIB = 2**20
RETRY_AFTER = 5
"""Seconds."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what one request may bring and on what all of them together may hold."""

    upload: int = 20 * _MIB
    """Bytes of a photograph's file."""
    pixels: int = 50_000_000
    """Of a photograph: a small file can hold a picture that fills the memory."""
    request: int = 64 * 1024
    """Bytes of any other request's body."""
    patience: float = 60.0
    """Seconds until a body must have arrived."""
    arriving: int = 320 * _MIB
    """Bytes of the files of all photographs that arrive at the same time, or wait to be read."""
    decoding: int = 2
    """Photographs read at the same time."""
    queue: int = 16
    """Jobs that wait."""
    photos: int = 256 * _MIB
    """Bytes of decoded photographs that are kept."""
    results: int = 256 * _MIB
    """Bytes of results that are kept."""


class RefusedError(IerfError):
    """A request that is not served, with its HTTP status."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        """Seconds after which it may be served."""
