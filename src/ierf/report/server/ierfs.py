"""The pixels that caused one feature vector."""

from PIL import Image

from ierf.attribution.targets import PFV
from ierf.errors import IerfError
from ierf.report.explain import explain
from ierf.report.figures import figures
from ierf.report.server.asked import Ierf
from ierf.report.server.jobs import File, Progress, Result, Work
from ierf.report.server.maps import figure_entry, prediction_entry
from ierf.report.server.subject import Subject


def ierf(subject: Subject, picture: Image.Image, asked: Ierf) -> Work:
    """What computes it. Raises `IerfError` for a layer, class or method that does not exist, or a place outside."""
    method, grid = subject.rules(asked.method), subject.layer(asked.layer)
    row, column = asked.position
    if row >= grid.rows or column >= grid.columns:
        raise IerfError(
            f"{grid.name!r} has {grid.rows} rows and {grid.columns} columns, counted from 0: no ({row}, {column})"
        )
    target = None if asked.target is None else subject.classes([asked.target])

    def work(progress: Progress) -> Result:
        progress.at(f"the pixels behind {grid.name} at ({row}, {column})")
        found = explain(
            subject.model,
            picture,
            target,
            method=method,
            n_classes=1,
            resolutions=["low"],
            pfvs=[PFV(grid.name, (row, column))],
            **subject.options_of(method),
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
