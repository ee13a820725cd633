"""Concept graphs by hand, to test on."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from ierf.graph import LOGITS, RESIDUAL, Cells, ConceptFacts, ConceptGraph, Edge, LayerAccount, Node, png

SHARES = {
    ("b/0", "logits/3"): 0.5,
    ("b/1", "logits/3"): 0.2,
    ("b/residual", "logits/3"): 0.1,
    ("b/0", "logits/8"): 0.1,
    ("b/1", "logits/8"): 0.7,
    ("b/residual", "logits/8"): 0.05,
    ("a/4", "b/0"): 0.6,
    ("a/5", "b/0"): 0.1,
    ("a/residual", "b/0"): 0.2,
    ("a/4", "b/1"): 0.25,
    ("a/5", "b/1"): 0.5,
    ("a/residual", "b/1"): 0.1,
}
"""What does not sum to 1 for a target goes to nodes that are not shown."""


def graph() -> ConceptGraph:
    """Two classes, layers "a" below "b", two concepts and a residual each."""
    nodes = [
        _node(LOGITS, 3, (4.0, 0.0)),
        _node(LOGITS, 8, (0.0, 3.0)),
        _node("b", 0, (2.0, -0.5)),
        _node("b", 1, (1.0, 1.5)),
        _node("b", RESIDUAL, (0.1, 0.2)),
        _node("a", 4, (0.5, 0.25)),
        _node("a", 5, (-0.5, 0.75)),
        _node("a", RESIDUAL, (0.3, 0.1)),
    ]
    edges = [Edge(s, t, -share if s == "a/5" else share, share, share, 0.01) for (s, t), share in SHARES.items()]
    accounts = tuple(
        LayerAccount(layer, 16, 6.0, 2.5, 0.2, 1e-3, 1e-2, (3.9, 2.9), (0.8, 0.6), 0.0, 0.0) for layer in ("a", "b")
    )
    return ConceptGraph("net", "photo", 1, ("a", "b"), tuple(nodes), tuple(edges), accounts, {"steps": 4})


def illustrated() -> ConceptGraph:
    """The same with maps of nodes and edges, exemplars, facts and a photograph."""
    whole = graph().pruned(0.9)
    random = np.random.default_rng(0)
    photo = png(Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)))
    cells = Cells.of(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))
    facts = ConceptFacts(0.25, 1.5, 0.125, (("tabby", 0.75),), ((3, 0.5),), (0.75, 0.5, 0.25))
    nodes = tuple(
        replace(node, map=cells, ierf=cells, exemplars=(photo,) * 3, facts=facts) if node.kind == "concept" else node
        for node in whole.nodes
    )
    edges = tuple(edge if edge.source.endswith("residual") else replace(edge, map=cells) for edge in whole.edges)
    return replace(whole, nodes=nodes, edges=edges, view=photo)


def without(whole: ConceptGraph, name: str) -> ConceptGraph:
    """The graph without a node and its edges."""
    return replace(
        whole,
        nodes=tuple(node for node in whole.nodes if node.id != name),
        edges=tuple(edge for edge in whole.edges if name not in (edge.source, edge.target)),
    )


def _node(layer: str, index: int, importance: tuple[float, ...]) -> Node:
    kind = "class" if layer == LOGITS else "residual" if index == RESIDUAL else "concept"
    return Node(layer, kind, index, f"#{index}", importance, 0.5)
