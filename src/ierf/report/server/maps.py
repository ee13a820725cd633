"""The maps of a photograph: all classes from one forward pass where the method can, else class by class."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ierf.attribution.passes import RULES
from ierf.report.explain import explain
from ierf.report.explanation import Explanation, Prediction
from ierf.report.figures import Figure, figures
from ierf.report.server.asked import Maps
from ierf.report.server.jobs import File, Progress, Result, Work
from ierf.report.server.subject import Subject
from ierf.report.words import ledger_sentence, method_sentence

SHOWN = 3
"""Classes, if none are named."""
TOP = 5
"""Predictions that are listed."""


def maps(subject: Subject, picture: Image.Image, asked: Maps) -> Work:
    """What computes them. Raises `IerfError` for a class, method or resolution that does not exist."""
    method = subject.method(asked.method)
    resolutions = None if asked.resolution is None else [subject.resolution(asked.resolution)]
    named = None if asked.classes is None else subject.classes(asked.classes)

    def work(progress: Progress) -> Result:
        progress.at("reading the photograph")
        ranked = subject.predictions(picture)
        chosen = named or [prediction.class_index for prediction in ranked[:SHOWN]]
        content: dict[str, Any] = {"top": [prediction_entry(prediction) for prediction in ranked[:TOP]]}
        files: dict[str, File] = {}
        at_once = [chosen] if method in RULES else [[index] for index in chosen]
        for number, group in enumerate(at_once):
            names = ", ".join(map(subject.model.label, group))
            progress.at(f"evidence for {names}", number, len(at_once) if len(at_once) > 1 else None)
            options = subject.options_of(method)
            found = explain(subject.model, picture, group, method=method, resolutions=resolutions, **options)
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
