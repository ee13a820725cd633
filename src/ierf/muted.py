"""Warnings that one thread does not want, without a word taken from the others.

`warnings.catch_warnings` swaps the filters of the whole process: two threads inside of it can leave each other's
filters behind for good. Here one filter stays in front of all others and matches in threads that are inside only.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, local
from typing import Any


class _Here(local):
    """How often this thread is inside; what `warnings` takes for the pattern of a module's name."""

    depth = 0

    def match(self, module: str) -> bool:
        return self.depth > 0


_HERE = _Here()
_FILTER: Any = ("ignore", None, Warning, _HERE, 0)
_FILTERS = Lock()


@contextmanager
def muted() -> Iterator[None]:
    """Inside: this thread warns of nothing."""
    _stand_in_front()
    _HERE.depth += 1
    try:
        yield
    finally:
        _HERE.depth -= 1


def _stand_in_front() -> None:
    """Whoever sets filters puts them in front of the others."""
    with _FILTERS:
        filters: list[Any] = warnings.filters  # type: ignore[assignment]
        if not filters or filters[0] is not _FILTER:
            filters[:] = [_FILTER, *(one for one in filters if one is not _FILTER)]
