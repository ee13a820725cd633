"""Concept graphs as files."""

import json
from pathlib import Path

from ierf.errors import IerfError, UnknownNameError
from ierf.graph.concept_graph import ConceptGraph
from ierf.graph.drawing import svg
from ierf.graph.page import page
from ierf.graph.schema import from_json, to_json

SUFFIXES = (".json", ".html", ".svg")


def save(graph: ConceptGraph, path: Path) -> Path:
    """The graph in the form that the suffix names; folders are made."""
    if path.suffix not in SUFFIXES:
        raise UnknownNameError("form of a graph", path.suffix or str(path), SUFFIXES)
    return write_text(path, _content(graph, path.suffix))


def load(path: Path) -> ConceptGraph:
    """The graph in a JSON file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise IerfError(f"cannot read the concept graph {str(path)!r}: {error.strerror or error}") from error
    except ValueError:
        raise IerfError(f"{str(path)!r} is not a concept graph: it is not JSON") from None
    return from_json(content, str(path))


def write_text(path: Path, content: str) -> Path:
    """Put the text at `path`; missing folders are made. Raises `IerfError` with the reason where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise IerfError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path


def _content(graph: ConceptGraph, suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(to_json(graph), indent=1, allow_nan=False)
    return svg(graph) if suffix == ".svg" else page(graph)
