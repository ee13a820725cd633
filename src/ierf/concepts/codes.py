"""Sparse codes: the few coefficients that are not zero, and the Lasso's with their certificates (Eq. 12)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
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

    @classmethod
    def packed(cls, indices: Int[Tensor, "N A"], values: Float[Tensor, "N A"], n_concepts: int) -> "Codes":
        """Coefficients that stand beside each other in any order, some of them zero."""
        width = int((values != 0).sum(1).max()) if values.numel() else 0
        order = indices.masked_fill(values == 0, n_concepts).argsort(dim=1)[:, :width]
        values = values.gather(1, order)
        return cls(indices.gather(1, order).masked_fill(values == 0, 0), values, n_concepts)

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


@dataclass(frozen=True, eq=False)
class LassoCodes:
    """`argmin_u ½‖x − u V‖² + λ‖u‖₁` of each vector, with certificates that were computed from the codes themselves."""

    sparse: Codes
    """The coefficients that are not zero."""
    lam: float
    kkt: Float[Tensor, " N"]
    """The largest violation of an optimality condition over all atoms, relative to λ.

    With `c = V(x − u V)` it is `|c_k − λ sign u_k| / λ` where u_k ≠ 0 and `max(|c_k| − λ, 0) / λ` elsewhere; in the
    non-negative Lasso c_k itself stands in place of its size.
    """
    objective: Float[Tensor, " N"]
    gap: Float[Tensor, " N"]
    """The duality gap: the objective is at most this much above the smallest there is (up to rounding)."""
    converged: Bool[Tensor, " N"]
    """Whether `kkt` reached the tolerance that was asked for."""

    @property
    def codes(self) -> Float[Tensor, "N K"]:
        """All coefficients, zeros too."""
        return self.sparse.dense()

    @property
    def l0(self) -> Float[Tensor, " N"]:
        """How many coefficients of each vector are not zero."""
        return self.sparse.counts().to(self.kkt)

    @property
    def l0_ratio(self) -> Float[Tensor, " N"]:
        """`1 − ‖u‖₀ / K`, arXiv 2605.00474, Table III."""
        return 1 - self.l0 / self.sparse.n_concepts

    def reconstruct(self, atoms: Float[Tensor, "K C"]) -> Float[Tensor, "N C"]:
        """`u V`."""
        return self.sparse.times(atoms)

    def __getitem__(self, rows: slice | Tensor) -> "LassoCodes":
        """The answers for some of the vectors."""
        certificates = (part[rows] for part in (self.kkt, self.objective, self.gap, self.converged))
        return LassoCodes(self.sparse[rows], self.lam, *certificates)
