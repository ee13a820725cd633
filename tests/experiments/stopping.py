"""Ctrl-C at a chosen moment."""

from collections.abc import Iterable, Iterator
from typing import Any


def stop_after(count: int) -> Any:
    """Goes through so many units, then is interrupted."""

    def track(units: Iterable[str]) -> Iterator[str]:
        for i, unit in enumerate(units):
            if i == count:
                raise KeyboardInterrupt
            yield unit

    return track
