"""What is attributed: `X̂ = U V + shift` (Eq. 11), the scores `S_t(M_ab(X̂))` (Eq. 13), and each coefficient's part."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ierf.concepts import Codes
from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.graph.influence.scores import Score

LayersBetween = Callable[[Float[Tensor, "B P C"]], Float[Tensor, "B ..."]]
"""What lies between source and target: a `Section`."""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """`X̂ = U V + shift` of one image, over the concepts that it uses (arXiv 2605.00474, Eq. 11).

    Memory grows with the active concepts `A`, not with the dictionary. The shift is no concept's: it stays when the
    concepts are scaled or taken away, and is the baseline where they are gone.
    """

    active: Int[Tensor, " A"]
    """Which concepts of the dictionary have a coefficient anywhere, ascending."""
    codes: Float[Tensor, "P A"]
    atoms: Float[Tensor, "A C"]
    shift: Float[Tensor, " C"]
    n_concepts: int
    """Of the dictionary, `K`."""

    @classmethod
    def of(
        cls,
        codes: Float[Tensor, "P K"] | Codes,
        atoms: Float[Tensor, "K C"],
        shift: Float[Tensor, " C"] | None = None,
    ) -> "Reconstruction":
        """From codes of one image, dense or sparse. Raises `IerfError` where shapes do not fit."""
        if codes.shape[-1] != len(atoms) or len(codes.shape) != 2:
            raise IerfError(
                f"the codes of one image over {len(atoms)} concepts are (P, {len(atoms)}), not {tuple(codes.shape)}"
            )
        active = codes.active() if isinstance(codes, Codes) else codes.any(0).nonzero()[:, 0]
        used = _columns(codes, active)
        zero = atoms.new_zeros(atoms.shape[1]) if shift is None else shift.to(atoms)
        return cls(active, used.to(atoms), atoms[active.to(atoms.device)], zero, len(atoms))

    @property
    def part(self) -> Float[Tensor, "P C"]:
        """`U V`, what the concepts add to the shift."""
        return self.codes @ self.atoms

    @property
    def full(self) -> Float[Tensor, "P C"]:
        """`X̂`."""
        return self.part + self.shift

    def at(self, alpha: Float[Tensor, " S"]) -> Float[Tensor, "S P C"]:
        """`α U V + shift`, on the way from no concepts (0) to all of them (1)."""
        return alpha[:, None, None] * self.part + self.shift

    def with_only(self, kept: Bool[Tensor, "B A"]) -> Float[Tensor, "B P C"]:
        """X̂ with the coefficients of all other concepts set to zero."""
        return (self.codes * kept[:, None].to(self.codes)) @ self.atoms + self.shift

    def products(self, slopes: Float[Tensor, "T P C"]) -> Float[Tensor, "T P A"]:
        """`u_pq ⟨g_p, v_q⟩`: attributions of all coefficients from slopes `g` by X̂, as `∂X̂_p / ∂u_pq = v_q`."""
        return (slopes @ self.atoms.T) * self.codes

    def spread(self, of_active: Float[Tensor, "A ..."]) -> Float[Tensor, "K ..."]:
        """Values of the active concepts among those of the dictionary; 0 for others, sums where one occurs twice."""
        return of_active.new_zeros(self.n_concepts, *of_active.shape[1:]).index_add(0, self.active, of_active)


@renamed(at_once="batch")
@dataclass(frozen=True, eq=False)
class LayerObjective:
    """Scores of the target layer as a function of the source layer's PFVs: `S_t(M_ab(X))`."""

    section: LayersBetween
    score: Score
    batch: int = 16
    """PFV maps in one pass."""

    def __call__(self, pfvs: Float[Tensor, "B P C"]) -> Float[Tensor, "B T"]:
        return self.score(self.section(pfvs))

    def values(self, pfvs: Float[Tensor, "B P C"]) -> Float[Tensor, "B T"]:
        """The scores without gradients, for which nothing is kept: four times as many maps in one pass."""
        with torch.no_grad():
            return torch.cat([self(some) for some in torch.split(pfvs, 4 * self.batch)])

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


def gradients(
    x: Reconstruction,
    objective: LayerObjective,
    way: Float[Tensor, " S"],
    weights: Float[Tensor, " S"],
    targets: list[int],
) -> Float[Tensor, "t P C"]:
    """`Σ_s w_s ∂S_t/∂X̂ (shift + α_s U V)` of some targets."""
    total = x.part.new_zeros(len(targets), *x.part.shape)
    for both in torch.split(torch.stack([way, weights], 1).to(total), objective.batch):
        alphas, some = both.unbind(1)
        points = x.at(alphas).requires_grad_()
        with torch.enable_grad():
            scores = (some @ objective(points)).unbind()
        for i, t in enumerate(targets):
            total[i] += torch.autograd.grad(scores[t], points, retain_graph=True)[0].sum(0)
    return total


def _columns(codes: Float[Tensor, "P K"] | Codes, active: Int[Tensor, " A"]) -> Float[Tensor, "P A"]:
    """The coefficients of some concepts, dense; all that a row of sparse codes holds must be among them."""
    if isinstance(codes, Tensor):
        return codes[:, active]
    places = torch.searchsorted(active, codes.indices).clamp_max(len(active) - 1)
    used = codes.values.new_zeros(len(codes.values), len(active))
    return used.scatter_add(1, places, codes.values) if len(active) else used
