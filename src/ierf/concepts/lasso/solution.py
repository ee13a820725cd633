"""What the Lasso answers, and how good the answer is."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from ierf.concepts.codes import Codes


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
