"""Concept graphs as JSON, one page: docs/graph-format.md."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from ierf.errors import IerfError
from ierf.graph.files.checking import check
from ierf.graph.structure.cells import Cells
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.node import Node
from ierf.typed import FieldError, typed

FORMAT = "ierf-concept-graph"
VERSION = 2
_HEADER = ("format", "version")
READ = (1, VERSION)
"""Version 1 has no maps of edges."""


def to_json(graph: ConceptGraph) -> dict[str, Any]:
    """The graph as what `json` can write; pictures and maps are base64."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": graph.model,
        "photo": graph.photo,
        "photographs": graph.photographs,
        "layers": list(graph.layers),
        "settings": dict(graph.settings),
        "nodes": [_node(node) for node in graph.nodes],
        "edges": [{**asdict(edge), "map": _cells(edge.map)} for edge in graph.edges],
        "accounts": [asdict(account) for account in graph.accounts],
        "view": _text(graph.view),
    }


def from_json(content: Any, source: str) -> ConceptGraph:
    """The graph again. Raises `IerfError` that names the `source` and says what is wrong with it."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise IerfError(f"{source!r} is not a concept graph; `ierf graph … --out graph.json` writes one")
    if content.get("version") not in READ:
        known = " and ".join(map(str, READ))
        raise IerfError(f"{source!r} has the version {content.get('version')} of the format, this ierf reads {known}")
    try:
        whole = {name: value for name, value in content.items() if name not in _HEADER}
        graph = typed({**whole, **_rows(content)}, ConceptGraph)
        check(graph, [node.get("id") for node in content["nodes"]])
    except FieldError as error:
        raise IerfError(f"the concept graph {source!r} is damaged: {error}") from None
    return graph


def _node(node: Node) -> dict[str, Any]:
    plain = {f.name: getattr(node, f.name) for f in fields(node)}
    return {
        "id": node.id,
        **plain,
        "map": _cells(node.map),
        "ierf": _cells(node.ierf),
        "exemplars": list(map(_text, node.exemplars)),
        "facts": None if node.facts is None else asdict(node.facts),
    }


def _rows(content: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes without their ids, which follow from layer and index."""
    nodes = content.get("nodes")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise FieldError("nodes is not a list of objects")
    return {"nodes": [{name: value for name, value in node.items() if name != "id"} for node in nodes]}


def _cells(cells: Cells | None) -> dict[str, Any] | None:
    return None if cells is None else {**asdict(cells), "content": _text(cells.content)}


def _text(content: bytes) -> str:
    return b64encode(content).decode()
