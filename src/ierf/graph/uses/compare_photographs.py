"""Comparing what two photographs do in one network: both graphs on the same concepts, and a page of what differs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ierf.errors import IerfError
from ierf.graph.building.build import build, important
from ierf.graph.picture.page import Finding, save_page
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.edge import Edge
from ierf.graph.structure.node import Node
from ierf.graph.uses.compare import Change, Comparison, compare
from ierf.model import VisionModel, as_vision_model, evaluating
from ierf.model.images import ImageLike

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank

SHOWN = 12
"""Changes of each kind on a page."""


def compare_photographs(
    model: VisionModel | nn.Module,
    bank: "ConceptBank",
    before: ImageLike,
    after: ImageLike,
    classes: Sequence[str | int] | None = None,
    layers: Sequence[str] | None = None,
    **options: Any,
) -> Comparison:
    """The graphs of two photographs on the same concepts, those that matter in either, and what differs.

    `classes`: None: what the network says of the one and of the other, and if that is the same, its two most probable
    of the first. No edge is pruned. `options` are those of `ConceptGraph.build`.
    """
    vision_model = as_vision_model(model)
    wanted = list(classes) if classes is not None else _said(vision_model, before, after)
    chosen = [important(vision_model, bank, photo, wanted, layers) for photo in (before, after)]
    also = {layer: list(dict.fromkeys([*chosen[0][layer], *chosen[1][layer]])) for layer in chosen[0]}
    options = {**options, "also": also, "keep": 1.0}
    first, second = (build(vision_model, bank, photo, wanted, layers, **options) for photo in (before, after))
    return compare(first, second)


def save_comparison(comparison: Comparison, path: Path, keep: float = 0.8, single_file: bool = False) -> Path:
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


def _said(model: VisionModel, before: ImageLike, after: ImageLike) -> list[int]:
    with torch.no_grad(), evaluating(model.net):
        first, second = (model(model.prepare(photo))[0] for photo in (before, after))
    both = [int(first.argmax()), int(second.argmax())]
    return both if both[0] != both[1] else first.topk(2).indices.tolist()


def _most_probable(graph: ConceptGraph) -> str:
    node = max(graph.classes, key=lambda node: node.activation)
    return f"{node.label} {100 * node.activation:.1f} %"


def findings(comparison: Comparison) -> list[Finding]:
    """The largest changes of concepts, then those of edges."""
    names = {node.id: node.label for graph in (comparison.before, comparison.after) for node in graph.classes}
    nodes = [Finding(sentence(change, names), (change.name,)) for change in comparison.nodes[:SHOWN]]
    edges = [
        Finding(sentence(change, names), (change.item.source, change.item.target))
        for change in comparison.edges[:SHOWN]
    ]
    return nodes + edges
