"""The pictures of a report, with the words that go with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO

from PIL import Image
from torch import Tensor

from ierf.attribution.one_pass import PFVField
from ierf.report.explain import Explanation, Prediction
from ierf.report.pictures import Size, cells, display_sigma, on_grid, overlay, spotlight, with_inset
from ierf.report.text import signed, slug

_TITLES = {"low": "Low: the encoder’s output", "high": "High: half way", "input": "Input: the pixels"}
_MOST_CELLS_FRAMED = 32
"""Maps up to this many cells wide also show their cells as they are."""


@dataclass(frozen=True, eq=False)
class Figure:
    """One picture: `name` is its file's, without suffix."""

    name: str
    title: str
    caption: str
    alt: str
    picture: Image.Image

    @cached_property
    def png(self) -> bytes:
        buffer = BytesIO()
        self.picture.save(buffer, "PNG")
        return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class Figures:
    """All pictures of a report in its order; maps by class, iERFs by layer."""

    photo: Figure
    maps: dict[Prediction, list[Figure]]
    fields: dict[str, list[Figure]]

    def all(self) -> Iterator[Figure]:
        yield self.photo
        for group in (*self.maps.values(), *self.fields.values()):
            yield from group


def figures(explanation: Explanation) -> Figures:
    """The photograph, every map over it, and the pixels behind every PFV."""
    photo = Figure("photo", "", "", f"The photograph {explanation.name}", explanation.scene)
    by_layer: dict[str, list[Figure]] = {}
    for field in explanation.fields:
        by_layer.setdefault(field.layer, []).append(_field_figure(explanation, field))
    maps = {
        prediction: [_map_figure(explanation, prediction, name, values) for name, values in of_class.items()]
        for prediction, of_class in zip(explanation.classes, explanation.maps.values(), strict=True)
    }
    return Figures(photo, maps, by_layer)


def _map_figure(explanation: Explanation, prediction: Prediction, resolution: str, values: Tensor) -> Figure:
    grid = on_grid(values, _input_size(explanation))
    rows, columns = grid.shape
    sigma = display_sigma(grid)
    picture, display = overlay(explanation.scene, grid), f" Smoothed for display (σ = {sigma:.1f} px)." if sigma else ""
    if columns <= _MOST_CELLS_FRAMED:
        picture, display = with_inset(picture, cells(explanation.scene, grid)), " Inset: the cells as they are."
    return Figure(
        name=f"class-{prediction.class_index}-{slug(prediction.label)}-{slug(resolution)}",
        title=_TITLES.get(resolution, f"Layer {resolution}"),
        caption=f"{rows} × {columns}, sum of relevance {signed(float(values.double().sum()))}.{display}",
        alt=f"Evidence for {prediction.label} in {explanation.name}, {resolution} resolution, over the photograph",
        picture=picture,
    )


def _field_figure(explanation: Explanation, field: PFVField) -> Figure:
    size = _input_size(explanation)
    picture = spotlight(explanation.scene, on_grid(field.ierf, size), field.cell, field.cells)
    return Figure(
        name=f"ierf-{slug(field.layer)}-{'-'.join(map(str, field.position))}",
        title=_title(field),
        caption=f"{field.share:.1%} of the layer’s evidence, relevance {signed(field.relevance)}.".replace("%", " %"),
        alt=f"The pixels of {explanation.name} that caused {_title(field)} of {field.layer}",
        picture=picture,
    )


def _title(field: PFVField) -> str:
    """A position of a map, a patch, or the number of a token that is neither."""
    if len(field.map_shape) > 1:
        return f"PFV ({', '.join(map(str, field.position))})"
    token = field.position[0]
    return f"Token {token}" if field.cell is None else f"Patch {field.cell}, token {token}"


def _input_size(explanation: Explanation) -> Size:
    return explanation.photo.height, explanation.photo.width
