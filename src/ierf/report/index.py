"""The page that leads to many reports, and the names of their files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from itertools import count
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from ierf.files import write
from ierf.report.components import data_uri, document
from ierf.report.explanation import Explanation, Prediction
from ierf.report.pictures import on_grid, overlay

RESERVED = "index"
"""The page that leads to all reports."""


def distinct_stems(photos: Sequence[Path]) -> Iterator[str]:
    """A name for each photograph's report: the photograph's own without suffix, numbered where it comes again.

    Names that differ in case only count as the same, as some file systems have it.
    """
    taken = {RESERVED}
    for photo in photos:
        numbered = (f"{photo.stem}-{number}" if number > 1 else photo.stem for number in count(1))
        stem = next(name for name in numbered if name.casefold() not in taken)
        taken.add(stem.casefold())
        yield stem


_SIDE = 160


@dataclass(frozen=True, eq=False)
class Card:
    """What the index remembers of one report, so that the explanation itself can go."""

    report: Path
    name: str
    model_name: str
    best: Prediction
    photo: bytes
    map: bytes
    """Thumbnails, PNG."""


def card(explanation: Explanation, report: Path) -> Card:
    """The card of a report saved at `report`: the photograph, and its finest map of the first class, if it has any."""
    first, picture = explanation.maps[explanation.classes[0].class_index], explanation.scene
    if first:
        finest = max(first.values(), key=lambda values: values.numel())
        picture = overlay(picture, on_grid(finest, (explanation.photo.height, explanation.photo.width)))
    return Card(
        report, explanation.name, explanation.model_name, explanation.top[0], _small(explanation.scene), _small(picture)
    )


def save_index(cards: Sequence[Card], path: Path) -> Path:
    """Write a page that links to every report, by relative address. Returns `path`."""
    title = f"{len(cards)} photograph{'s' if len(cards) != 1 else ''}"
    models = ", ".join(dict.fromkeys(card.model_name for card in cards))
    items = "".join(_item(card, path.parent) for card in cards)
    body = f'<p class="eyebrow">{escape(models)}</p><h1>{title}</h1><ul class="cards">{items}</ul>'
    write(path, document(title, body).encode())
    return path


def _item(card: Card, folder: Path) -> str:
    address = quote(card.report.relative_to(folder).as_posix())
    name, label = escape(card.name), escape(card.best.label)
    return (
        f'<li><a href="{address}"><span class="pair">'
        f'<img src="{data_uri(card.photo)}" alt="The photograph {name}">'
        f'<img src="{data_uri(card.map)}" alt="Evidence for the class explained first in {name}"></span>'
        f'<strong>{name}</strong><br><span class="number">{label}, {100 * card.best.probability:.1f} %</span></a></li>'
    )


def _small(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    thumbnail = picture.copy()
    thumbnail.thumbnail((_SIDE * 2, _SIDE * 2), Image.Resampling.BOX)
    thumbnail.save(buffer, "PNG")
    return buffer.getvalue()
