"""Two concept graphs of one bank side by side: what appeared, vanished, grew, shrank, turned its sign."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from ierf.errors import IerfError
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.edge import Edge
from ierf.graph.structure.node import Node

Status = Literal["appeared", "vanished", "grew", "shrank", "turned"]
"""Growing and shrinking are of the size; what had one sign and has the other has turned."""
Item = TypeVar("Item")

LEAST = 0.05
"""A change counts from this share of the largest value of its layer, in either graph, on."""


@dataclass(frozen=True)
class Change(Generic[Item]):
    """A node or an edge that is not the same in both graphs."""

    status: Status
    name: str
    """A node's id, or an edge's "source → target"."""
    before: float
    """A node's largest importance for a class, or an edge's value; 0 where there is none."""
    after: float
    size: float
    """`|after − before|` over the largest |value| of the layer (an edge: of the pair of layers) in either graph."""
    item: Item
    """As it is in the second graph, or was in the first if it vanished."""


@dataclass(frozen=True)
class Comparison:
    """What differs, the largest changes first."""

    before: ConceptGraph
    after: ConceptGraph
    nodes: tuple[Change[Node], ...]
    edges: tuple[Change[Edge], ...]


def compare(before: ConceptGraph, after: ConceptGraph, least: float = LEAST) -> Comparison:
    """The changes from one graph to the other that are at least `least`, see `Change.size`.

    A concept is in a graph where it is a node with a coefficient. Build both graphs with the same `also=` concepts
    (`ierf graph --compare` does), else one that was merely not chosen counts as absent.
    Raises `IerfError` for graphs of different models or layers.
    """
    if (before.model, before.layers) != (after.model, after.layers):
        raise IerfError("these graphs cannot be compared: they are of different models or layers")
    nodes = _changes(_concepts(before), _concepts(after), _strength, lambda node: node.layer, least)
    edges = _changes(
        {f"{e.source} → {e.target}": e for e in before.edges},
        {f"{e.source} → {e.target}": e for e in after.edges},
        lambda edge: edge.value,
        lambda edge: edge.target.rpartition("/")[0],
        least,
    )
    return Comparison(before, after, nodes, edges)


def _concepts(graph: ConceptGraph) -> dict[str, Node]:
    return {node.id: node for node in graph.nodes if node.kind == "concept" and node.activation > 0}


def _strength(node: Node) -> float:
    """The importance for the class to which the node matters most."""
    return max(node.importance, key=abs, default=0.0)


def _changes(
    before: Mapping[str, Item],
    after: Mapping[str, Item],
    value: Callable[[Item], float],
    group: Callable[[Item], str],
    least: float,
) -> tuple[Change[Item], ...]:
    largest: dict[str, float] = {}
    for item in (*before.values(), *after.values()):
        largest[group(item)] = max(largest.get(group(item), 0.0), abs(value(item)))
    found = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        item = after[name] if name in after else before[name]
        x, y = (0.0 if each is None else value(each) for each in (old, new))
        scale = largest[group(item)]
        found.append(Change(_status(old, new, x, y), name, x, y, abs(y - x) / scale if scale else 0.0, item))
    return _largest(change for change in found if change.size > 0 and change.size >= least)


def _status(old: object, new: object, x: float, y: float) -> Status:
    if old is None:
        return "appeared"
    if new is None:
        return "vanished"
    if x * y < 0:
        return "turned"
    return "grew" if abs(y) > abs(x) else "shrank"


def _largest(changes: Iterable[Change[Item]]) -> tuple[Change[Item], ...]:
    return tuple(sorted(changes, key=lambda change: -change.size))
