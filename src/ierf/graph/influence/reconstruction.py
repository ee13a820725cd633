"""A layer of one image written with its concepts, `X̂ = U V + shift`: what attributions scale and take apart."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ierf.concepts import Codes
from ierf.errors import IerfError


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
        """Values of the active concepts among those of the dictionary; 0 for the others."""
        return of_active.new_zeros(self.n_concepts, *of_active.shape[1:]).index_copy(0, self.active, of_active)


def _columns(codes: Float[Tensor, "P K"] | Codes, active: Int[Tensor, " A"]) -> Float[Tensor, "P A"]:
    """The coefficients of some concepts, dense; all that a row of sparse codes holds must be among them."""
    if isinstance(codes, Tensor):
        return codes[:, active]
    places = torch.searchsorted(active, codes.indices).clamp_max(len(active) - 1)
    used = codes.values.new_zeros(len(codes.values), len(active))
    return used.scatter_add(1, places, codes.values) if len(active) else used
