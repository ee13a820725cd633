"""Concept graphs as JSON, one page: docs/graph-format.md."""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from ierf.errors import IerfError
from ierf.graph.structure.account import LayerAccount
from ierf.graph.structure.cells import Cells
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.edge import Edge
from ierf.graph.structure.facts import ConceptFacts
from ierf.graph.structure.node import Node

FORMAT = "ierf-concept-graph"
VERSION = 2
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
        return ConceptGraph(
            model=content["model"],
            photo=content["photo"],
            photographs=content["photographs"],
            layers=tuple(content["layers"]),
            nodes=tuple(map(_read_node, content["nodes"])),
            edges=tuple(map(_read_edge, content["edges"])),
            accounts=tuple(_read_account(account) for account in content["accounts"]),
            settings=content["settings"],
            view=b64decode(content["view"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IerfError(f"the concept graph {source!r} is damaged: {type(error).__name__} {error}") from None


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


def _read_node(content: Mapping[str, Any]) -> Node:
    plain = {name: value for name, value in content.items() if name != "id"}
    return Node(
        **{
            **plain,
            "importance": tuple(content["importance"]),
            "map": _read_cells(content["map"]),
            "ierf": _read_cells(content["ierf"]),
            "exemplars": tuple(map(b64decode, content["exemplars"])),
            "facts": _read_facts(content.get("facts")),
        }
    )


def _read_edge(content: Mapping[str, Any]) -> Edge:
    return Edge(**{**content, "map": _read_cells(content.get("map"))})


def _read_facts(content: Mapping[str, Any] | None) -> ConceptFacts | None:
    if content is None:
        return None
    pairs = {name: tuple(map(tuple, content[name])) for name in ("classes", "nearest")}
    return ConceptFacts(**{**content, **pairs, "cosines": tuple(content["cosines"])})


def _read_account(content: Mapping[str, Any]) -> LayerAccount:
    lists = {name: tuple(content[name]) for name in ("logits", "score_kept")}
    return LayerAccount(**{**content, **lists})


def _cells(cells: Cells | None) -> dict[str, Any] | None:
    return None if cells is None else {**asdict(cells), "content": _text(cells.content)}


def _read_cells(content: Mapping[str, Any] | None) -> Cells | None:
    return None if content is None else Cells(**{**content, "content": b64decode(content["content"])})


def _text(content: bytes) -> str:
    return b64encode(content).decode()
