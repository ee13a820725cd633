"""The parts that all pages are made of: pictures with their words, bars, crops, facts, cards, tabs.

`look.css` says how they look. The page of a graph makes the same parts in the browser (`web/src/card.ts`) and is built
with the same styles.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from importlib.resources import files
from io import BytesIO
from string import Template

from PIL import Image
from torch import Tensor

from ierf.attribution import PFVField
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


def document(title: str, body: str) -> str:
    """A whole page around `body`, which is HTML; `title` is text."""
    template, styles = Template(resource("page.html")), resource("look.css") + resource("report.css")
    return template.substitute(title=escape(title), styles=styles.strip(), body=body)


def resource(name: str) -> str:
    """A style, script or template of the reports."""
    return files("ierf.report").joinpath(name).read_text(encoding="utf-8")


def data_uri(png: bytes) -> str:
    """A picture inside a page."""
    return f"data:image/png;base64,{b64encode(png).decode()}"


def bars(top: Sequence[Prediction], explained: Sequence[Prediction] = ()) -> str:
    """Probabilities as a list with bars; the classes explained are set in bold."""
    return f'<ol class="bars">{"".join(_bar(p, p in explained) for p in top)}</ol>'


def figure(shown: Figure) -> str:
    """A picture above its title and caption."""
    return (
        f"<figure>{image(shown)}"
        f"<figcaption><strong>{escape(shown.title)}</strong><br>{escape(shown.caption)}</figcaption></figure>"
    )


def image(shown: Figure) -> str:
    """A figure's picture, inside the page."""
    width, height = shown.picture.size
    return f'<img src="{data_uri(shown.png)}" alt="{escape(shown.alt)}" width="{width}" height="{height}">'


def crops(addresses: Iterable[str], alts: Iterable[str], across: int = 5) -> str:
    """Small square pictures in rows, loaded when they come into sight."""
    pictures = "".join(
        f'<img loading="lazy" src="{at}" alt="{escape(alt)}" title="{escape(alt)}">'
        for at, alt in zip(addresses, alts, strict=True)
    )
    return f'<div class="crops" style="--across:{across}">{pictures}</div>'


def facts(known: Mapping[str, str]) -> str:
    """Names with their values."""
    return f'<dl class="facts">{"".join(f"<dt>{escape(n)}</dt><dd>{escape(v)}</dd>" for n, v in known.items())}</dl>'


def classes(shares: Sequence[Prediction]) -> str:
    """The predicted classes of the photographs that something is in; nothing where there are none."""
    return f"<h4>Predicted classes where it is</h4>{bars(shares)}" if shares else ""


def concept(anchor: str, index: int, aside: str, labels: Iterable[str], parts: str, keys: Mapping[str, float]) -> str:
    """The card of a concept or latent; a search finds it by its number and by `labels`, `keys` sort it."""
    words = " ".join([str(index), f"#{index}", *labels]).lower()
    sorting = "".join(f' data-{name}="{value}"' for name, value in keys.items())
    return f"""<article class="concept" id="{escape(anchor)}" data-words="{escape(words)}"{sorting}>
<h3><span>#{index}</span><span class="number">{escape(aside)}</span></h3>
{parts}</article>"""


def layer(number: int, heading: str, note: str, cards: str) -> str:
    """What the tab of this number shows; `heading` is HTML."""
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"""<section class="layer" id="layer-{number}" role="tabpanel" aria-labelledby="tab-{number}">
<h2>{heading}</h2>
{said}<div class="concepts">{cards}</div></section>"""


def tabbed(
    title: str, model: str, intro: str, layers: Mapping[str, str], tools: str = "", scripts: Sequence[str] = ()
) -> str:
    """A page of cards to search, one tab for each of the layers' sections; `intro` and `tools` are HTML."""
    tabs = "".join(
        f'<button type="button" role="tab" id="tab-{i}" aria-controls="layer-{i}">{escape(name)}</button>'
        for i, name in enumerate(layers)
    )
    body = f"""<style>{resource("concepts.css")}</style>
<p class="eyebrow">{escape(model)}</p>
<h1>{escape(title)}</h1>
<p>{intro}</p>
<div class="tools"><div class="tabs" role="tablist" aria-label="Layers">{tabs}</div>
<input id="search" type="search" placeholder="Class or number" aria-label="Search cards by class or number">
{tools}<span id="found" class="number" role="status"></span></div>
{"".join(layers.values())}
<script>{"".join(map(resource, ("concepts.js", *scripts)))}</script>"""
    return document(f"{title} of {model}", body)


def _bar(prediction: Prediction, strong: bool) -> str:
    share = f"{100 * prediction.probability:.1f}"
    label = escape(prediction.label)
    return (
        f'<li><span class="label">{f"<strong>{label}</strong>" if strong else label}</span>'
        f'<span class="bar" aria-hidden="true"><i style="width:{share}%"></i></span>'
        f'<span class="number">{share} %</span></li>'
    )
