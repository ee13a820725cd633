"""Pictures for the nodes of a graph: exemplars from the bank, their places and pixels on the photograph."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution import attribute, usual_method
from ierf.attribution.targets import Relevance
from ierf.errors import IerfError
from ierf.graph.building.photographs import Opened
from ierf.graph.building.progress import Progress
from ierf.graph.building.taking import Layers, Taken
from ierf.graph.picture.thumbnails import encoded
from ierf.graph.structure.cells import Cells
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.facts import ConceptFacts
from ierf.graph.structure.node import Node
from ierf.model import VisionModel

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank

EXEMPLARS = 10
_CLASSES = 6
_NEAREST = 5
_AT_ONCE = 16


def illustrated(
    graph: ConceptGraph,
    model: VisionModel,
    bank: "ConceptBank",
    photos: Opened,
    taken: Layers | None,
    progress: Progress,
) -> ConceptGraph:
    """The graph with pictures; `taken` has the layers of the only photograph, None if there are several."""
    nodes = {node.id: node for node in graph.nodes}
    for layer in graph.layers:
        progress.begin(f"pictures of {layer}")
        concepts = [node for node in graph.row(layer) if node.kind == "concept"]
        for node in concepts:
            nodes[node.id] = replace(
                node, exemplars=exemplars(bank, layer, node.index), facts=facts(bank, layer, node.index)
            )
        if taken is not None and concepts:
            for node, *cells in _grounded(model, photos.x(0), taken[layer], concepts):
                nodes[node.id] = replace(nodes[node.id], map=cells[0], ierf=cells[1])
    return replace(graph, nodes=tuple(nodes.values()))


def exemplars(bank: "ConceptBank", layer: str, concept: int) -> tuple[bytes, ...]:
    """The parts of photographs that are nearest to a concept; none where bank and store have no pictures."""
    with suppress(IerfError):
        return tuple(map(encoded, bank.exemplar_pictures(layer, concept, EXEMPLARS)))
    return ()


def facts(bank: "ConceptBank", layer: str, concept: int) -> ConceptFacts:
    """What the bank knows of a concept."""
    known = bank.layer(layer)
    shares = list(known.class_shares.of(concept).items())[:_CLASSES]
    return ConceptFacts(
        frequency=float(known.frequencies[concept]),
        strength=float(known.strengths[concept]),
        relevance=float(known.relevances[concept]),
        classes=tuple((bank.label(label), share) for label, share in shares),
        nearest=tuple(known.nearest(concept, _NEAREST)),
        cosines=tuple(known.cosines[concept, :EXEMPLARS].tolist()),
    )


def _grounded(
    model: VisionModel, x: Float[Tensor, "1 3 H W"], taken: Taken, nodes: Sequence[Node]
) -> list[tuple[Node, Cells, Cells]]:
    """Each node with `u_pq` over the layer's positions, and the relevance that starts there carried to the pixels."""
    maps = taken.columns(torch.tensor([node.index for node in nodes])).T
    ierfs = torch.cat([carried(model, x, taken, some) for some in torch.split(maps, _AT_ONCE)])
    return [
        (node, Cells.of(on_map(taken, u)), Cells.of(ierf)) for node, u, ierf in zip(nodes, maps, ierfs, strict=True)
    ]


def on_map(taken: Taken, values: Float[Tensor, " P"]) -> Float[Tensor, "h w"]:
    """Numbers of all positions as rows and columns, without prefix tokens; one row where rows are unknown."""
    size = taken.concepts.map
    return values[taken.concepts.prefix_tokens or 0 :].reshape(size if len(size) == 2 else (1, -1))


def carried(
    model: VisionModel, x: Float[Tensor, "1 3 H W"], taken: Taken, maps: Float[Tensor, "B P"]
) -> Float[Tensor, "B H W"]:
    """The pixels' share in each map of coefficients: its iERF, the sum over positions of `u_p · iERF_p`."""
    size = taken.concepts.map
    start = maps if taken.concepts.prefix_tokens is not None or len(size) < 2 else maps.reshape(-1, *size)
    target = Relevance(taken.concepts.name, start.to(x))
    found = attribute(model, x.expand(len(maps), -1, -1, -1), target, usual_method(model))
    return found.detach().cpu()
