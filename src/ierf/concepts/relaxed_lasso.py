"""Codes without shrinkage: least squares on the atoms that the Lasso chose (relaxed Lasso, Meinshausen 2007)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ierf.concepts.active_set import Small, descend, in_blocks, vectors_and_atoms
from ierf.concepts.codes import Codes, LassoCodes
from ierf.errors import IerfError

_STEPS = 4
"""Steps of the proximal point method; each makes good for the ridge and for the rounding of the one before."""
_ROUNDS, _STEPS_A_ROUND = 8, 8
"""Of the non-negative least squares: after each round, atoms at zero that would help may come back."""
_LEVEL = 1024
"""Times the rounding unit: the slope of such an atom, relative to ‖x‖, from which on it comes back."""
_EXPLODED = 2.0
"""See `refit`; on four layers of the bundled ResNet no vector comes to more than 0.82."""


@dataclass(frozen=True, eq=False)
class RefitCodes:
    """`argmin_u ‖x − u V‖²` of each vector over the atoms that the Lasso chose for it, with certificates."""

    sparse: Codes
    """The coefficients that are not zero; the Lasso's own where `kept`."""
    chosen: LassoCodes
    """The Lasso's codes, whose `kkt` certifies the choice."""
    normal: Float[Tensor, " N"]
    """How far the normal equations are from solved, computed from the codes themselves: `max_k |⟨v̂_k, x − u V⟩| / ‖x‖`
    over the atoms that the Lasso chose, `v̂_k = v_k / ‖v_k‖`, the ridge's part included.

    With non-negative coefficients, ⟨v̂_k, x − u V⟩ itself stands in place of its size where u_k = 0. Where `kept` it is
    what the Lasso's shrinkage leaves, about `λ / (‖v_k‖ ‖x‖)`.
    """
    relative_error: Float[Tensor, " N"]
    """`‖x − u V‖ / ‖x‖`, 0 for x = 0; never above the Lasso's."""
    kept: Bool[Tensor, " N"]
    """Vectors whose coefficients exploded, so that the Lasso's were kept, see `refit`."""

    @property
    def codes(self) -> Float[Tensor, "N K"]:
        """All coefficients, zeros too."""
        return self.sparse.dense()

    def reconstruct(self, atoms: Float[Tensor, "K C"]) -> Float[Tensor, "N C"]:
        """`u V`."""
        return self.sparse.times(atoms)


def refit(
    x: Float[Tensor, "N C"] | np.ndarray,
    atoms: Float[Tensor, "K C"] | np.ndarray,
    codes: LassoCodes,
    positive: bool = False,
) -> RefitCodes:
    """`u_A = argmin ‖x − u_A V_A‖²` for every row of x, A the atoms that its Lasso codes use (relaxed Lasso).

    In the coefficients `z_k = u_k ‖v_k‖` of unit atoms, so that neither the length of atoms nor of vectors matters. A
    step solves `argmin_z ‖x − z V̂_A‖² + ρ ‖z − z'‖²` around the point z' before it, from the Lasso's codes on, with a
    ridge ρ = √eps (3e-4 in float32), and four are taken. None makes the residual larger. Where atoms coincide, they
    share what they gain and keep the difference that the Lasso gave them; elsewhere the ridge's part dies out, by a
    factor `ρ / (ρ + μ)` a step along a direction of which the Gram has the eigenvalue μ.

    **Explosions.** Orthogonal parts `z_k v̂_k` of a vector are at most √|A| ‖x‖ in sum. Where
    `Σ|z_k| > 2 (Σ|z_k of the Lasso| + √|A| ‖x‖)`, atoms that nearly coincide cancel each other with coefficients that
    say nothing of x; the vector keeps the Lasso's codes and is marked in `.kept`.

    Args:
        x: the vectors, already shifted.
        codes: `lasso(x, atoms, …)`.
        positive: coefficients ≥ 0: non-negative least squares, in which some of the chosen atoms may end at zero.

    Raises:
        IerfError: codes of other vectors or atoms, negative codes with `positive`, NaN, shapes that do not fit.
    """
    vectors, given = vectors_and_atoms(x, atoms)
    chosen = codes.sparse
    shape = (len(vectors), len(given))
    if tuple(chosen.shape) != shape:
        raise IerfError(f"the codes to refit are {tuple(chosen.shape)}, those of the vectors {shape}")
    indices, values = chosen.indices.to(vectors.device), chosen.values.to(vectors)
    if positive and bool((values < 0).any()):
        raise IerfError("these codes have negative coefficients; refit with positive=False, or code with positive=True")
    norms = given.norm(dim=1)
    units, used = given / norms.where(norms > 0, 1)[:, None], values != 0
    sizes = used.sum(1)
    fitted = values.clone()
    normal, error = (vectors.new_zeros(len(vectors)) for _ in range(2))
    kept = torch.zeros_like(normal, dtype=torch.bool)
    channels, item = vectors.shape[1], vectors.element_size()
    for rows, width in in_blocks(sizes, lambda width: max(1, width) * max(channels, width), item):
        order = used[rows].to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :width]
        own = indices[rows[:, None], order]
        block = _Block(vectors[rows], units[own], values[rows[:, None], order] * norms[own])
        after = block.non_negative() if positive else block.least_squares()
        kept[rows] = block.exploded(after)
        after = torch.where((kept[rows] | ~block.better(after))[:, None], block.start, after)
        after = (after / norms[own].where(block.used, 1)).masked_fill(~block.used, 0)
        fitted[rows[:, None], order] = after
        normal[rows], error[rows] = block.certificates(after * norms[own], positive)
    return RefitCodes(Codes.packed(indices, fitted, len(given)), codes, normal, error, kept)


@dataclass(frozen=True, eq=False)
class _Block:
    """Vectors with the unit atoms of their own and the coefficients at the start; room for A atoms, not all used."""

    x: Float[Tensor, "B C"]
    taken: Float[Tensor, "B A C"]
    start: Float[Tensor, "B A"]

    @property
    def used(self) -> Bool[Tensor, "B A"]:
        return self.start != 0

    def rest(self, z: Float[Tensor, "B A"]) -> Float[Tensor, "B C"]:
        """`x − z V̂`"""
        return self.x - (z[:, None] @ self.taken)[:, 0]

    def slope(self, z: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
        """`⟨v̂_k, x − z V̂⟩`, 0 for atoms that are not used."""
        return (self.taken @ self.rest(z)[..., None])[..., 0].masked_fill(~self.used, 0)

    def gram(self) -> Float[Tensor, "B A A"]:
        """Of the atoms that are used; the others are orthogonal to all."""
        inside = self.used.to(self.taken)
        gram = (self.taken @ self.taken.mT) * inside[:, None] * inside[..., None]
        gram.diagonal(dim1=1, dim2=2).add_(1 - inside)
        return gram

    def least_squares(self) -> Float[Tensor, "B A"]:
        gram, z = self.gram(), self.start
        gram.diagonal(dim1=1, dim2=2).add_(torch.finfo(gram.dtype).eps ** 0.5)
        factors = torch.linalg.cholesky_ex(gram).L
        for _ in range(_STEPS):
            z = z + torch.cholesky_solve(self.slope(z)[..., None], factors)[..., 0]
        return z

    def non_negative(self) -> Float[Tensor, "B A"]:
        """Descent with signs that stay, see `active_set.descend`, begun again with the atoms that may come back."""
        gram, z = self.gram(), self.start
        level = _LEVEL * torch.finfo(gram.dtype).eps * self.x.norm(dim=1, keepdim=True)
        for _ in range(_ROUNDS):
            slope = self.slope(z)
            signs = (self.used & ((z > 0) | (slope > level))).to(z)
            after = descend(Small(gram, slope, torch.zeros_like(z), z, signs), _STEPS_A_ROUND).z
            if torch.equal(after, z):
                break
            z = after
        return z

    def exploded(self, z: Float[Tensor, "B A"]) -> Bool[Tensor, " B"]:
        orthogonal = self.used.sum(1).to(z).sqrt() * self.x.norm(dim=1)
        within: Tensor = z.abs().sum(1) <= _EXPLODED * (self.start.abs().sum(1) + orthogonal)
        return ~within

    def better(self, z: Float[Tensor, "B A"]) -> Bool[Tensor, " B"]:
        before, after = self.rest(self.start).norm(dim=1), self.rest(z).norm(dim=1)
        better: Tensor = after <= before
        return better

    def certificates(self, z: Float[Tensor, "B A"], positive: bool) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """`RefitCodes.normal` and `.relative_error`."""
        slope, lengths = self.slope(z), self.x.norm(dim=1)
        off = torch.where(z == 0, slope.clamp(min=0), slope.abs()) if positive else slope.abs()
        worst = torch.cat([off, torch.zeros_like(lengths)[:, None]], 1).amax(1)
        found = (part / lengths.where(lengths > 0, 1) for part in (worst, self.rest(z).norm(dim=1)))
        normal, error = found
        return normal, error
