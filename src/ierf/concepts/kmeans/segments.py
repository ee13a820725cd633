"""Products and sums of rows by group, without a loop over groups and without a copy of the rows."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.muted import muted

_AT_ONCE = 1 << 10
"""Rows that are held in float64 at once."""


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
