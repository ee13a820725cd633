"""A mixing buffer: what comes in order leaves in batches of rows from far apart. It knows nothing of models."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Rows = Mapping[str, Float[Tensor, "R C"]]
"""Tensors with the same number of rows, which stay together."""

_SPLIT, _ORDER = 0, 1


@dataclass(frozen=True)
class Position:
    """Where a mixing buffer is; what it gives next depends on this, its seed and its input alone."""

    pool: int = 0
    chunk: int = 0
    """The chunk of the input in which the older of the pool's two blocks begins,"""
    row: int = 0
    """and the row of it."""
    batch: int = 0
    """Batches of the pool that were given."""


def mixed(
    chunks: Callable[[int], Iterator[Rows]], rows: int, batch: int, seed: int = 0, start: Position | None = None
) -> Iterator[tuple[Rows, Position]]:
    """Every row once, in mixed batches, each with the position behind it; from `start` on the rest, bit for bit.

    The input is cut into blocks of `rows`. A pool is a random half of one block and the other half of the block before
    it, shuffled: rows of neighbouring blocks meet, and nothing older is needed to go on from a position than two
    blocks. Memory: two blocks and a pool. Only the last batches of an input that ends may be smaller.

    Args:
        chunks: the input from its n-th chunk on, the same in every call; chunks may differ in size.
        rows: in a block; rounded up to pools of whole batches.
    """
    start = start or Position()
    size = -(-rows // (2 * batch)) * 2 * batch
    reader = _Reader(chunks, start.chunk, start.row)
    number, first, place, waiting = start.pool, start.batch, reader.place, None
    if number:
        older = reader.take(size)
        waiting = None if older is None else _halves(older, seed, number - 1)[1]
    while True:
        next_place = reader.place
        block = reader.take(size)
        now, later = (None, None) if block is None else _halves(block, seed, number)
        pool = _joined([half for half in (waiting, now) if half is not None])
        if pool is None:
            return
        pool = _pick(pool, np.random.default_rng([seed, _ORDER, number]).permutation(_length(pool)))
        count = -(-_length(pool) // batch)
        for b in range(first, count):
            behind = Position(number, place[0], place[1], b + 1)
            if b + 1 == count:
                behind = Position(number + 1, *next_place, 0)
            yield {name: values[b * batch : (b + 1) * batch] for name, values in pool.items()}, behind
        number, first, place, waiting = number + 1, 0, next_place, later


class _Reader:
    """Blocks of a given size from chunks of any size."""

    def __init__(self, chunks: Callable[[int], Iterator[Rows]], chunk: int, row: int) -> None:
        self.place = chunk, row
        self._chunks = chunks(chunk)
        self._left: Rows | None = None

    def take(self, size: int) -> Rows | None:
        """The next `size` rows, fewer at the end, None behind it."""
        parts, wanted = [], size
        while wanted and self._fill():
            assert self._left is not None
            (chunk, row), length = self.place, _length(self._left)
            end = min(row + wanted, length)
            parts.append({name: values[row:end] for name, values in self._left.items()})
            wanted -= end - row
            self.place = (chunk, end) if end < length else (chunk + 1, 0)
            if end == length:
                self._left = None
        return _joined(parts)

    def _fill(self) -> bool:
        while self._left is None:
            self._left = next(self._chunks, None)
            if self._left is None:
                return False
            if self.place[1] >= _length(self._left):
                self.place, self._left = (self.place[0] + 1, 0), None
        return True


def _halves(block: Rows, seed: int, number: int) -> tuple[Rows, Rows]:
    """A random half of a block for its own pool, and the other one for the next."""
    order = np.random.default_rng([seed, _SPLIT, number]).permutation(_length(block))
    middle = len(order) // 2
    return _pick(block, order[:middle]), _pick(block, order[middle:])


def _pick(rows: Rows, index: np.ndarray) -> Rows:
    return {name: values[torch.from_numpy(index).to(values.device)] for name, values in rows.items()}


def _joined(parts: Sequence[Rows]) -> Rows | None:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else None


def _length(rows: Rows) -> int:
    return len(next(iter(rows.values())))
