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
from ierf.graph.elements import LOGITS, RESIDUAL, Cells, Kind, Node, node_id
from ierf.graph.hierarchy import Hierarchy, LayerPair
from ierf.typed import FieldError, parsed, typed

FORMAT = "ierf-concept-graph"
VERSION = 3
_HEADER = ("format", "version")
_OF_THE_PAGE = ("notes",)
"""What a reader has written on the page, beside the graph."""
READ = (1, 2, VERSION)
"""Version 1 has no maps of edges, version 2 no groups."""

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
        "hierarchy": None if graph.hierarchy is None else _hierarchy(graph.hierarchy),
    }


def _hierarchy(hierarchy: Hierarchy) -> dict[str, Any]:
    return {
        "nodes": [_node(node) for node in hierarchy.nodes],
        "pairs": [
            {**vars(pair), "maps": [[_cells(cells) for cells in row] for row in pair.maps]} for pair in hierarchy.pairs
        ],
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
        hierarchy = whole.get("hierarchy")
        if hierarchy is not None:
            whole["hierarchy"] = {**_object(hierarchy, "hierarchy"), **_rows(hierarchy, "hierarchy.")}
        graph = typed({**whole, **_rows(content)}, ConceptGraph)
        check(graph, [node.get("id") for node in content["nodes"]])
        if graph.hierarchy is not None:
            check_hierarchy(graph, graph.hierarchy, [node.get("id") for node in content["hierarchy"]["nodes"]])
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


def _object(content: Any, name: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise FieldError(f"{name} is not an object")
    return content


def _rows(content: Mapping[str, Any], of: str = "") -> dict[str, Any]:
    """The nodes without their ids, which follow from layer, kind and index."""
    nodes = content.get("nodes")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise FieldError(f"{of}nodes is not a list of objects")
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


def check_hierarchy(graph: ConceptGraph, hierarchy: Hierarchy, ids: Sequence[Any]) -> None:
    """Raises `FieldError` for groups that do not make a tree, and for pairs that are not those of the graph's rows."""
    _check_ids(hierarchy.nodes, ids, "hierarchy.nodes", graph)
    known = hierarchy.by_id
    for i, node in enumerate(hierarchy.nodes):
        if node.kind in ("class", "residual"):
            raise FieldError(f"hierarchy.nodes[{i}].kind is {node.kind!r}, which is no part of a hierarchy")
        above = known.get(node.parent)
        if node.parent and (above is None or above.layer != node.layer or not above.opens > 0):
            raise FieldError(
                f"hierarchy.nodes[{i}].parent is {node.parent!r}, which is no group of its layer that opens"
            )
        if above is not None and 0 < node.opens <= above.opens:
            raise FieldError(f"hierarchy.nodes[{i}].opens is {node.opens}, not after its parent's {above.opens}")
    for node in hierarchy.nodes:
        if len(hierarchy.halves[node.id]) != (2 if node.opens else 0):
            raise FieldError(f"{node.id!r} has {len(hierarchy.halves[node.id])} halves in the hierarchy")
    drawn = {node.id for node in graph.nodes}
    for i, node in enumerate(graph.nodes):
        if node.kind in ("class", "residual"):
            continue
        if node.id not in known:
            raise FieldError(f"nodes[{i}] is {node.id!r}, which is no part of the hierarchy")
        holding = next((name for name in hierarchy.above(node.id) if name in drawn), None)
        if holding is not None:
            raise FieldError(f"nodes[{i}] is {node.id!r}, which {holding!r} holds, and is drawn too")
    rows = [[node.id for node in graph.classes]]
    rows += [[node.id for node in hierarchy.nodes if node.layer == layer] for layer in reversed(graph.layers)]
    if len(hierarchy.pairs) != len(graph.layers):
        raise FieldError(f"hierarchy.pairs are {len(hierarchy.pairs)}, not one for each of {len(graph.layers)} layers")
    for i, pair in enumerate(hierarchy.pairs):
        residual = node_id(graph.layers[-1 - i], RESIDUAL)
        if list(pair.targets) != rows[i] or list(pair.sources) != [*rows[i + 1], residual]:
            raise FieldError(f"hierarchy.pairs[{i}] is not between the nodes of two rows, in their order")
        _check_pair(hierarchy, pair, f"hierarchy.pairs[{i}]")


def _check_pair(hierarchy: Hierarchy, pair: LayerPair, name: str) -> None:
    """Raises `FieldError` for tables of another size than the pair's rows have."""
    count, targets = len(pair.sources), len(pair.targets)
    fine = [sum(not hierarchy.halves.get(each) for each in ids) for ids in (pair.sources[:-1], pair.targets)]
    tables: Sequence[tuple[str, Sequence[Sequence[Any]], tuple[int, int]]] = (
        ("values", pair.values, (count, targets)),
        ("p_values", pair.p_values, (count - 1, targets)),
        ("maps", pair.maps, (fine[0], fine[1])),
    )
    for field, table, (rows, columns) in tables:
        if (table or field == "values") and (len(table) != rows or any(len(row) != columns for row in table)):
            raise FieldError(f"{name}.{field} is not {rows} × {columns}")


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
    _check_ids(graph.nodes, ids, "nodes", graph)


def _check_ids(nodes: Sequence[Node], ids: Sequence[Any], where: str, graph: ConceptGraph) -> None:
    seen: set[str] = set()
    count = len(graph.classes)
    for i, (node, name) in enumerate(zip(nodes, ids, strict=True)):
        if name != node.id:
            raise FieldError(f"{where}[{i}].id is {name!r}, but its layer, kind and index make it {node.id!r}")
        if node.id in seen:
            raise FieldError(f"the node {node.id!r} occurs twice")
        if node.layer not in ((LOGITS,) if node.kind == "class" else graph.layers):
            raise FieldError(f"{where}[{i}].layer is {node.layer!r}, which is no layer of the graph")
        if len(node.importance) != count:
            raise FieldError(f"{where}[{i}].importance is not for the graph’s {count} classes")
        if len(node.effects) not in (0, count):
            raise FieldError(f"{where}[{i}].effects is not for the graph’s {count} classes")
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


def _all_nodes(graph: ConceptGraph) -> Iterator[tuple[str, Node]]:
    yield from ((f"nodes[{i}]", node) for i, node in enumerate(graph.nodes))
    if graph.hierarchy is not None:
        yield from ((f"hierarchy.nodes[{i}]", node) for i, node in enumerate(graph.hierarchy.nodes))


def _maps(graph: ConceptGraph) -> Iterator[tuple[str, Cells]]:
    for where, node in _all_nodes(graph):
        yield from ((f"{where}.{n}", c) for n, c in (("map", node.map), ("ierf", node.ierf)) if c is not None)
    for i, pair in enumerate(() if graph.hierarchy is None else graph.hierarchy.pairs):
        cells = (each for row in pair.maps for each in row)
        yield from ((f"hierarchy.pairs[{i}].maps[{j}]", each) for j, each in enumerate(cells))
    yield from ((f"edges[{i}].map", edge.map) for i, edge in enumerate(graph.edges) if edge.map is not None)


def _pictures(graph: ConceptGraph) -> Iterator[tuple[str, bytes]]:
    if graph.view:
        yield "view", graph.view
    for where, node in _all_nodes(graph):
        yield from ((f"{where}.exemplars[{j}]", content) for j, content in enumerate(node.exemplars))


def to_neuronpedia(graph: ConceptGraph, slug: str | None = None) -> dict[str, Any]:
    """The JSON of attribution graphs that circuit-tracer writes and Neuronpedia draws.

    Fields and ids as in `circuit_tracer/frontend/graph_models.py` of github.com/safety-research/circuit-tracer, schema
    version 1: metadata, nodes and links. The photograph is the only "token"; layers count from 0 at the pixels."""
    groups = _supernodes(graph)
    graph = graph if graph.hierarchy is None else graph.cut(graph.hierarchy.most)
    ids = {node.id: _neuronpedia_id(graph, node) for node in graph.nodes}
    supernodes = [[label, *(ids[name] for name in names if name in ids)] for label, names in groups]
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
        "qParams": {"pinnedIds": [], "supernodes": supernodes, "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": [_neuronpedia_node(graph, node, ids[node.id]) for node in graph.nodes],
        "links": [{"source": ids[e.source], "target": ids[e.target], "weight": e.value} for e in graph.edges],
    }


def _supernodes(graph: ConceptGraph) -> list[tuple[str, list[str]]]:
    """The label of each group that is shown, and the ids of what it holds that does not open."""
    if graph.hierarchy is None:
        return []
    halves, inside = graph.hierarchy.halves, graph.hierarchy.below
    groups = [node for node in graph.nodes if node.kind == "group" and halves[node.id]]
    return [(node.label, [name for name in inside(node.id) if not halves[name]]) for node in groups]


def _neuronpedia_node(graph: ConceptGraph, node: Node, name: str) -> dict[str, Any]:
    layer = _neuronpedia_layer(graph, node)
    kinds: Mapping[Kind, str] = {
        "class": "logit",
        "concept": "cross layer transcoder",
        "group": "cross layer transcoder",
        "own": "mlp reconstruction error",
        "residual": "mlp reconstruction error",
    }
    of_dictionary = node.kind in ("concept", "group")
    index = _neuronpedia_index(graph, node)
    return {
        "node_id": name,
        "feature": _paired(layer, index) if of_dictionary else index,
        "layer": str(layer),
        "ctx_idx": 0,
        "feature_type": kinds[node.kind],
        "token_prob": node.activation if node.kind == "class" else 0.0,
        "is_target_logit": node.kind == "class" and node == graph.classes[0],
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{'L' if node.kind == 'class' else layer}_{index}-0",
        "clerp": node.label,
        "influence": node.influence,
        "activation": node.activation if of_dictionary else None,
    }


def _neuronpedia_id(graph: ConceptGraph, node: Node) -> str:
    return f"{_neuronpedia_layer(graph, node)}_{_neuronpedia_index(graph, node)}_0"


def _neuronpedia_index(graph: ConceptGraph, node: Node) -> int:
    """Groups are numbered behind the concepts of their layer, own directions behind these."""
    if node.kind not in ("group", "own"):
        return node.index
    concepts = graph.account(node.layer).concepts
    return node.index + concepts * (1 if node.kind == "group" else 3)


def _neuronpedia_layer(graph: ConceptGraph, node: Node) -> int:
    return len(graph.layers) + 1 if node.layer == LOGITS else graph.layers.index(node.layer)


def _paired(layer: int, index: int) -> int:
    """Cantor's pairing, by which the format numbers the features of all layers."""
    return (layer + index) * (layer + index + 1) // 2 + index
