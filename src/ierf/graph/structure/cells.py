"""A small signed map that is equal to itself after it was saved: rows and columns of bytes with one scale."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.store import quantised, reduced, reduced_size, restored


@dataclass(frozen=True)
class Cells:
    """A map (rows, columns), one byte for each cell: `m ≈ (byte − 128) · scale`, as iERFs lie in a store."""

    rows: int
    columns: int
    scale: float
    content: bytes = field(repr=False)

    @classmethod
    def of(cls, values: Float[Tensor, "h w"], side: int | None = None) -> "Cells":
        """A map of at most `side` cells on a side (None: 64); larger ones are summed over areas first."""
        rows, columns = values.shape
        size = reduced_size((rows, columns), None if side is None else min(side, max(rows, columns)))
        small = reduced(values.detach().cpu().float(), size)
        levels, scale = quantised(small[None])
        return cls(*size, float(scale), levels.numpy().tobytes())

    def tensor(self) -> Float[Tensor, "h w"]:
        """The map again, within half a step of `scale` of what it was."""
        levels = torch.frombuffer(bytearray(self.content), dtype=torch.uint8).view(1, self.rows, self.columns)
        return restored(levels, torch.tensor([self.scale]))[0]
