"""The directions of vectors: quick in their own precision, exact where it decides."""

from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True, eq=False)
class Directions:
    """`(x − shift) / ‖x − shift‖` of each row."""

    vectors: Float[Tensor, "N C"]
    shift: Float[Tensor, " C"]

    @cached_property
    def units(self) -> Float[Tensor, "N C"]:
        """Of all rows, in the precision of the vectors; 0 for a row that equals the shift."""
        return normalize(self.vectors - self.shift)

    def exact(self, rows: Int[Tensor, " P"]) -> Float[Tensor, "P C"]:
        """Of some rows, in float64."""
        return normalize(self.vectors[rows].double() - self.shift.double())
