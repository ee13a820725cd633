"""A concept graph as an interactive page: the page built from `web/`, with graphs and pictures put into it."""

import json
import zlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from ierf.files import write
from ierf.graph.files.schema import to_json
from ierf.graph.picture.thumbnails import mosaic
from ierf.graph.picture.words import left_out
from ierf.graph.structure.cells import Cells
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.node import Node
from ierf.store import only_writer

SIDE = 96
"""Pixels of a node's picture."""
_QUALITY = 70

Address = Callable[[str, bytes], str]
"""Where a page finds the picture with this name and content."""


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
    block = bytearray()
    content: dict[str, Any] = {
        "title": title if title is not None else f"{graphs[0].photo}: {_labels(graphs[0])}",
        "graphs": [_graph(graph, address or _inside, block) for graph in graphs],
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


def _graph(graph: ConceptGraph, address: Address, block: bytearray) -> dict[str, Any]:
    """The graph as JSON with addresses for pictures; the cells of maps go to the end of the block."""
    content = to_json(graph)
    for node, of_node in zip(graph.nodes, content["nodes"], strict=True):
        of_node["map"], of_node["ierf"] = (_packed(cells, block) for cells in (node.map, node.ierf))
        of_node["exemplars"] = [address(_name(graph, node, i), each) for i, each in enumerate(node.exemplars)]
        of_node["thumbnail"] = _thumbnail(node)
    for edge, of_edge in zip(graph.edges, content["edges"], strict=True):
        of_edge["map"] = _packed(edge.map, block)
    return {**content, "view": _inside("view.png", graph.view) if graph.view else ""}


def _packed(cells: Cells | None, block: bytearray) -> dict[str, Any] | None:
    if cells is None:
        return None
    start = len(block)
    block += cells.content
    return {"rows": cells.rows, "columns": cells.columns, "scale": cells.scale, "start": start}


def _name(graph: ConceptGraph, node: Node, number: int) -> str:
    return f"{graph.layers.index(node.layer)}-{node.index}-{number}.jpg"


def _thumbnail(node: Node) -> str:
    """Always inside the page: it is what the graph is made of."""
    picture = mosaic(node.exemplars)
    if picture is None:
        return ""
    content = BytesIO()
    picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(content, "WEBP", quality=_QUALITY)
    return _inside("thumbnail.webp", content.getvalue())


def _labels(graph: ConceptGraph) -> str:
    return " and ".join(node.label for node in graph.classes)


def _template() -> str:
    return files("ierf.graph.picture").joinpath("page.html").read_text(encoding="utf-8")
