"""Spherical 2-means of many clusters at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ierf.concepts.kmeans.segments import row_products, sums

_STEPS = 1 << 20
"""Distances `1 − cos` count in whole steps of this part of 1: directions less than one step apart are the same."""
_ROUNDING = 1e-5
"""More than what rounding makes of a product of vectors no longer than 2."""


@dataclass(frozen=True)
class Halves:
    """Clusters in two parts."""

    right: Bool[Tensor, " P"]
    """Of each row: in the second part."""
    split: Bool[Tensor, " M"]
    """Of each cluster: it has two parts; not so where all its directions are the same."""


def halve(
    units: Float[Tensor, "N C"],
    rows: Int[Tensor, " P"],
    clusters: Int[Tensor, " P"],
    draws: Int[Tensor, "2 M"],
    max_iter: int,
) -> Halves:
    """Split the clusters 0 … M−1, each on its own, by 2-means with centroids of norm 1.

    Two members are drawn to begin with, the second with a probability ∝ 1 − cos to the first (k-means++, Arthur and
    Vassilvitskii 2007). Then by turns, until nothing changes, at most `max_iter` times: each member goes where

        ⟨x, s₁/‖s₁‖ − s₀/‖s₀‖⟩ > 0,   s_h = Σ_{x in part h} x

    (to the second part if so, else to the first), and the sums follow. A cluster stays as it was where a part would
    be left empty, which only rounding can do.

    Args:
        units: vectors of norm 1.
        rows: the rows that take part, ascending; clusters: of each, every number below M occurs.
        draws: two non-negative random numbers for each cluster.
    """
    order = clusters.argsort(stable=True)
    sizes = clusters.bincount(minlength=draws.shape[1])
    starts = sizes.cumsum(0) - sizes
    first = rows[order[starts + draws[0] % sizes]]
    cosines = row_products(units, rows, clusters, units[first])
    distances = ((1 - cosines) * _STEPS).floor().clamp_min(0).long()[order]
    running = distances.cumsum(0)
    before = running[starts] - distances[starts]
    total = running[starts + sizes - 1] - before
    split = total > 0
    drawn = torch.searchsorted(running, before + draws[1] % total.clamp_min(1), right=True)
    second = rows[order[torch.where(split, drawn, starts)]]
    moving = split[clusters].nonzero()[:, 0]
    right = torch.zeros_like(clusters, dtype=torch.bool)
    right[moving] = _settled(units, rows[moving], clusters[moving], units[second] - units[first], max_iter)
    return Halves(right, split)


def _settled(
    units: Float[Tensor, "N C"],
    rows: Int[Tensor, " P"],
    clusters: Int[Tensor, " P"],
    axes: Float[Tensor, "M C"],
    max_iter: int,
) -> Bool[Tensor, " P"]:
    """The part of each row when nothing changes any more; `axes` are the first differences of the two centroids.

    A vector of norm 1 changes sides only when the axis has moved by as much as their last product was. Until then it
    is not looked at: the bound of Hamerly (2010), for two centroids.
    """
    products = row_products(units, rows, clusters, axes)
    right, bounds = products > 0, products.abs() - _ROUNDING
    parts = units.new_zeros(2 * len(axes), units.shape[1])
    found, added = sums(units, rows, 2 * clusters + right)
    parts[found] = added
    members = (2 * clusters + right).bincount(minlength=len(parts)).view(-1, 2)
    parts, path, active = parts.view(-1, 2, units.shape[1]), units.new_zeros(len(axes)), members.any(1).nonzero()[:, 0]
    for _ in range(max_iter):
        centroids = normalize(parts[active], dim=2)
        new = centroids[:, 1] - centroids[:, 0]
        path[active] += (new - axes[active]).norm(dim=1)
        axes[active] = new
        way = torch.full_like(path, -torch.inf).index_copy_(0, active, path[active])[clusters]
        near = (bounds <= way).nonzero()[:, 0]
        products = row_products(units, rows[near], clusters[near], axes)
        bounds[near] = products.abs() - _ROUNDING + way[near]
        moved = near[(products > 0) != right[near]]
        gain = torch.zeros_like(members[:, 0]).index_add_(0, clusters[moved], 1 - 2 * right[moved].long())
        after = members + torch.stack([-gain, gain], 1)
        moved = moved[(after > 0).all(1)[clusters[moved]]]
        if not len(moved):
            break
        right[moved] = ~right[moved]
        active, added = sums(units, rows[moved], clusters[moved], 2 * right[moved].to(units) - 1)
        parts[active] += torch.stack([-added, added], 1)
        members[active] = after[active]
    return right
