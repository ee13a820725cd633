"""How far the classes' scores can be followed through the nodes of a graph, and which of them to keep for it.

Between two layers, `shares[s, t]` is the part of target t's score that comes from source s: `|value|` over the sum of
all sources' `|value|`, so that a column of shown sources sums to 1 minus what is not shown. The classes share a flow
of 1; each node hands its flow down in these parts. This is the influence of attribution graphs, for layers in a row.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Shares = Float[Tensor, "S T"]


def influences(shares: Sequence[Shares], start: Float[Tensor, " T"]) -> list[Float[Tensor, " S"]]:
    """The flow that reaches each node, layer by layer from the classes (`start`) down: `f_s = Σ_t shares[s, t] f_t`.

    A pair's sources are the next pair's targets, in the same order; the last sources may lack there: residuals, from
    which nothing is followed further.
    """
    flows = [start]
    for pair in shares:
        flows.append(pair @ flows[-1][: pair.shape[1]])
    return flows


def edge_flows(shares: Sequence[Shares], start: Float[Tensor, " T"]) -> list[Shares]:
    """The flow along each edge, `shares[s, t] f_t`; those of a target sum to its flow minus what is not shown."""
    flows = influences(shares, start)
    return [pair * flow[: pair.shape[1]] for pair, flow in zip(shares, flows, strict=False)]


def strongest(values: Float[Tensor, "*any"], share: float) -> Bool[Tensor, "*any"]:
    """The fewest of these non-negative values that sum to at least `share` of the whole; zeros are never kept."""
    flat = values.flatten()
    order = flat.argsort(descending=True, stable=True)
    before = flat[order].double().cumsum(0) - flat[order].double()
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[order] = before < share * flat.double().sum()
    return (kept & (flat > 0)).view(values.shape)


def prune(shares: Sequence[Shares], start: Float[Tensor, " T"], keep: float, concepts: Sequence[int]) -> list[Shares]:
    """The same shares with weak edges set to 0: of each pair the fewest edges that carry `keep` of its flow.

    Only the first `concepts[i]` sources of pair i count and are cut: residuals behind them keep all of their edges,
    as what they take is not up for choice. From the classes down, so that what was cut above no longer counts below.
    """
    flow, kept = start, []
    for pair, count in zip(shares, concepts, strict=True):
        carried = pair * flow[: pair.shape[1]]
        here = strongest(carried[:count], keep)
        kept.append(torch.cat([pair[:count] * here, pair[count:]]))
        flow = kept[-1] @ flow[: pair.shape[1]]
    return kept
