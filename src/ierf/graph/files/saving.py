"""Concept graphs as files."""

import json
from pathlib import Path

from ierf.errors import IerfError, UnknownNameError
from ierf.files import write
from ierf.graph.files.schema import from_json, to_json
from ierf.graph.picture.drawing import svg
from ierf.graph.picture.page import save_page
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.typed import FieldError, parsed

SUFFIXES = (".json", ".html", ".svg")


def save(graph: ConceptGraph, path: Path, single_file: bool) -> Path:
    """The graph in the form that the suffix names; folders are made."""
    if path.suffix not in SUFFIXES:
        raise UnknownNameError("form of a graph", path.suffix or str(path), SUFFIXES)
    if path.suffix == ".html":
        return save_page(path, graph, single_file=single_file)
    text = svg(graph) if path.suffix == ".svg" else json.dumps(to_json(graph), indent=1, allow_nan=False)
    return write(path, text.encode())


def load(path: Path) -> ConceptGraph:
    """The graph in a JSON file."""
    try:
        content = parsed(path.read_bytes())
    except OSError as error:
        raise IerfError(f"cannot read the concept graph {str(path)!r}: {error.strerror or error}") from error
    except FieldError as error:
        raise IerfError(f"{str(path)!r} is not a concept graph: {error}") from None
    return from_json(content, str(path))
