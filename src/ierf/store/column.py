"""One array of a layer, read row by row from the disk."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ierf.store.array import StoredArray

Rows = int | slice | Int[np.ndarray, " R"] | list[int]


class Column:
    """What a layer's rows hold, numbered without the rows of images that were skipped.

    `column[rows]` reads only the chunks in which these rows lie; `rows` is a number, a slice, or an array of numbers.
    """

    def __init__(
        self,
        array: StoredArray,
        places: Int[np.ndarray, " R"],
        finish: Callable[[np.ndarray, Any], np.ndarray] | None = None,
    ) -> None:
        self._array, self._places, self._finish = array, places, finish
        self.shape: tuple[int, ...] = (len(places), *array.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Column({' × '.join(map(str, self.shape))} {self.dtype})"

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self._array.dtype

    @property
    def chunk(self) -> int:
        """Rows in one chunk, with those of skipped images."""
        return self._array.chunk

    def __getitem__(self, rows: Rows) -> np.ndarray:
        if isinstance(rows, int | np.integer):
            return np.asarray(self[[int(rows)]][0])
        places = self._places[rows]
        values = self._array.rows(places)
        return values if self._finish is None else self._finish(values, places)

    def torch(self, rows: Rows = slice(None)) -> Tensor:
        """The same as a tensor on the CPU."""
        return torch.from_numpy(np.asarray(self[rows]))

    def chunks(self) -> list[Int[np.ndarray, " R"]]:
        """The rows of each chunk, in order; chunks without rows are left out."""
        ends = np.flatnonzero(np.diff(self._places // self.chunk)) + 1
        return list(np.split(np.arange(len(self)), ends)) if len(self) else []
