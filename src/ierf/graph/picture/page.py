"""A concept graph as a file: the interactive page that is built from `web/`, a picture, or JSON."""

import json
import zlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from ierf.errors import UnknownNameError
from ierf.files import write
from ierf.graph.concept_graph import ConceptGraph
from ierf.graph.elements import Cells, Node
from ierf.graph.hierarchy import Hierarchy
from ierf.graph.picture.drawing import mosaic, svg, whereabouts
from ierf.graph.picture.left_out import left_out
from ierf.graph.schema import to_json
from ierf.store import only_writer

SUFFIXES = (".json", ".html", ".svg")
_SIDE = 96
"""Pixels of a node's picture."""
_QUALITY = 70

Address = Callable[[str, bytes], str]
"""Where a page finds the picture with this name and content."""


def save(graph: ConceptGraph, path: Path, single_file: bool) -> Path:
    """The graph in the form that the suffix names; folders are made."""
    if path.suffix not in SUFFIXES:
        raise UnknownNameError("form of a graph", path.suffix or str(path), SUFFIXES)
    if path.suffix == ".html":
        return save_page(path, graph, single_file=single_file)
    text = svg(graph) if path.suffix == ".svg" else json.dumps(to_json(graph), indent=1, allow_nan=False)
    return write(path, text.encode())


@dataclass(frozen=True)
class Finding:
    """A sentence for the page."""

    text: str
    about: tuple[str, ...] = ()
    """The node's id that it is about, or an edge's source and target."""


def page(
    *graphs: ConceptGraph,
    title: str | None = None,
    findings: Sequence[Finding] = (),
    start: str = "",
    address: Address | None = None,
) -> str:
    """A page of one graph, or of two with the second compared to the first; nothing is fetched from elsewhere.

    Args:
        title: None: the photograph and its classes.
        findings: what is said of the graph beside it.
        start: how it is looked at first, in the words of the page's address: "mode=difference&first=1".
        address: where exemplars lie; None: inside the page.
    """
    block, pictures = bytearray(), _Pictures(address or _inside)
    content: dict[str, Any] = {
        "title": title if title is not None else f"{graphs[0].photo}: {_labels(graphs[0])}",
        "graphs": [_graph(graph, pictures, block) for graph in _alike(graphs)],
        "pictures": pictures.addresses,
        "findings": [asdict(finding) for finding in findings],
        "leftOut": left_out(graphs[-1]),
        "start": start,
        "cells": b64encode(zlib.compress(bytes(block), 9)).decode(),
    }
    head, rest = _template().split("__TITLE__")
    middle, tail = rest.split("__DATA__")
    data = json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return "".join((head, escape(content["title"]), middle, data, tail))


def save_page(path: Path, *graphs: ConceptGraph, single_file: bool = False, **options: Any) -> Path:
    """Write the page, its exemplars inside or in the folder NAME_pictures beside it. `options` are those of `page`."""
    folder = path.with_name(f"{path.stem}_pictures")

    def beside(name: str, content: bytes) -> str:
        write(folder / name, content)
        return quote(f"{folder.name}/{name}")

    with only_writer(path.parent, path.name):
        return write(path, page(*graphs, address=None if single_file else beside, **options).encode())


def _inside(name: str, content: bytes) -> str:
    kind = {".png": "png", ".webp": "webp"}.get(Path(name).suffix, "jpeg")
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


class _Pictures:
    """The addresses of a page's pictures, each once: a group shares most of its exemplars with one of its halves."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._numbers: dict[str, int] = {}
        self.addresses: list[str] = []

    def exemplar(self, content: bytes) -> int:
        """The number of a JPEG file that lies where the page's exemplars do."""
        return self._number(f"{sha256(content).hexdigest()[:20]}.jpg", content, self._address)

    def thumbnail(self, node: Node, view: bytes) -> int | None:
        """The number of a node's small picture, always inside the page: it is what the graph is made of."""
        picture = whereabouts(view, node) if node.kind in ("own", "residual") else mosaic(node.exemplars)
        if picture is None:
            return None
        content = BytesIO()
        picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(content, "WEBP", quality=_QUALITY)
        return self._number(f"{sha256(content.getvalue()).hexdigest()}.webp", content.getvalue(), _inside)

    def _number(self, name: str, content: bytes, address: Address) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.addresses)
            self.addresses.append(address(name, content))
        return self._numbers[name]


def _graph(graph: ConceptGraph, pictures: _Pictures, block: bytearray) -> dict[str, Any]:
    """The graph as JSON with numbers for pictures; the cells of maps go to the end of the block.

    Of a graph of groups the nodes are those of every level, once; its edges are there only where they are not all that
    the tables of its hierarchy give for the shown nodes.
    """
    hierarchy = graph.hierarchy
    whole = graph if hierarchy is None else _every_level(graph, hierarchy)
    content = to_json(whole)
    for node, of_node in zip(whole.nodes, content["nodes"], strict=True):
        of_node["map"], of_node["ierf"] = (_packed(cells, block) for cells in (node.map, node.ierf))
        of_node["exemplars"] = [pictures.exemplar(each) for each in node.exemplars]
        of_node["thumbnail"] = pictures.thumbnail(node, graph.view)
    for edge, of_edge in zip(whole.edges, content["edges"], strict=True):
        of_edge["map"] = _packed(edge.map, block)
    if hierarchy is not None:
        content["hierarchy"] = {
            "shown": [node.id for node in graph.nodes if node.id in hierarchy.by_id],
            "pairs": [{**vars(pair), "maps": _all_packed(pair.maps, block)} for pair in hierarchy.pairs],
        }
    return {**content, "view": _inside("view.png", graph.view) if graph.view else ""}


def _every_level(graph: ConceptGraph, hierarchy: Hierarchy) -> ConceptGraph:
    """The graph with the nodes of all levels instead of those shown, row by row, and edges where they were pruned."""
    nodes = [*graph.classes]
    for layer in reversed(graph.layers):
        nodes += [node for node in hierarchy.nodes if node.layer == layer]
        nodes += [node for node in graph.row(layer) if node.kind == "residual"]
    shown = [node.id for node in graph.nodes if node.id in hierarchy.by_id]
    there = {(edge.source, edge.target): (edge.value, edge.weight, edge.share) for edge in graph.edges}
    whole = {(e.source, e.target): (e.value, e.weight, e.share) for e in hierarchy.edges(shown)}
    edges = () if there == whole else tuple(replace(edge, map=None) for edge in graph.edges)
    return replace(graph, nodes=tuple(nodes), edges=edges, hierarchy=None)


def _alike(graphs: Sequence[ConceptGraph]) -> list[ConceptGraph]:
    """The graphs, without what opens in them unless all have the same groups: two are opened together."""
    trees = [
        None if graph.hierarchy is None else {(n.id, n.parent, n.opens) for n in graph.hierarchy.nodes}
        for graph in graphs
    ]
    if all(tree == trees[0] for tree in trees):
        return list(graphs)
    return [replace(graph, hierarchy=None) for graph in graphs]


def _packed(cells: Cells | None, block: bytearray) -> dict[str, Any] | None:
    if cells is None:
        return None
    start = len(block)
    block += cells.content
    return {"rows": cells.rows, "columns": cells.columns, "scale": cells.scale, "start": start}


def _all_packed(maps: Sequence[Sequence[Cells]], block: bytearray) -> dict[str, Any] | None:
    """A table of maps of one size, one after the other."""
    every = [cells for row in maps for cells in row]
    if not every:
        return None
    start = len(block)
    for cells in every:
        block += cells.content
    scales = [[float(f"{cells.scale:.8g}") for cells in row] for row in maps]
    return {"rows": every[0].rows, "columns": every[0].columns, "start": start, "scales": scales}


def _labels(graph: ConceptGraph) -> str:
    return " and ".join(node.label for node in graph.classes)


def _template() -> str:
    return files("ierf.graph.picture").joinpath("page.html").read_text(encoding="utf-8")
