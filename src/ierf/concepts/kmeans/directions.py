"""The directions of vectors: quick in their own precision, exact where it decides."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ierf.concepts.kmeans.segments import sums

_AT_ONCE = 1 << 10


@dataclass(frozen=True, eq=False)
class Directions:
    """`(x − shift) / ‖x − shift‖` of each row."""

    vectors: Float[Tensor, "N C"]
    shift: Float[Tensor, " C"]

    @cached_property
    def units(self) -> Float[Tensor, "N C"]:
        """Of all rows, in the precision of the vectors; 0 for a row that equals the shift."""
        return normalize(self.vectors - self.shift)

    @cached_property
    def norms(self) -> Float[Tensor, " N"]:
        """`‖x − shift‖` of all rows, in float64; infinity for a row that equals the shift."""
        parts = torch.split(self.vectors, _AT_ONCE)
        found = torch.cat([(part.double() - self.shift.double()).norm(dim=1) for part in parts])
        return found.where(found > 0, torch.inf)

    def exact(self, rows: Int[Tensor, " P"]) -> Float[Tensor, "P C"]:
        """Of some rows, in float64."""
        return (self.vectors[rows].double() - self.shift.double()) / self.norms[rows, None]

    def sums(
        self, rows: Int[Tensor, " P"], groups: Int[Tensor, " P"], weights: Float[Tensor, " P"] | None = None
    ) -> tuple[Int[Tensor, " M"], Float[Tensor, "M C"]]:
        """`Σ_r w_r (x_r − shift) / ‖x_r − shift‖` of each group, in float64, as `sums` gives them."""
        scaled = (1 if weights is None else weights) / self.norms[rows]
        found, added = sums(self.vectors, rows, groups, scaled)
        if not bool(self.shift.any()):
            return found, added
        places = torch.searchsorted(found, groups)
        total = scaled.new_zeros(len(found)).index_add_(0, places, scaled)
        return found, added - total[:, None] * self.shift.double()
