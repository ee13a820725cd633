"""What every attribution of a concept's coefficients gives."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.graph.influence.reconstruction import Reconstruction
from ierf.graph.influence.scores import Score

Layers = Callable[[Float[Tensor, "B P C"]], Float[Tensor, "B ..."]]
"""What lies between source and target: a `Section`."""


@dataclass(frozen=True, eq=False)
class Question:
    """Scores of the target layer as a function of the source layer's PFVs: `S_t(M_ab(X))`."""

    section: Layers
    score: Score
    at_once: int = 16
    """PFV maps in one pass."""

    def __call__(self, pfvs: Float[Tensor, "B P C"]) -> Float[Tensor, "B T"]:
        return self.score(self.section(pfvs))

    def values(self, pfvs: Float[Tensor, "B P C"]) -> Float[Tensor, "B T"]:
        """The scores without gradients, `at_once` maps in one pass."""
        with torch.no_grad():
            return torch.cat([self(some) for some in torch.split(pfvs, self.at_once)])

    def ends(self, x: Reconstruction) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
        """`S(0⁺)` and `S(X̂)`.

        The limit is read off at α = ε of the type: in a network without biases cosines do not depend on α > 0, in any
        other they have reached their value at the shift alone.
        """
        way = torch.tensor([torch.finfo(x.atoms.dtype).eps, 1.0], dtype=x.atoms.dtype, device=x.atoms.device)
        start, end = self.values(x.at(way))
        return start, end


@dataclass(frozen=True, eq=False)
class Attribution:
    """`AT(u_pq, S_t)` of the coefficients in a reconstruction."""

    x: Reconstruction
    start: Float[Tensor, " T"]
    """`S(0⁺)`, without concepts."""
    end: Float[Tensor, " T"]
    """`S(X̂)`."""
    values: Float[Tensor, "T A"]
    """Summed over positions, of the active concepts."""
    slopes: Float[Tensor, "T P C"] | None = None
    """`g` with `AT(u_pq) = u_pq ⟨g_p, v_q⟩`, where the method has one."""
    products: Float[Tensor, "T P A"] | None = None
    """`AT(u_pq)` of a method that has no slopes."""
    steps: Int[Tensor, " T"] | None = None
    """Points on the way, of integrated gradients."""

    @classmethod
    def by_slopes(
        cls, x: Reconstruction, ends: tuple[Tensor, Tensor], slopes: Tensor, steps: Tensor | None = None
    ) -> "Attribution":
        """`Σ_p u_pq ⟨g_p, v_q⟩`, without what each position adds."""
        values = torch.stack([((x.codes.T @ of_target) * x.atoms).sum(1) for of_target in slopes])
        return cls(x, *ends, values, slopes, steps=steps)

    @classmethod
    def by_products(cls, x: Reconstruction, ends: tuple[Tensor, Tensor], products: Tensor) -> "Attribution":
        return cls(x, *ends, products.sum(1), products=products)

    @property
    def completeness_error(self) -> Float[Tensor, " T"]:
        """`|Σ AT − (S(X̂) − S(0⁺))| / |S(X̂) − S(0⁺)|`; 0 where both vanish."""
        change = self.end - self.start
        gap = (self.values.sum(1) - change).abs()
        return torch.where(gap == 0, gap, gap / change.abs())
