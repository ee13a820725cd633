"""What each kind of job computes: maps, the iERF of one PFV, a concept graph, an intervention."""

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from ierf.attribution import RULES
from ierf.attribution.targets import PFV
from ierf.errors import IerfError
from ierf.report.components import Figure, figures
from ierf.report.explain import Explanation, Prediction, explain
from ierf.report.server.jobs import File, JobProgress, Result, Work
from ierf.report.server.schemas import GraphRequest, IerfRequest, InterventionRequest, MapsRequest
from ierf.report.server.served_model import ServedModel
from ierf.report.text import ledger_sentence, method_sentence

if TYPE_CHECKING:
    from ierf.graph import ConceptGraph, Intervention


SHOWN = 3
"""Classes, if none are named."""
TOP = 5
"""Predictions that are listed."""


def maps(served: ServedModel, picture: Image.Image, asked: MapsRequest) -> Work:
    """What computes them. Raises `IerfError` for a class, method or resolution that does not exist."""
    method = served.method(asked.method)
    resolutions = None if asked.resolution is None else [served.resolution(asked.resolution)]
    named = None if asked.classes is None else served.classes(asked.classes)

    def work(progress: JobProgress) -> Result:
        progress.at("reading the photograph")
        ranked = served.predictions(picture)
        chosen = named or [prediction.class_index for prediction in ranked[:SHOWN]]
        content: dict[str, Any] = {"top": [prediction_entry(prediction) for prediction in ranked[:TOP]]}
        files: dict[str, File] = {}
        at_once = [chosen] if method in RULES else [[index] for index in chosen]
        for number, group in enumerate(at_once):
            names = ", ".join(map(served.model.label, group))
            progress.at(f"evidence for {names}", number, len(at_once) if len(at_once) > 1 else None)
            options = served.options_of(method)
            found = explain(served.model, picture, group, method=method, resolutions=resolutions, **options)
            _add(found, content, files)
        return Result(content, files)

    return work


def _add(found: Explanation, content: dict[str, Any], files: dict[str, File]) -> None:
    """Put an explanation's classes, features and sentences into a result."""
    drawn = figures(found)
    for (prediction, row), values in zip(drawn.maps.items(), found.maps.values(), strict=True):
        pairs = zip(row, values.items(), strict=True)
        entries = [figure_entry(figure, numbers, name, files) for figure, (name, numbers) in pairs]
        content.setdefault("classes", []).append({**prediction_entry(prediction), "maps": entries})
    shown = [figure for row in drawn.fields.values() for figure in row]
    content["features"] = [
        figure_entry(figure, field.ierf, field.layer, files) for figure, field in zip(shown, found.fields, strict=True)
    ]
    account = found.ledger and ledger_sentence(found.ledger)
    content["said"] = [sentence for sentence in (method_sentence(found), account) if sentence]


def prediction_entry(prediction: Prediction) -> dict[str, Any]:
    return {"index": prediction.class_index, "label": prediction.label, "probability": prediction.probability}


def figure_entry(figure: Figure, values: Tensor, name: str, files: dict[str, File]) -> dict[str, Any]:
    """A picture with its words and numbers; its files are added to `files`."""
    picture, numbers = f"{figure.name}.png", f"{figure.name}.npy"
    files[picture] = File("image/png", figure.png)
    files[numbers] = File("application/octet-stream", npy(values))
    return {
        "name": name,
        "title": figure.title,
        "caption": figure.caption,
        "alt": figure.alt,
        "picture": picture,
        "numbers": numbers,
    }


def npy(values: Tensor) -> bytes:
    """The numbers as a file that `numpy.load` reads."""
    content = BytesIO()
    np.save(content, values.detach().cpu().numpy(), allow_pickle=False)
    return content.getvalue()


def ierf(served: ServedModel, picture: Image.Image, asked: IerfRequest) -> Work:
    """What computes it. Raises `IerfError` for a layer, class or method that does not exist, or a place outside."""
    method, grid = served.rules(asked.method), served.layer(asked.layer)
    row, column = asked.position
    if row >= grid.rows or column >= grid.columns:
        raise IerfError(
            f"{grid.name!r} has {grid.rows} rows and {grid.columns} columns, counted from 0: no ({row}, {column})"
        )
    target = None if asked.target is None else served.classes([asked.target])

    def work(progress: JobProgress) -> Result:
        progress.at(f"the pixels behind {grid.name} at ({row}, {column})")
        found = explain(
            served.model,
            picture,
            target,
            method=method,
            n_classes=1,
            resolutions=["low"],
            pfvs=[PFV(grid.name, (row, column))],
            **served.options_of(method),
        )
        files: dict[str, File] = {}
        (field,), (shown,) = found.fields, figures(found).fields[grid.name]
        entry = figure_entry(shown, field.ierf, grid.name, files)
        content = {
            **entry,
            "target": prediction_entry(found.classes[0]),
            "relevance": field.relevance,
            "share": field.share,
        }
        return Result(content, files)

    return work


PAGE, DATA = "graph.html", "graph.json"


def graph(served: ServedModel, picture: Image.Image, asked: GraphRequest) -> Work:
    """What computes it. Raises `IerfError` for a class or layer that does not exist, and without a bank."""
    bank = served.concepts()
    named = None if asked.classes is None else served.classes(asked.classes)
    wanted = [bank.layer(name).name for name in asked.layers or bank.layers]
    layers = [name for name in bank.layers if name in wanted]

    def work(progress: JobProgress) -> Result:
        from ierf.graph import ConceptGraph, page, to_json

        made = ConceptGraph.build(
            served.model,
            bank,
            picture,
            named,
            layers,
            nodes=asked.nodes,
            budget=asked.budget,
            keep=asked.keep,
            progress=progress.at,
        )
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
    """A layer's concepts, or groups of them, the most important first."""
    from ierf.graph import caused, mosaic
    from ierf.graph import jpeg as encoded

    entries = []
    concepts = [node for node in made.row(layer) if node.of_bank]
    for node in sorted(concepts, key=lambda node: -max(map(abs, node.importance))):
        pictures = {"elsewhere": mosaic(node.exemplars), "here": caused(made.view, node)}
        names = {
            what: f"{layer}-{node.id.rpartition('/')[2]}-{what}.jpg"
            for what, shown in pictures.items()
            if shown is not None
        }
        files |= {names[what]: File("image/jpeg", encoded(s)) for what, s in pictures.items() if s is not None}
        entries.append({"id": node.id, "label": node.label, "importance": node.importance, **names})
    return {"layer": layer, "concepts": entries}


LEADING = 5
"""Classes shown: so many of the most probable, before and after."""


def intervention(served: ServedModel, picture: Image.Image, asked: InterventionRequest, made: Result | None) -> Work:
    """What computes it. Raises `IerfError` for a concept or class that does not exist, and without a bank.

    Where a graph was `made` and all concepts are its own, of one layer, its claims are set beside what happens.
    """
    bank = served.concepts()
    delete = [served.concept(name) for name in dict.fromkeys(asked.delete)]
    insert = {served.concept(name): value for name, value in asked.insert.items()}
    named = served.classes(asked.classes)

    def work(progress: JobProgress) -> Result:
        from ierf.graph import intervene

        progress.at("running the network on")
        of_graph = found_by(made)
        refit = of_graph is not None and bool(of_graph.settings.get("refit", False))
        found = intervene(served.model, bank, served.model.prepare(picture), delete, insert, refit)
        classes = _classes(found.before[0].double(), found.after[0].double(), named, served)
        return Result({"classes": classes, "claims": _claims(of_graph, found)}, {})

    return work


def _classes(before: Tensor, after: Tensor, named: list[int], served: ServedModel) -> list[dict[str, Any]]:
    """The classes named, and those that lead before or after, by their logit before."""
    leading = [i for logits in (before, after) for i in logits.topk(min(LEADING, len(logits))).indices.tolist()]
    chances = before.softmax(0), after.softmax(0)
    return [
        {
            "index": index,
            "label": served.model.label(index),
            "logits": [float(before[index]), float(after[index])],
            "probabilities": [float(chance[index]) for chance in chances],
        }
        for index in sorted({*named, *leading}, key=lambda i: -float(before[i]))
    ]


def _claims(graph: "ConceptGraph | None", found: "Intervention") -> list[dict[str, Any]]:
    from ierf.graph import claims

    layers = {name.rpartition("/")[0] for name in found.deleted}
    if graph is None or found.inserted or len(layers) != 1 or any(name not in graph.by_id for name in found.deleted):
        return []
    return [{"label": claim.label, "claimed": claim.claimed, "lost": claim.lost} for claim in claims(graph, found)]
