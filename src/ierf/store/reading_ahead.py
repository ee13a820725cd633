"""Photographs read and prepared by threads while the network works on earlier ones."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from ierf.errors import IerfError

T = TypeVar("T")


def read_ahead(
    read: Callable[[int], T], indices: Iterable[int], workers: int, ahead: int
) -> Iterator[tuple[int, T | IerfError]]:
    """`read(i)` of each index in order, at most `ahead` of them waiting; an `IerfError` comes out as a value."""
    left = iter(indices)
    pool = ThreadPoolExecutor(workers, "ierf-read")
    try:
        waiting: deque[tuple[int, Future[T]]] = deque((i, pool.submit(read, i)) for i in islice(left, ahead))
        while waiting:
            index, future = waiting.popleft()
            try:
                found: T | IerfError = future.result()
            except IerfError as error:
                found = error
            waiting.extend((i, pool.submit(read, i)) for i in islice(left, 1))
            yield index, found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
