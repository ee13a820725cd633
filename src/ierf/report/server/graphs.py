"""The concept graph of a photograph, and its concepts one by one."""

import json
from typing import TYPE_CHECKING, Any

from PIL import Image

from ierf.report.server.asked import Graph
from ierf.report.server.jobs import File, Progress, Result, Work
from ierf.report.server.subject import Subject

if TYPE_CHECKING:
    from ierf.graph import ConceptGraph

PAGE, DATA = "graph.html", "graph.json"


def graph(subject: Subject, picture: Image.Image, asked: Graph) -> Work:
    """What computes it. Raises `IerfError` for a class or layer that does not exist, and without a bank."""
    bank = subject.concepts()
    named = None if asked.classes is None else subject.classes(asked.classes)
    wanted = [bank.layer(name).name for name in asked.layers or bank.layers]
    layers = [name for name in bank.layers if name in wanted]

    def work(progress: Progress) -> Result:
        from ierf.graph import ConceptGraph, page, to_json

        made = ConceptGraph.build(subject.model, bank, picture, named, layers, keep=asked.keep, progress=progress.at)
        progress.at("the page")
        files = {
            PAGE: File("text/html; charset=utf-8", page(made).encode()),
            DATA: File("application/json", json.dumps(to_json(made), allow_nan=False).encode()),
        }
        rows = [_row(made, layer, files) for layer in reversed(made.layers)]
        classes = [{"index": node.index, "label": node.label} for node in made.classes]
        content = {"classes": classes, "rows": rows, "page": PAGE, "data": DATA}
        return Result(content, files)

    return work


def found_by(result: Result | None) -> "ConceptGraph | None":
    """The graph that such a job made; None for another job's result."""
    from ierf.graph import from_json

    if result is None or DATA not in result.files:
        return None
    return from_json(json.loads(result.files[DATA].content), DATA)


def _row(made: "ConceptGraph", layer: str, files: dict[str, File]) -> dict[str, Any]:
    """A layer's concepts, the most important first."""
    from ierf.graph import caused, mosaic
    from ierf.graph import jpeg as encoded

    entries = []
    concepts = [node for node in made.row(layer) if node.kind == "concept"]
    for node in sorted(concepts, key=lambda node: -max(map(abs, node.importance))):
        pictures = {"elsewhere": mosaic(node.exemplars), "here": caused(made.view, node)}
        names = {what: f"{layer}-{node.index}-{what}.jpg" for what, shown in pictures.items() if shown is not None}
        files |= {names[what]: File("image/jpeg", encoded(s)) for what, s in pictures.items() if s is not None}
        entries.append({"id": node.id, "label": node.label, "importance": node.importance, **names})
    return {"layer": layer, "concepts": entries}
