"""The groups of a graph at every level: which are shown for a budget, and the edges between any of them, exactly."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError
from ierf.graph.elements import Cells, Edge, Node


@dataclass(frozen=True)
class LayerPair:
    """All edges from the nodes of one layer to those above it, at every level of their groups."""

    sources: tuple[str, ...]
    """Nodes' ids; the residual is the last."""
    targets: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    """For each source its edge to each target; those of a group are the sums of its halves'."""
    p_values: tuple[tuple[float, ...], ...]
    """How often random groups reach them, for each source but the residual; nothing where that was not tried."""
    maps: tuple[tuple[Cells, ...], ...]
    """Where the edges act that lead from a node without halves to one without: for each such source, in order, for each
    such target; nothing for several photographs."""


@dataclass(frozen=True)
class Hierarchy:
    """What is opened and closed: the first splits of each layer's tree, those first that show most."""

    nodes: tuple[Node, ...]
    """All but classes and residuals, layer by layer towards the pixels, a group before its halves."""
    pairs: tuple[LayerPair, ...]
    """From the classes down."""

    @cached_property
    def by_id(self) -> Mapping[str, Node]:
        """The nodes by their ids."""
        return {node.id: node for node in self.nodes}

    @cached_property
    def halves(self) -> Mapping[str, tuple[str, ...]]:
        """The ids of the two that a group is made of; nothing for a node that does not open."""
        found: dict[str, list[str]] = {node.id: [] for node in self.nodes}
        for node in self.nodes:
            if node.parent:
                found[node.parent].append(node.id)
        return {name: tuple(halves) for name, halves in found.items()}

    @property
    def most(self) -> int:
        """The budget from which on nothing more opens."""
        return max((node.opens for node in self.nodes), default=1)

    def shown(self, budget: int) -> list[str]:
        """The ids of what is shown of each layer for a budget of so many groups a row."""
        opened = {node.id for node in self.nodes if 0 < node.opens <= budget}
        return [node.id for node in self.nodes if node.id not in opened and (not node.parent or node.parent in opened)]

    def completed(self, shown: Collection[str]) -> list[str]:
        """The same with what pruning has dropped, as few groups as hold it, so that shares are of the whole again."""

        def cut(name: str) -> list[str]:
            if name in shown or not any(each in shown for each in self.below(name)):
                return [name]
            return [each for half in self.halves[name] for each in cut(half)]

        found = {each for node in self.nodes if not node.parent for each in cut(node.id)}
        return [node.id for node in self.nodes if node.id in found]

    def opened(self, shown: Collection[str], name: str) -> list[str]:
        """The same with a group's two halves in its place, and with what pruning has dropped.

        Raises `IerfError` for a node that does not open.
        """
        if name not in shown or not self.halves.get(name):
            raise IerfError(f"{name!r} is no shown group that opens; those are {', '.join(self.closed_groups(shown))}")
        return [other for each in self.completed(shown) for other in (self.halves[name] if each == name else (each,))]

    def closed(self, shown: Collection[str], name: str) -> list[str]:
        """The same with a group in the place of all that it holds, and with what pruning has dropped.

        Raises `IerfError` where it is not open.
        """
        inside = set(self.below(name)) if name in self.by_id else set()
        if not inside & set(shown):
            raise IerfError(f"{name!r} is no group that is open here")
        whole = self.completed(shown)
        first = next(each for each in whole if each in inside)
        return [name if each == first else each for each in whole if each == first or each not in inside]

    def closed_groups(self, shown: Collection[str]) -> list[str]:
        """The groups that could be opened."""
        return [name for name in shown if self.halves.get(name)]

    def below(self, name: str) -> Iterator[str]:
        """All that a group holds, at every level."""
        for half in self.halves[name]:
            yield half
            yield from self.below(half)

    def above(self, name: str) -> Iterator[str]:
        """The groups that hold it, the smallest first."""
        while name := self.by_id[name].parent:
            yield name

    def of_classes(self, places: Sequence[int], ids: Sequence[str]) -> "Hierarchy":
        """The same for some of the classes, which have these `ids` in the graph."""
        if list(places) == list(range(len(ids))):
            return self
        nodes = tuple(
            replace(
                node,
                importance=tuple(node.importance[i] for i in places),
                effects=tuple(node.effects[i] for i in places) if node.effects else (),
            )
            for node in self.nodes
        )
        kept = {ids[i] for i in places}
        return Hierarchy(nodes, tuple(_with_targets(pair, ids, kept) for pair in self.pairs))

    def edges(self, shown: Collection[str]) -> Iterator[Edge]:
        """The edges between shown nodes, from residuals, and into classes."""
        for pair in self.pairs:
            yield from self._edges(pair, set(shown))

    def _edges(self, pair: LayerPair, shown: Collection[str]) -> Iterator[Edge]:
        rows = [i for i, name in enumerate(pair.sources) if name in shown or name not in self.by_id]
        columns = [j for j, name in enumerate(pair.targets) if name in shown or name not in self.by_id]
        sizes = [[abs(pair.values[i][j]) for j in columns] for i in rows]
        totals = [sum(row[j] for row in sizes) for j in range(len(columns))]
        largest = max((size for row in sizes for size in row), default=0.0)
        for i, row in zip(rows, sizes, strict=True):
            for j, size, total in zip(columns, row, totals, strict=True):
                if size:
                    source, target = pair.sources[i], pair.targets[j]
                    p = pair.p_values[i][j] if i < len(pair.p_values) else None
                    where = self._map(pair, source, target)
                    yield Edge(source, target, pair.values[i][j], size / largest, size / total, p, where)

    def _map(self, pair: LayerPair, source: str, target: str) -> Cells | None:
        """Where an edge acts: the sum over what its ends hold."""
        if not pair.maps or source not in self.by_id:
            return None
        sources, targets = self._leaves(pair.sources), self._leaves(pair.targets)
        some = [pair.maps[sources[a]][targets[b]] for a in self._finest(source) for b in self._finest(target)]
        if len(some) == 1:
            return some[0]
        return Cells.of(summed(some), max(some[0].rows, some[0].columns))

    def _leaves(self, names: Sequence[str]) -> dict[str, int]:
        """The places of the nodes without halves among themselves."""
        return {name: i for i, name in enumerate(n for n in names if n not in self.by_id or not self.halves[n])}

    def _finest(self, name: str) -> list[str]:
        if not self.halves.get(name):
            return [name]
        return [each for each in self.below(name) if not self.halves[each]]


def _with_targets(pair: LayerPair, classes: Sequence[str], kept: Collection[str]) -> LayerPair:
    """The same without the classes that are not kept."""
    columns = [j for j, name in enumerate(pair.targets) if name in kept or name not in classes]

    def some(rows: tuple[tuple[Any, ...], ...]) -> tuple[tuple[Any, ...], ...]:
        return tuple(tuple(row[j] for j in columns) for row in rows)

    maps = some(pair.maps) if pair.targets[0] in classes else pair.maps
    return LayerPair(
        pair.sources, tuple(pair.targets[j] for j in columns), some(pair.values), some(pair.p_values), maps
    )


def summed(cells: Sequence[Cells]) -> Float[Tensor, "h w"]:
    """The sum of several maps of one size."""
    return torch.stack([each.tensor() for each in cells]).sum(0)
