"""What must hold in a concept graph beyond the types of its fields."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

from PIL import Image

from ierf.graph.structure.cells import Cells
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.node import LOGITS
from ierf.typed import FieldError

_FORMATS = ("PNG", "JPEG", "WEBP")
_LARGEST = 1 << 24
"""Pixels of a picture in a graph: many times those that a network sees."""


def check(graph: ConceptGraph, ids: Sequence[Any]) -> None:
    """Raises `FieldError` for nodes that occur twice, are called otherwise or belong to no layer, edges to nothing,
    numbers for other classes, maps of another size, pictures that are none."""
    _check_nodes(graph, ids)
    _check_edges(graph)
    if [account.layer for account in graph.accounts] != list(graph.layers):
        raise FieldError("accounts are not those of the layers, in their order")
    count = len(graph.classes)
    for i, account in enumerate(graph.accounts):
        if (len(account.logits), len(account.score_kept)) != (count, count):
            raise FieldError(f"accounts[{i}] is not for the graph’s {count} classes")
    if graph.photographs < 1:
        raise FieldError(f"photographs is {graph.photographs}, not at least 1")
    for name, cells in _maps(graph):
        if cells.rows < 1 or cells.columns < 1 or len(cells.content) != cells.rows * cells.columns:
            raise FieldError(f"{name} has {len(cells.content)} bytes, not {cells.rows} × {cells.columns}")
    for name, picture in _pictures(graph):
        check_picture(picture, name)


def check_picture(content: bytes, name: str) -> None:
    """Raises `FieldError` for what cannot be decoded; its size is read from the header first."""
    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as picture:
            if picture.width * picture.height > _LARGEST:
                raise FieldError(f"{name} has {picture.width} × {picture.height} pixels, which no picture here has")
            picture.load()
    except FieldError:
        raise
    except Exception:
        raise FieldError(f"{name} is no picture, or a damaged one") from None


def _check_nodes(graph: ConceptGraph, ids: Sequence[Any]) -> None:
    seen: set[str] = set()
    for i, (node, name) in enumerate(zip(graph.nodes, ids, strict=True)):
        if name != node.id:
            raise FieldError(f"nodes[{i}].id is {name!r}, but its layer and index make it {node.id!r}")
        if node.id in seen:
            raise FieldError(f"the node {node.id!r} occurs twice")
        if node.layer not in ((LOGITS,) if node.kind == "class" else graph.layers):
            raise FieldError(f"nodes[{i}].layer is {node.layer!r}, which is no layer of the graph")
        if len(node.importance) != len(graph.classes):
            raise FieldError(f"nodes[{i}].importance is not for the graph’s {len(graph.classes)} classes")
        seen.add(node.id)


def _check_edges(graph: ConceptGraph) -> None:
    rows = {node.id: [*graph.layers, LOGITS].index(node.layer) for node in graph.nodes}
    seen: set[tuple[str, str]] = set()
    for i, edge in enumerate(graph.edges):
        for end in (edge.source, edge.target):
            if end not in rows:
                raise FieldError(f"edges[{i}] has the end {end!r}, which is no node of the graph")
        if rows[edge.target] != rows[edge.source] + 1:
            raise FieldError(f"edges[{i}] does not lead from a layer to the next")
        if (edge.source, edge.target) in seen:
            raise FieldError(f"the edge from {edge.source!r} to {edge.target!r} occurs twice")
        seen.add((edge.source, edge.target))


def _maps(graph: ConceptGraph) -> Iterator[tuple[str, Cells]]:
    for i, node in enumerate(graph.nodes):
        yield from ((f"nodes[{i}].{n}", c) for n, c in (("map", node.map), ("ierf", node.ierf)) if c is not None)
    yield from ((f"edges[{i}].map", edge.map) for i, edge in enumerate(graph.edges) if edge.map is not None)


def _pictures(graph: ConceptGraph) -> Iterator[tuple[str, bytes]]:
    if graph.view:
        yield "view", graph.view
    for i, node in enumerate(graph.nodes):
        yield from ((f"nodes[{i}].exemplars[{j}]", content) for j, content in enumerate(node.exemplars))
