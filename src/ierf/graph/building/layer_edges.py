"""The edges between each layer and the next (Eq. 14), where they act, and whether chance would reach them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.graph.building.encoding import EncodedLayer
from ierf.graph.building.layer_attribution import Attributor, EncodedPhotograph, LayerAttribution
from ierf.graph.building.nodes import NodeSelection
from ierf.graph.building.significance import p_values
from ierf.graph.elements import LOGITS, RESIDUAL, Cells, Edge, node_id

EDGE_MAP_SIDE = 14
"""Cells on a side, at most: there are far more edges than nodes."""

EdgeMaps = dict[tuple[int, int], Cells]
"""By the places of source and target in their rows."""


@dataclass(frozen=True, eq=False)
class LayerEdges:
    """The edges out of a layer, and how exactly they add up."""

    source: str
    edges: tuple[Edge, ...]
    completeness_error: float


@dataclass(eq=False)
class _Means:
    """Means over photographs for one pair of layers; the residual is the last source."""

    values: Float[Tensor, "Q+1 T"]
    totals: Float[Tensor, " T"]
    sensitivity: Float[Tensor, "Q T C"]
    completeness_error: float
    places: EdgeMaps

    def add(self, other: "_Means", share: float) -> None:
        self.values = self.values * (1 - share) + other.values * share
        self.totals = self.totals * (1 - share) + other.totals * share
        self.sensitivity = self.sensitivity * (1 - share) + other.sensitivity * share
        self.completeness_error = max(self.completeness_error, other.completeness_error)


def layer_edges(
    work: Attributor,
    photographs: Iterable[EncodedPhotograph],
    selected: Mapping[str, NodeSelection],
    random_of: Mapping[str, Float[Tensor, "R C"]],
) -> list[LayerEdges]:
    """The edges between chosen concepts of consecutive layers, and from the last layer to the classes.

    `random_of` each layer: the unit vectors that its edges are tested against.
    """
    ways = [*pairwise(work.layers), (work.layers[-1], None)]
    found: dict[str, _Means] = {}
    for number, (_, photo) in enumerate(photographs, 1):
        for a, b in ways:
            work.progress.begin(f"edges from {a} to {b or 'the classes'}")
            if b is not None and not selected[b].all:
                continue
            here = _means(
                work.to_classes(photo[a]) if b is None else work.to_concepts(photo[a], photo[b], selected[b].all),
                photo[a],
                selected[a].all,
                work.mapped,
            )
            if a in found:
                found[a].add(here, 1 / number)
            else:
                found[a] = here
    targets = {
        a: [node_id(LOGITS, c) for c in work.classes] if b is None else [node_id(b, t) for t in selected[b].all]
        for a, b in ways
    }
    return [_pair(work, a, selected[a].all, targets[a], found[a], random_of[a]) for a, _ in ways if a in found]


def _means(found: LayerAttribution, encoded: EncodedLayer, chosen: Sequence[int], mapped: bool) -> _Means:
    some = torch.tensor(chosen, dtype=torch.long, device=encoded.pfvs.device)
    return _Means(
        torch.cat([found.values[:, some].T, found.residual[None]]).cpu(),
        (found.values.abs().sum(1) + found.residual.abs()).cpu(),
        torch.einsum("pq,tpc->qtc", encoded.columns(some), found.slopes).cpu(),
        found.completeness_error,
        edge_maps(encoded, found.slopes, chosen) if mapped else {},
    )


def _pair(
    work: Attributor,
    source: str,
    chosen: Sequence[int],
    targets: Sequence[str],
    means: _Means,
    random: Float[Tensor, "R C"],
) -> LayerEdges:
    atoms = work.bank.layer(source).atoms[list(chosen)].cpu()
    p = p_values(means.values[:-1], means.sensitivity, atoms.norm(dim=1), random)
    largest = float(means.values.abs().max())
    names = [node_id(source, q) for q in (*chosen, RESIDUAL)]
    edges = []
    for s, name in enumerate(names):
        for t, target in enumerate(targets):
            value, total = float(means.values[s, t]), float(means.totals[t])
            if value:
                chance = float(p[s, t]) if s < len(chosen) else None
                where = means.places.get((s, t))
                edges.append(Edge(name, target, value, abs(value) / largest, abs(value) / total, chance, where))
    return LayerEdges(source, tuple(edges), means.completeness_error)


def edge_maps(encoded: EncodedLayer, slopes: Float[Tensor, "T P C"], chosen: Sequence[int]) -> EdgeMaps:
    """`AT(u_pq, S_t) = u_pq ⟨∫ ∂S_t/∂X̂_p dα, v_q⟩` of each chosen concept and target, over rows and columns."""
    some = torch.tensor(chosen, dtype=torch.long, device=encoded.pfvs.device)
    along = torch.einsum("tpc,qc->qtp", slopes, encoded.concepts.atoms.to(slopes)[some])
    values = (encoded.columns(some).T[:, None] * along).cpu()
    return {
        (q, t): Cells.of(encoded.on_map(of_edge), EDGE_MAP_SIDE)
        for q, of_source in enumerate(values)
        for t, of_edge in enumerate(of_source)
    }
