"""The edges between each layer and the next, as a mean over photographs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.graph.building.acting import Places, acting
from ierf.graph.building.attributing import Attributed, Attributing
from ierf.graph.building.choosing import Choice
from ierf.graph.building.importances import Photograph
from ierf.graph.building.null import p_values
from ierf.graph.building.taking import Taken
from ierf.graph.structure.edge import Edge
from ierf.graph.structure.node import LOGITS, RESIDUAL, node_id


@dataclass(frozen=True, eq=False)
class Pair:
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
    places: Places

    def add(self, other: "_Means", share: float) -> None:
        self.values = self.values * (1 - share) + other.values * share
        self.totals = self.totals * (1 - share) + other.totals * share
        self.sensitivity = self.sensitivity * (1 - share) + other.sensitivity * share
        self.completeness_error = max(self.completeness_error, other.completeness_error)


def joined(
    work: Attributing,
    photographs: Iterable[Photograph],
    choices: Mapping[str, Choice],
    random_of: Mapping[str, Float[Tensor, "R C"]],
) -> list[Pair]:
    """The edges between chosen concepts of consecutive layers, and from the last layer to the classes.

    `random_of` each layer: the unit vectors that its edges are tested against.
    """
    ways = [*pairwise(work.layers), (work.layers[-1], None)]
    found: dict[str, _Means] = {}
    for number, (_, photo) in enumerate(photographs, 1):
        for a, b in ways:
            work.progress.begin(f"edges from {a} to {b or 'the classes'}")
            if b is not None and not choices[b].all:
                continue
            here = _means(
                work.to_classes(photo[a]) if b is None else work.to_concepts(photo[a], photo[b], choices[b].all),
                photo[a],
                choices[a].all,
                work.mapped,
            )
            if a in found:
                found[a].add(here, 1 / number)
            else:
                found[a] = here
    targets = {
        a: [node_id(LOGITS, c) for c in work.classes] if b is None else [node_id(b, t) for t in choices[b].all]
        for a, b in ways
    }
    return [_pair(work, a, choices[a].all, targets[a], found[a], random_of[a]) for a, _ in ways if a in found]


def _means(found: Attributed, taken: Taken, chosen: Sequence[int], mapped: bool) -> _Means:
    some = torch.tensor(chosen, dtype=torch.long, device=taken.pfvs.device)
    return _Means(
        torch.cat([found.values[:, some].T, found.residual[None]]).cpu(),
        (found.values.abs().sum(1) + found.residual.abs()).cpu(),
        torch.einsum("pq,tpc->qtc", taken.columns(some), found.slopes).cpu(),
        found.completeness_error,
        acting(taken, found.slopes, chosen) if mapped else {},
    )


def _pair(
    work: Attributing,
    source: str,
    chosen: Sequence[int],
    targets: Sequence[str],
    means: _Means,
    random: Float[Tensor, "R C"],
) -> Pair:
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
    return Pair(source, tuple(edges), means.completeness_error)
