"""Two concept graphs of one bank side by side: what appeared, vanished, grew, shrank, turned its sign (VI-E).

`compare` takes two graphs; `compare_photographs` builds those of two photographs on the same concepts first.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
from torch import nn

from ierf.errors import IerfError
from ierf.graph.building.build import build, build_groups, important_concepts, kind_of_nodes
from ierf.graph.concept_graph import KEEP, SHARED, TOP, ConceptGraph, NodesName
from ierf.graph.elements import Edge, Node
from ierf.graph.picture.page import Finding, save_page
from ierf.model import ImageLike, VisionModel, as_vision_model, evaluating

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank

Status = Literal["appeared", "vanished", "grew", "shrank", "turned"]
"""Growing and shrinking are of the size; what had one sign and has the other has turned."""
Item = TypeVar("Item")

LEAST = 0.05
"""A change counts from this share of the largest value of its layer, in either graph, on."""

SHOWN = 12
"""Changes of each kind on a page."""


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


def compare_photographs(
    model: VisionModel | nn.Module,
    bank: "ConceptBank",
    before: ImageLike,
    after: ImageLike,
    classes: Sequence[str | int] | None = None,
    layers: Sequence[str] | None = None,
    *,
    nodes: NodesName | None = None,
    top: int | None = None,
    shared: int | None = None,
    **options: Any,
) -> Comparison:
    """The graphs of two photographs on the same concepts, those that matter in either, and what differs.

    No edge is pruned.

    Args:
        classes: None: what the network says of the one and of the other, and if that is the same, its two most probable
            of the first.
        nodes: "groups": the same ones for both, chosen by what they show in either; "concepts": those that matter most
            in either. None: groups, but where `top` or `shared` ask for single concepts.
        options: others of `ConceptGraph.build`.
    """
    vision_model = as_vision_model(model)
    wanted = list(classes) if classes is not None else _said(vision_model, before, after)
    if kind_of_nodes(nodes, top=top, shared=shared) == "groups":
        first, second = build_groups(vision_model, bank, [before, after], wanted, layers, **options)
        return compare(first, second)
    limits = {"top": TOP if top is None else top, "shared": SHARED if shared is None else shared}
    chosen = [important_concepts(vision_model, bank, photo, wanted, layers, **limits) for photo in (before, after)]
    also = {layer: list(dict.fromkeys([*chosen[0][layer], *chosen[1][layer]])) for layer in chosen[0]}
    options = {**options, **limits, "also": also, "keep": 1.0}
    first, second = (build(vision_model, bank, photo, wanted, layers, **options) for photo in (before, after))
    return compare(first, second)


def save_comparison(comparison: Comparison, path: Path, keep: float = KEEP, single_file: bool = False) -> Path:
    """A page with both graphs in one layout, at first with the edges that carry `keep` of the flow in either.

    Raises `IerfError` for another suffix than ".html".
    """
    if path.suffix != ".html":
        raise IerfError(f"a comparison is saved as .html, not as {path.name!r}")
    before, after = comparison.before, comparison.after
    return save_page(
        path,
        before,
        after,
        single_file=single_file,
        title=f"{before.photo}: {_most_probable(before)} → {after.photo}: {_most_probable(after)}",
        findings=findings(comparison),
        start=f"side=change&edges={keep:g}",
    )


def sentence(change: Change[Node] | Change[Edge], classes: Mapping[str, str]) -> str:
    """ "tabby → layer3.1/7 turned: −0.03 → +1.20"; `classes` are names of class nodes by their ids."""
    name = " → ".join(classes.get(part, part) for part in change.name.split(" → "))
    before, after = (f"{value:+.2f}".replace("-", "−") for value in (change.before, change.after))
    return f"{name} {change.status}: {before} → {after}"


def findings(comparison: Comparison) -> list[Finding]:
    """The largest changes of concepts, then those of edges."""
    names = {node.id: node.label for graph in (comparison.before, comparison.after) for node in graph.classes}
    nodes = [Finding(sentence(change, names), (change.name,)) for change in comparison.nodes[:SHOWN]]
    edges = [
        Finding(sentence(change, names), (change.item.source, change.item.target))
        for change in comparison.edges[:SHOWN]
    ]
    return nodes + edges


def _concepts(graph: ConceptGraph) -> dict[str, Node]:
    return {node.id: node for node in graph.nodes if node.of_bank and node.activation}


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


def _said(model: VisionModel, before: ImageLike, after: ImageLike) -> list[int]:
    with torch.no_grad(), evaluating(model.net):
        first, second = (model(model.prepare(photo))[0] for photo in (before, after))
    both = [int(first.argmax()), int(second.argmax())]
    return both if both[0] != both[1] else first.topk(2).indices.tolist()


def _most_probable(graph: ConceptGraph) -> str:
    node = max(graph.classes, key=lambda node: node.activation)
    return f"{node.label} {100 * node.activation:.1f} %"
