"""What is explained at the target layer: a number for each target, from PFVs or logits (Eq. 13; GIG, Eq. 4 and 7)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError

_TINY = 1e-6
"""PFVs shorter than this share of the longest have no direction."""
_NOTHING = 1e-30
"""A length to divide zero by."""


class Score(Protocol):
    """`S(y)` for each target, from the PFVs y (B, P, C) of a layer or from logits (B, K)."""

    def __call__(self, y: Float[Tensor, "B ..."], /) -> Float[Tensor, "B T"]: ...

    def slope(self, y: Float[Tensor, "B ..."], before: Float[Tensor, "B ..."] | None, /) -> Float[Tensor, "T B ..."]:
        """`g` with `⟨g, y − before⟩ = S(y) − S(before)`; without `before`, `⟨g, y − shift⟩ = S(y)`."""
        ...


@dataclass(frozen=True, eq=False)
class Alignment:
    """`Σ_i u_it cos(y_i − shift, v_t)` (arXiv 2605.00474, Eq. 13); atoms are directions behind the shift.

    A PFV without length has no direction and adds nothing.
    """

    atoms: Float[Tensor, "T C"]
    codes: Float[Tensor, "P T"]
    """`u_it` of the image's own target layer."""
    shift: Float[Tensor, " C"] | None = None

    def __call__(self, y: Float[Tensor, "B P C"], /) -> Float[Tensor, "B T"]:
        return (cosines(y, self.atoms, self.shift) * self.codes.to(y)).sum(1)

    def slope(self, y: Float[Tensor, "B P C"], before: Float[Tensor, "B P C"] | None, /) -> Float[Tensor, "T B P C"]:
        """Without `before` the length is a constant: `u v̂ / ‖y‖`."""
        x, unit = _shifted(y, self.shift), _unit(self.atoms, y)[:, None, None]
        if before is None:
            along = _inverse_length(x) * unit
        else:
            along = _secant_of_cosine(x, _shifted(before, self.shift), unit)
        return self.codes.to(y).T[:, None, :, None] * along


@dataclass(frozen=True, eq=False)
class GroupAlignment:
    """`Σ_i ⟨x̃_i / ‖x̃_i‖, d_gi⟩` with `x̃ = y − shift` and a direction of its own at each position.

    With `d_gi = Σ_{t∈g} u_it v_t / ‖v_t‖` it is the sum of the members' `Alignment`, for one backward pass.
    """

    directions: Float[Tensor, "G P C"]
    shift: Float[Tensor, " C"] | None = None

    def __call__(self, y: Float[Tensor, "B P C"], /) -> Float[Tensor, "B G"]:
        x = _shifted(y, self.shift)
        return (x * _inverse_length(x)).flatten(1) @ self.directions.to(y).flatten(1).T

    def slope(self, y: Float[Tensor, "B P C"], before: Float[Tensor, "B P C"] | None, /) -> Float[Tensor, "G B P C"]:
        """Without `before` the length is a constant."""
        x, directions = _shifted(y, self.shift), self.directions.to(y)[:, None]
        if before is None:
            return directions * _inverse_length(x)
        return _secant_of_cosine(x, _shifted(before, self.shift), directions)


@dataclass(frozen=True, eq=False)
class Relay:
    """`Σ_i ⟨g_ti, y_i − shift⟩`: a score further on, written as the slopes that integrated gradients found for it here.

    Followed from layer to layer it carries a class's logit down, at the cost of one pair of layers each.
    """

    slopes: Float[Tensor, "T P C"]
    shift: Float[Tensor, " C"]

    def __call__(self, y: Float[Tensor, "B P C"], /) -> Float[Tensor, "B T"]:
        return _shifted(y, self.shift).flatten(1) @ self.slopes.to(y).flatten(1).T

    def slope(self, y: Float[Tensor, "B P C"], before: Float[Tensor, "B P C"] | None, /) -> Float[Tensor, "T B P C"]:
        """The slopes themselves."""
        return self.slopes.to(y)[:, None].expand(-1, *y.shape)


@dataclass(frozen=True, eq=False)
class Together:
    """Several scores of one layer, one after the other, so that they share a forward pass."""

    scores: Sequence[Score]

    def __call__(self, y: Float[Tensor, "B P C"], /) -> Float[Tensor, "B T"]:
        return torch.cat([score(y) for score in self.scores], 1)

    def slope(self, y: Float[Tensor, "B P C"], before: Float[Tensor, "B P C"] | None, /) -> Float[Tensor, "T B P C"]:
        """Those of each."""
        return torch.cat([score.slope(y, before) for score in self.scores])


@dataclass(frozen=True, eq=False)
class Projection:
    """`Σ_i ⟨y_i − shift, v_t / ‖v_t‖⟩` (GIG, Eq. 4)."""

    atoms: Float[Tensor, "T C"]
    shift: Float[Tensor, " C"] | None = None

    def __call__(self, y: Float[Tensor, "B P C"], /) -> Float[Tensor, "B T"]:
        return projections(y, self.atoms, self.shift).sum(1)

    def slope(self, y: Float[Tensor, "B P C"], before: Float[Tensor, "B P C"] | None, /) -> Float[Tensor, "T B P C"]:
        """`v̂` at each position."""
        return _unit(self.atoms, y)[:, None, None].expand(-1, *y.shape)


@dataclass(frozen=True)
class Logits:
    """The logits of some classes."""

    classes: Sequence[int]

    def __call__(self, y: Float[Tensor, "B K"], /) -> Float[Tensor, "B T"]:
        return y[:, list(self.classes)]

    def slope(self, y: Float[Tensor, "B K"], before: Float[Tensor, "B K"] | None, /) -> Float[Tensor, "T B K"]:
        """1 at the class."""
        own = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)[list(self.classes)]
        return own[:, None].expand(-1, *y.shape)


@dataclass(frozen=True)
class Probabilities:
    """The probabilities of some classes (GIG, Eq. 7)."""

    classes: Sequence[int]

    def __call__(self, y: Float[Tensor, "B K"], /) -> Float[Tensor, "B T"]:
        return y.softmax(1)[:, list(self.classes)]

    def slope(self, y: Float[Tensor, "B K"], before: Float[Tensor, "B K"] | None, /) -> Float[Tensor, "T B K"]:
        """The gradient `p_c (δ − p)` halfway, which is neither a secant nor makes `y` add up to a probability."""
        p = (y if before is None else (y + before) / 2).softmax(1)
        return p[:, list(self.classes)].T[..., None] * (Logits(self.classes).slope(y, before) - p)


def cosines(
    y: Float[Tensor, "B P C"], atoms: Float[Tensor, "T C"], shift: Float[Tensor, " C"] | None = None
) -> Float[Tensor, "B P T"]:
    """`cos(y_i − shift, v_t)`; 0 for a PFV without length, `‖y‖ ≤ 1e-6 · max ‖y‖` over its sample's positions."""
    x = _shifted(y, shift)
    cosine: Tensor = projections(x, atoms) * _inverse_length(x)
    return cosine


def projections(
    y: Float[Tensor, "B P C"], atoms: Float[Tensor, "T C"], shift: Float[Tensor, " C"] | None = None
) -> Float[Tensor, "B P T"]:
    """`⟨y_i − shift, v_t / ‖v_t‖⟩`. Raises `IerfError` for an atom without length or of other channels."""
    along: Tensor = _shifted(y, shift) @ _unit(atoms, y).T
    return along


def _secant_of_cosine(
    x: Float[Tensor, "B P C"], x0: Float[Tensor, "B P C"], direction: Float[Tensor, "T 1 ... C"]
) -> Float[Tensor, "T B P C"]:
    """The slope of `⟨d, x / ‖x‖⟩` from `x0` to `x`, exactly.

    With n = 1 / ‖x‖ and bars for means of both ends it changes by `⟨d, n̄ Δx + x̄ Δn⟩`, where
    `Δn = −n n₀ ⟨2x̄, Δx⟩ / (‖x‖ + ‖x₀‖)`.
    """
    n, n0, twice = _inverse_length(x), _inverse_length(x0), x + x0
    lengths = (x.norm(dim=-1, keepdim=True) + x0.norm(dim=-1, keepdim=True)).clamp_min(_NOTHING)
    turn = (direction * twice).sum(-1, keepdim=True) / 2 * (n * n0 / lengths)
    slope: Tensor = (n + n0) / 2 * direction - turn * twice
    return slope


def _shifted(y: Tensor, shift: Tensor | None) -> Tensor:
    return y if shift is None else y - shift.to(y)


def _unit(atoms: Float[Tensor, "T C"], y: Float[Tensor, "*batch C"]) -> Float[Tensor, "T C"]:
    if atoms.ndim != 2 or atoms.shape[1] != y.shape[-1]:
        raise IerfError(f"the target layer has {y.shape[-1]} channels, the target's atoms are {tuple(atoms.shape)}")
    length = atoms.norm(dim=1, keepdim=True)
    if not bool((length > 0).all()):
        raise IerfError("a target concept is a vector other than zero; its atoms hold one without length")
    unit: Tensor = (atoms / length).to(y)
    return unit


def _inverse_length(x: Float[Tensor, "B P C"]) -> Float[Tensor, "B P 1"]:
    """`1 / ‖x‖`; 0 for a vector without length."""
    length = x.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        dead = length <= _TINY * length.amax(1, keepdim=True)
    inverse: Tensor = 1 / length.masked_fill(dead, torch.inf)
    return inverse
