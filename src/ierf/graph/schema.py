"""Concept graphs as JSON: the whole graph (docs/graph-format.md), what must hold in it, and Neuronpedia's form."""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ierf.errors import IerfError
from ierf.graph.concept_graph import ConceptGraph
from ierf.graph.elements import LOGITS, Cells, Node
from ierf.typed import FieldError, parsed, typed

FORMAT = "ierf-concept-graph"
VERSION = 2
_HEADER = ("format", "version")
_OF_THE_PAGE = ("notes",)
"""What a reader has written on the page, beside the graph."""
READ = (1, VERSION)
"""Version 1 has no maps of edges."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_LARGEST = 1 << 24
"""Pixels of a picture in a graph: many times those that a network sees."""


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
        whole = {name: value for name, value in content.items() if name not in (*_HEADER, *_OF_THE_PAGE)}
        graph = typed({**whole, **_rows(content)}, ConceptGraph)
        check(graph, [node.get("id") for node in content["nodes"]])
    except FieldError as error:
        raise IerfError(f"the concept graph {source!r} is damaged: {error}") from None
    return graph


def load(path: Path) -> ConceptGraph:
    """The graph in a JSON file."""
    try:
        content = parsed(path.read_bytes())
    except OSError as error:
        raise IerfError(f"cannot read the concept graph {str(path)!r}: {error.strerror or error}") from error
    except FieldError as error:
        raise IerfError(f"{str(path)!r} is not a concept graph: {error}") from None
    return from_json(content, str(path))


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


def to_neuronpedia(graph: ConceptGraph, slug: str | None = None) -> dict[str, Any]:
    """The JSON of attribution graphs that circuit-tracer writes and Neuronpedia draws.

    Fields and ids as in `circuit_tracer/frontend/graph_models.py` of github.com/safety-research/circuit-tracer, schema
    version 1: metadata, nodes and links. The photograph is the only "token"; layers count from 0 at the pixels."""
    ids = {node.id: _neuronpedia_id(graph, node) for node in graph.nodes}
    return {
        "metadata": {
            "slug": slug or re.sub(r"[^a-z0-9]+", "-", f"{graph.model} {graph.photo}".lower()).strip("-"),
            "scan": graph.model,
            "transcoder_list": [],
            "prompt_tokens": [graph.photo],
            "prompt": graph.photo,
            "node_threshold": graph.settings.get("keep"),
            "schema_version": 1,
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": [_neuronpedia_node(graph, node, ids[node.id]) for node in graph.nodes],
        "links": [{"source": ids[e.source], "target": ids[e.target], "weight": e.value} for e in graph.edges],
    }


def _neuronpedia_node(graph: ConceptGraph, node: Node, name: str) -> dict[str, Any]:
    layer = _neuronpedia_layer(graph, node)
    kinds = {"class": "logit", "concept": "cross layer transcoder", "residual": "mlp reconstruction error"}
    return {
        "node_id": name,
        "feature": _paired(layer, node.index) if node.kind == "concept" else node.index,
        "layer": str(layer),
        "ctx_idx": 0,
        "feature_type": kinds[node.kind],
        "token_prob": node.activation if node.kind == "class" else 0.0,
        "is_target_logit": node.kind == "class" and node == graph.classes[0],
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{'L' if node.kind == 'class' else layer}_{node.index}-0",
        "clerp": node.label,
        "influence": node.influence,
        "activation": node.activation if node.kind == "concept" else None,
    }


def _neuronpedia_id(graph: ConceptGraph, node: Node) -> str:
    return f"{_neuronpedia_layer(graph, node)}_{node.index}_0"


def _neuronpedia_layer(graph: ConceptGraph, node: Node) -> int:
    return len(graph.layers) + 1 if node.layer == LOGITS else graph.layers.index(node.layer)


def _paired(layer: int, index: int) -> int:
    """Cantor's pairing, by which the format numbers the features of all layers."""
    return (layer + index) * (layer + index + 1) // 2 + index
