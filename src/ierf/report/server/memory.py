"""A bounded memory: what was not used for longest is forgotten first."""

import ctypes
from collections import OrderedDict
from functools import cache
from threading import Lock
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Memory(Generic[T]):
    """Values by name, of at most `capacity` bytes together; the newest always stays. Safe to share among threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._used = capacity, 0
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = Lock()

    def put(self, name: str, value: T, size: int) -> None:
        with self._lock:
            self._used += size - self._values.pop(name, (value, 0))[1]
            self._values[name] = value, size
            while self._used > self._capacity and len(self._values) > 1:
                self._used -= self._values.popitem(last=False)[1][1]

    def get(self, name: str) -> T | None:
        """The value, which counts as used now; None if it was forgotten or never there."""
        with self._lock:
            if name not in self._values:
                return None
            self._values.move_to_end(name)
            return self._values[name][0]


def give_back() -> None:
    """What was freed returns to the operating system: glibc keeps it for each thread that ever decoded or computed."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    """None where the C library is another one."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
