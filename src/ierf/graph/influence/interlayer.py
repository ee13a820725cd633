"""Interlayer concept insertion and deletion: does the order of attributions tell which concepts a target needs?"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.errors import IerfError
from ierf.graph.influence.reconstruction import Reconstruction
from ierf.graph.influence.scores import cosines, projections

Strength = Callable[[Float[Tensor, "B P C"]], Float[Tensor, "B T"]]
"""How much of each target a forward pass shows, from the source layer's PFVs."""


@dataclass(frozen=True, eq=False)
class Curves:
    """A target's strength as concepts come or go, divided by its strength with all of them."""

    counts: Int[Tensor, " S"]
    """How many of the active concepts were put in, or taken out; from 0 to all."""
    deletion: Float[Tensor, "T S"]
    insertion: Float[Tensor, "T S"]


def area(counts: Int[Tensor, " S"], heights: Float[Tensor, "*batch S"]) -> Float[Tensor, " *batch"]:
    """The area under a curve over the share of concepts, by the trapezoid rule."""
    return torch.trapezoid(heights.double(), counts.double() / counts[-1], dim=-1)


def largest_cosine(
    y: Float[Tensor, "B P C"], atoms: Float[Tensor, "T C"], shift: Float[Tensor, " C"] | None = None
) -> Float[Tensor, "B T"]:
    """`max_i cos(y_i − shift, v_t)` (arXiv 2605.00474, Sec. VI-C1)."""
    return cosines(y, atoms, shift).amax(1)


def largest_projection(
    y: Float[Tensor, "B P C"], atoms: Float[Tensor, "T C"], shift: Float[Tensor, " C"] | None = None
) -> Float[Tensor, "B T"]:
    """`max_i ⟨y_i − shift, v_t / ‖v_t‖⟩` (GIG, Sec. 4.2.3)."""
    return projections(y, atoms, shift).amax(1)


def interlayer_curves(
    x: Reconstruction,
    strength: Strength,
    values: Float[Tensor, "T A"],
    *,
    most_points: int = 33,
    at_once: int = 32,
) -> Curves:
    """Source concepts deleted from X̂, or inserted into the shift alone, in descending order of `values`.

    Each target has its own order and its own forward passes, `at_once` of all targets together.

    Args:
        strength: `max_i cos` or the largest projection of the target layer, after the section.
        values: the attribution of each active concept to each target, summed over positions.
        most_points: points of a curve; all counts of concepts if there are fewer.

    Raises `IerfError` for values that are not one per target and active concept.
    """
    active = len(x.active)
    if values.ndim != 2 or values.shape[1] != active:
        raise IerfError(f"there are {active} active concepts, so values are (T, {active}), not {tuple(values.shape)}")
    counts = torch.linspace(0, active, min(active + 1, most_points)).round().long()
    ranks = values.argsort(stable=True, dim=1, descending=True).argsort(1).cpu()
    first = ranks[:, None] < counts[:, None]
    shown = torch.cat([~first, first], 1).to(x.codes.device)
    found = _strengths(x, strength, shown, at_once)
    untouched = found[:, :1]
    deleted, inserted = (found / untouched).chunk(2, 1)
    return Curves(counts, deleted, inserted)


def _strengths(x: Reconstruction, strength: Strength, shown: Tensor, at_once: int) -> Float[Tensor, "T S"]:
    """Of each target with the concepts in its own rows of `shown` (T, S, A)."""
    n_targets, n_points, _ = shown.shape
    own = torch.arange(n_targets, device=shown.device).repeat_interleave(n_points)
    found = []
    with torch.no_grad():
        for kept, target in zip(torch.split(shown.flatten(0, 1), at_once), torch.split(own, at_once), strict=True):
            found.append(strength(x.with_only(kept)).gather(1, target[:, None])[:, 0])
    return torch.cat(found).view(n_targets, n_points)
