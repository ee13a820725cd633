"""Codes of PFVs where nearly all coefficients are zero: the few that are not."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Codes:
    """The non-zero coefficients of PFVs, those of one PFV beside each other; `A` of the PFV that has most.

    Where a PFV has fewer, the rest is padding: index 0, value 0.
    """

    indices: Int[Tensor, "*batch A"]
    """The concepts, ascending."""
    values: Float[Tensor, "*batch A"]
    """Their coefficients."""
    n_concepts: int

    @classmethod
    def of(cls, dense: Float[Tensor, "*batch K"]) -> "Codes":
        """The non-zero entries of dense codes."""
        count = int((dense != 0).sum(-1).max()) if dense.numel() else 0
        indices = (dense == 0).to(torch.uint8).argsort(dim=-1, stable=True)[..., :count]
        values = dense.gather(-1, indices)
        return cls(indices.masked_fill(values == 0, 0), values, dense.shape[-1])

    @property
    def shape(self) -> torch.Size:
        """Of the dense codes."""
        return torch.Size([*self.values.shape[:-1], self.n_concepts])

    def __getitem__(self, rows: int | slice | Tensor) -> "Codes":
        """The codes of some PFVs, along the first axis."""
        return Codes(self.indices[rows], self.values[rows], self.n_concepts)

    def dense(self) -> Float[Tensor, "*batch K"]:
        """All coefficients."""
        return self.values.new_zeros(self.shape).scatter_add(-1, self.indices, self.values)

    def counts(self) -> Int[Tensor, " *batch"]:
        """`‖u‖₀` of each PFV."""
        return (self.values != 0).sum(-1)

    def active(self) -> Int[Tensor, " Q"]:
        """The concepts that any of the PFVs uses, ascending."""
        used: Tensor = torch.unique(self.indices[self.values != 0])
        return used

    def times(self, atoms: Float[Tensor, "K C"]) -> Float[Tensor, "*batch C"]:
        """`U V`, without the dense codes."""
        *batch, width = self.values.shape
        if not self.values.numel():
            return atoms.new_zeros(*batch, atoms.shape[1])
        indices, values = self.indices.reshape(-1, width), self.values.reshape(-1, width).to(atoms)
        return F.embedding_bag(indices, atoms, per_sample_weights=values, mode="sum").view(*batch, atoms.shape[1])
