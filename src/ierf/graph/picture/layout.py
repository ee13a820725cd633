"""Where the nodes of a concept graph are drawn: rows of cards, the classes on top, the pixels' side below."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.node import LOGITS, Node

CARD = (156, 108)
"""Width and height of a node's card."""
GAP = 18
ROW = 212
"""From one row's top to the next one's."""
MARGIN = 168
"""On the left, for the layers' names."""
TOP = 24


@dataclass(frozen=True)
class Layout:
    """The upper left corner of every node's card, and the size of the whole."""

    corners: Mapping[str, tuple[float, float]]
    rows: Mapping[str, float]
    """The top of each layer's row."""
    width: float
    height: float


def lay_out(graph: ConceptGraph) -> Layout:
    """Rows centred; in each, nodes stand near the middle of what they lead to, residuals at the right end."""
    layers = [LOGITS, *reversed(graph.layers)]
    rows = [list(graph.row(layer)) for layer in layers]
    widest = max((len(row) for row in rows), default=1)
    width = MARGIN + max(1, widest) * (CARD[0] + GAP) + GAP
    middle: dict[str, float] = {}
    corners: dict[str, tuple[float, float]] = {}
    for i, row in enumerate(rows):
        ordered = _ordered(row, graph, middle)
        left = MARGIN + (width - MARGIN - len(row) * (CARD[0] + GAP) + GAP) / 2
        for j, node in enumerate(ordered):
            x = left + j * (CARD[0] + GAP)
            corners[node.id] = (x, TOP + i * ROW)
            middle[node.id] = x + CARD[0] / 2
    tops = {layer: float(TOP + i * ROW) for i, layer in enumerate(layers)}
    return Layout(corners, tops, float(width), float(TOP + (len(layers) - 1) * ROW + CARD[1] + TOP))


def _ordered(row: Sequence[Node], graph: ConceptGraph, middle: Mapping[str, float]) -> list[Node]:
    """By the mean place of the nodes that each leads to, weighted by the edges."""

    def place(node: Node) -> tuple[bool, float]:
        out = [(edge.weight, middle[edge.target]) for edge in graph.edges if edge.source == node.id]
        total = sum(weight for weight, _ in out)
        return node.kind == "residual", sum(weight * x for weight, x in out) / total if total else 0.0

    return sorted(row, key=place)
