"""A concept graph as a file: the interactive page that is built from `web/`, a picture, or JSON."""

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

from ierf.errors import UnknownNameError
from ierf.files import write
from ierf.graph.concept_graph import ConceptGraph
from ierf.graph.elements import SIGNIFICANT, Cells, Node
from ierf.graph.picture.drawing import mosaic, percent, svg
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


def left_out(graph: ConceptGraph) -> list[str]:
    """What the graph does not show, with its numbers."""
    said = _without_concepts(graph)
    if graph.layers:
        last, shown = graph.account(graph.layers[0]), [min(a.score_kept) for a in graph.accounts]
        least, most = percent(min(shown)), percent(max(shown))
        said.append(
            f"The shown concepts of a layer hold {least if least == most else f'{least} to {most}'} of what all of its "
            "concepts add to or take from a class."
        )
        said.append(
            f"Followed edge by edge from the classes down to {last.layer}, {percent(last.influence_kept)} of the score "
            "is left: the rest went to concepts that are not shown, to weak edges and to residuals on the way."
        )
        worst = max(graph.accounts, key=lambda account: account.residual_share)
        said.append(
            f"The concepts miss up to {percent(worst.residual_share)} of a layer ({worst.layer}): the residual nodes."
        )
        errors = max(account.completeness_error for account in graph.accounts)
        said.append(
            f"Attributions add up to the scores within {errors:.2g} of the score; the codes’ KKT residual is at most "
            f"{max(account.kkt for account in graph.accounts):.1g} λ."
        )
    keep = graph.settings.get("keep", 1)
    if keep < 1:
        said.append(
            f"Of the edges between two layers only the strongest, which carry {percent(keep)} of the flow there, are "
            "in this file; a graph that is built with keep=1 has all."
        )
    if graph.settings.get("patches_only", False):
        said.append(
            "Concepts were found in patches alone and may fit the class token badly; with `ierf collect "
            "--prefix-tokens` they are found in it too."
        )
    tested = [edge for edge in graph.edges if edge.p_value is not None]
    if tested:
        doubtful = sum((edge.p_value or 0) > SIGNIFICANT for edge in tested)
        said.append(
            f"{doubtful} of {len(tested)} edges are no stronger than those of concepts drawn at random "
            f"(p > {SIGNIFICANT}); they are dashed."
        )
    return said


def _without_concepts(graph: ConceptGraph) -> list[str]:
    """Why layers show no concept, and what helps; nothing where all show some."""
    empty = [a for a in graph.accounts if not any(node.kind == "concept" for node in graph.row(a.layer))]
    silent, found = [a.layer for a in empty if not a.active], [a.layer for a in empty if a.active]
    said = []
    if silent:
        said.append(
            f"No concept of {', '.join(silent)} is in a PFV here, so only residuals are shown: its λ leaves no "
            "coefficient, as that of a bank with few concepts does; fit the bank with a smaller l0_ratio "
            "(--l0-ratio), or to more photographs."
        )
    if found:
        said.append(
            f"The concepts of {', '.join(found)} that are in this picture speak for none of the classes, so none is "
            "shown; ask for other classes, or fit the bank to more photographs."
        )
    return said


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
    picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(content, "WEBP", quality=_QUALITY)
    return _inside("thumbnail.webp", content.getvalue())


def _labels(graph: ConceptGraph) -> str:
    return " and ".join(node.label for node in graph.classes)


def _template() -> str:
    return files("ierf.graph.picture").joinpath("page.html").read_text(encoding="utf-8")
