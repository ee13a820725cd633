"""Spherical 2-means of many clusters at once, the same on every device (GIG, Appendix B)."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ierf.muted import muted

GOLDEN, _FIRST, _SECOND = (n - (1 << 64) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_AT_ONCE = 1 << 10
"""Rows that are held in float64 at once."""
_TIE = 2.0**-20
"""Directions whose distance `1 − cos` is less are the same, and products that are no larger are no side."""
_ROUNDING = 1e-5
"""More than what rounding makes of a product of vectors no longer than 2."""


def scrambled(keys: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """SplitMix64 (Steele, Lea and Flood 2014): numbers that look random and belong to a place rather than to a turn.

    From any numbers, modulo 2⁶⁴ (int64 holds them, half of them as negative ones).
    """
    mixed = keys + GOLDEN
    mixed = (mixed ^ moved_right(mixed, 30)) * _FIRST
    mixed = (mixed ^ moved_right(mixed, 27)) * _SECOND
    return mixed ^ moved_right(mixed, 31)


def moved_right(numbers: Int[Tensor, "*shape"], bits: int) -> Int[Tensor, "*shape"]:
    """The 64 bits moved right, with zeros from the left."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def row_products(
    x: Float[Tensor, "N C"], rows: Int[Tensor, " P"], groups: Int[Tensor, " P"], vectors: Float[Tensor, "M C"]
) -> Float[Tensor, " P"]:
    """`⟨x_r, v_g⟩` of each row and the vector of its group; `rows` ascend.

    The matrix product `x vᵀ` at one column per row, which reads each row of `x` once.
    """
    ends = torch.zeros(len(x) + 1, dtype=torch.long, device=x.device)
    ends[rows + 1] = 1
    with muted():  # torch says once that sparse tensors are in beta
        wanted = torch.sparse_csr_tensor(
            ends.cumsum(0), groups, x.new_zeros(len(rows)), (len(x), len(vectors)), check_invariants=False
        )
    products: Tensor = torch.sparse.sampled_addmm(wanted, x, vectors.T, beta=0).values()
    return products


def sums(
    x: Float[Tensor, "N C"],
    rows: Int[Tensor, " P"],
    groups: Int[Tensor, " P"],
    weights: Float[Tensor, " P"] | None = None,
) -> tuple[Int[Tensor, " M"], Float[Tensor, "M C"]]:
    """The groups that occur, ascending, and `Σ_r w_r x_r` of each in float64, in the order of `rows` on every device.

    A float32 sum of many rows depends in its fifth digit on the order of the additions, which is enough to move a
    vector across the border of two clusters.
    """
    ordered, order = groups.sort(stable=True)
    found, places = torch.unique_consecutive(ordered, return_inverse=True)
    added = torch.zeros(len(found), x.shape[1], dtype=torch.float64, device=x.device)
    everything = torch.arange(len(order), device=x.device)
    for part in torch.split(everything, _AT_ONCE):
        taken = order[part]
        bags, counts = torch.unique_consecutive(places[part], return_counts=True)
        added[bags] += torch.nn.functional.embedding_bag(
            everything[: len(part)],
            x[rows[taken]].double(),
            counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=None if weights is None else weights[taken].double(),
        )
    return found, added


@dataclass(frozen=True, eq=False)
class Directions:
    """`(x − shift) / ‖x − shift‖` of each row."""

    vectors: Float[Tensor, "N C"]
    shift: Float[Tensor, " C"]

    @cached_property
    def units(self) -> Float[Tensor, "N C"]:
        """Of all rows, in the precision of the vectors; 0 for a row that equals the shift."""
        return normalize(self.vectors - self.shift)

    @cached_property
    def norms(self) -> Float[Tensor, " N"]:
        """`‖x − shift‖` of all rows, in float64; infinity for a row that equals the shift."""
        parts = torch.split(self.vectors, _AT_ONCE)
        found = torch.cat([(part.double() - self.shift.double()).norm(dim=1) for part in parts])
        return found.where(found > 0, torch.inf)

    def exact(self, rows: Int[Tensor, " P"]) -> Float[Tensor, "P C"]:
        """Of some rows, in float64."""
        return (self.vectors[rows].double() - self.shift.double()) / self.norms[rows, None]

    def sums(
        self, rows: Int[Tensor, " P"], groups: Int[Tensor, " P"], weights: Float[Tensor, " P"] | None = None
    ) -> tuple[Int[Tensor, " M"], Float[Tensor, "M C"]]:
        """`Σ_r w_r (x_r − shift) / ‖x_r − shift‖` of each group, in float64, as `sums` gives them."""
        scaled = (1 if weights is None else weights) / self.norms[rows]
        found, added = sums(self.vectors, rows, groups, scaled)
        if not bool(self.shift.any()):
            return found, added
        places = torch.searchsorted(found, groups)
        total = scaled.new_zeros(len(found)).index_add_(0, places, scaled)
        return found, added - total[:, None] * self.shift.double()


@dataclass(frozen=True)
class Halves:
    """Clusters in two parts."""

    right: Bool[Tensor, " P"]
    """Of each row: in the second part."""
    split: Bool[Tensor, " M"]
    """Of each cluster: it has two parts; not so where all its directions are the same."""


def halve(
    directions: Directions,
    rows: Int[Tensor, " P"],
    clusters: Int[Tensor, " P"],
    draws: Int[Tensor, "2 M"],
    max_iter: int,
    tol: float,
) -> Halves:
    """Split the clusters 0 … M−1, each on its own, by 2-means with centroids of norm 1.

    Two members are drawn to begin with, the second with a probability ∝ 1 − cos to the first (k-means++, Arthur and
    Vassilvitskii 2007). Then by turns, until no more than `tol` of the cluster's members change, at most `max_iter`
    times: each member goes where

        ⟨x, s₁/‖s₁‖ − s₀/‖s₀‖⟩ > 2⁻²⁰,   s_h = Σ_{x in part h} x

    (to the second part if so, else to the first), and the sums follow. The threshold takes ties, which whole numbers
    and repeated vectors have, to the same side however the products are rounded; within 10⁻⁵ of it they are computed
    in float64. A cluster stays as it was where a part would
    be left empty, which only rounding can do.

    Every row has a number of its own, `E_r = −log u_r` with `u_r` of the cluster's key and the row: the first member is
    the one with the smallest E_r, the second the one with the smallest `E'_r / (1 − cos_r)`, which are such draws
    (Efraimidis and Spirakis 2006). A row more or less, or another rounding, changes a draw only if it is about that
    row, or two numbers agree to the last digits; a draw from running sums would be another one altogether.

    Args:
        directions: of all rows.
        rows: the rows that take part, ascending; clusters: of each, every number below M occurs.
        draws: two keys for each cluster.
    """
    count = draws.shape[1]
    first = rows[_smallest(_exponential(draws[0], rows, clusters), clusters, count)]
    distances = 1 - row_products(directions.units, rows, clusters, directions.units[first]).double()
    apart = distances >= _TIE
    split = torch.zeros(count, dtype=torch.bool, device=rows.device).index_fill_(0, clusters[apart], True)
    waits = _exponential(draws[1], rows, clusters) / distances.masked_fill(~apart, 0)
    second = torch.where(split, rows[_smallest(waits, clusters, count)], first)
    moving = split[clusters].nonzero()[:, 0]
    right = torch.zeros_like(clusters, dtype=torch.bool)
    axes = directions.exact(second) - directions.exact(first)
    right[moving] = _settled(directions, rows[moving], clusters[moving], axes, max_iter, tol)
    return Halves(right, split)


def _exponential(keys: Int[Tensor, " M"], rows: Int[Tensor, " P"], clusters: Int[Tensor, " P"]) -> Float[Tensor, " P"]:
    """`−log u` of each row, with u in (0, 1) from the row-th number of SplitMix64 begun at the cluster's key."""
    mixed = scrambled(keys[clusters] + rows * GOLDEN)
    return -((moved_right(mixed, 11).double() + 0.5) * 2.0**-53).log()


def _smallest(values: Float[Tensor, " P"], clusters: Int[Tensor, " P"], count: int) -> Int[Tensor, " M"]:
    """Where the smallest value of each cluster is, the first of equal ones."""
    least = values.new_full((count,), torch.inf).scatter_reduce_(0, clusters, values, "amin")
    places = (values == least[clusters]).nonzero()[:, 0]
    return places.new_full((count,), len(values)).scatter_reduce_(0, clusters[places], places, "amin")


def _settled(
    directions: Directions,
    rows: Int[Tensor, " P"],
    clusters: Int[Tensor, " P"],
    axes: Float[Tensor, "M C"],
    max_iter: int,
    tol: float,
) -> Bool[Tensor, " P"]:
    """The part of each row when (nearly) nothing changes any more; `axes` are the first differences of the centroids.

    A vector of norm 1 changes sides only when the axis has moved by as much as their last product was. Until then it
    is not looked at: the bound of Hamerly (2010), for two centroids.
    """
    products = _products(directions, rows, clusters, axes)
    right, bounds = products > _TIE, products.abs() - _ROUNDING
    parts = axes.new_zeros(2 * len(axes), axes.shape[1])
    found, added = directions.sums(rows, 2 * clusters + right)
    parts[found] = added
    members = (2 * clusters + right).bincount(minlength=len(parts)).view(-1, 2)
    parts, path, active = parts.view(-1, 2, axes.shape[1]), axes.new_zeros(len(axes)), members.any(1).nonzero()[:, 0]
    enough = tol * members.sum(1)
    for _ in range(max_iter):
        centroids = normalize(parts[active], dim=2)
        new = centroids[:, 1] - centroids[:, 0]
        path[active] += (new - axes[active]).norm(dim=1)
        axes[active] = new
        way = torch.full_like(path, -torch.inf).index_copy_(0, active, path[active])[clusters]
        near = (bounds <= way).nonzero()[:, 0]
        products = _products(directions, rows[near], clusters[near], axes)
        bounds[near] = products.abs() - _ROUNDING + way[near]
        moved = near[(products > _TIE) != right[near]]
        gain = torch.zeros_like(members[:, 0]).index_add_(0, clusters[moved], 1 - 2 * right[moved].long())
        after = members + torch.stack([-gain, gain], 1)
        moved = moved[(after > 0).all(1)[clusters[moved]]]
        if not len(moved):
            break
        right[moved] = ~right[moved]
        active, added = directions.sums(rows[moved], clusters[moved], 2 * right[moved].double() - 1)
        parts[active] += torch.stack([-added, added], 1)
        members[active] = after[active]
        active = active[clusters[moved].bincount(minlength=len(axes))[active] > enough[active]]
    return right


def _products(
    directions: Directions, rows: Int[Tensor, " P"], clusters: Int[Tensor, " P"], axes: Float[Tensor, "M C"]
) -> Float[Tensor, " P"]:
    """`⟨x_r, axis of its cluster⟩`, in float64 where rounding could decide on the side."""
    products = row_products(directions.units, rows, clusters, axes.to(directions.units)).double()
    close = (products.abs() < _ROUNDING).nonzero()[:, 0]
    products[close] = (directions.exact(rows[close]) * axes[clusters[close]]).sum(1)
    return products
