"""The edges between each layer and the next (Eq. 14), where they act, and whether chance would reach them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.graph.building.encoding import EncodedLayer
from ierf.graph.building.layer_attribution import Attributor, EncodedPhotograph, LayerAttribution
from ierf.graph.building.nodes import NodeSelection
from ierf.graph.concept_graph import DRAWS
from ierf.graph.elements import LOGITS, RESIDUAL, Cells, Edge, node_id

if TYPE_CHECKING:
    from ierf.concepts import ConceptTree


def random_concepts(atoms: Float[Tensor, "K C"], draws: int = DRAWS, seed: int = 0) -> Float[Tensor, "R C"]:
    """Unit vectors along `draws` atoms of the dictionary, drawn with replacement, each with a random sign.

    Directions of the data, not of the whole space: against uniformly random directions almost any concept looks
    special, as all concepts of a layer share a few directions.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(atoms), (draws,), generator=generator).to(atoms.device)
    signs = torch.randint(2, (draws, 1), generator=generator).to(atoms) * 2 - 1
    return signs * torch.nn.functional.normalize(atoms[drawn], dim=1)


def p_values(
    values: Float[Tensor, "Q T"], sensitivity: Float[Tensor, "Q T C"], norms: Float[Tensor, " Q"], random: Tensor
) -> Float[Tensor, "Q T"]:
    """For each edge `(1 + #{r : |h · r̂_r ‖v_q‖| ≥ |value|}) / (1 + R)`, with the random unit vectors `r̂` (R, C).

    `sensitivity` is `h_qt = Σ_p u_pq ∫ ∂S_t/∂X̂_p dα`, so `value = ⟨h_qt, v_q⟩`: the null puts another concept of the
    same norm in the place of `v_q`, with the same coefficients at the same positions, and leaves the path as it is.
    """
    drawn = (sensitivity @ random.to(sensitivity).T).abs() * norms.to(sensitivity)[:, None, None]
    reached: Int[Tensor, "Q T"] = (drawn >= values.abs()[..., None]).sum(-1)
    return (1 + reached) / (1 + len(random))


def alike(spans: Int[Tensor, "M 2"], node: int) -> Int[Tensor, " N"]:
    """Nodes of a tree apart from this one with half to twice as many leaves; the nearest in size if there are none.

    spans: `ierf.concepts.ConceptTree.spans`.
    """
    start, stop = spans.unbind(1)
    size = stop - start
    apart = (start >= stop[node]) | (stop <= start[node])
    close = apart & (2 * size >= size[node]) & (size <= 2 * size[node])
    if not bool(close.any()):
        away = (size - size[node]).abs().masked_fill(~apart, len(spans))
        close = apart & (away == away.min())
    return close.nonzero()[:, 0]


def random_groups(
    tree: "ConceptTree", nodes: Sequence[int], members: Sequence[Sequence[int]], draws: int, seed: int
) -> list[Int[Tensor, "D m"]]:
    """For each group, `draws` times, a concept in the place of each of its members: all from one random subtree.

    The subtree lies apart from the group's own node and is about as large (`alike`), so that what is drawn
    is a group of its kind. Nothing for a group that is the whole tree.
    """
    generator = torch.Generator().manual_seed(seed)
    found, order, spans = [], tree.order, tree.spans
    for node, own in zip(nodes, members, strict=True):
        others = alike(spans, node)
        if not len(others):
            found.append(order.new_empty(0, len(own)))
            continue
        start, stop = spans[others[torch.randint(len(others), (draws,), generator=generator)]].unbind(1)
        place = start[:, None] + torch.rand(draws, len(own), generator=generator) * (stop - start)[:, None]
        found.append(order[place.long()])
    return found


def drawn_values(
    sensitivity: Float[Tensor, "m T C"],
    norms: Float[Tensor, " m"],
    atoms: Float[Tensor, "K C"],
    drawn: Int[Tensor, "D m"],
) -> Float[Tensor, "D T"]:
    """What an edge would be worth if the drawn concepts, at the lengths of the members, stood in their places.

    `sensitivity` is `h_kt = Σ_p u_pk ∫ ∂S_t/∂x_p dα` of each member, so that the group's value is `Σ_k ⟨h_kt, v_k⟩`.
    """
    directions = F.normalize(atoms[drawn.to(atoms.device)], dim=-1) * norms.to(atoms)[:, None]
    return torch.einsum("mtc,dmc->dt", sensitivity, directions.to(sensitivity))


def p_values_of_groups(values: Float[Tensor, "N T"], drawn: Float[Tensor, "D N T"]) -> Float[Tensor, "N T"]:
    """`(1 + #{d : |drawn| ≥ |value|}) / (1 + D)`."""
    reached: Int[Tensor, "N T"] = (drawn.abs() >= values.abs()).sum(0)
    return (1 + reached) / (1 + len(drawn))


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
