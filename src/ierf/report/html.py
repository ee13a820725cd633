"""The report as one HTML file, and the page that leads to many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from itertools import count
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from ierf.attribution import Ledger
from ierf.files import write
from ierf.report.components import Figure, Figures, bars, data_uri, document, figure, figures, image
from ierf.report.explain import Explanation, Prediction
from ierf.report.pictures import on_grid, overlay
from ierf.report.text import HOW_TO_READ, as_call, as_command, ledger_sentence, method_sentence, percent, signed


def save_report(explanation: Explanation, path: Path, pngs: bool) -> Path:
    """Write the page at `path`, and beside it (`pngs`) the folder NAME_pictures with its figures. Returns `path`."""
    shown = figures(explanation)
    if pngs:
        folder = path.with_name(f"{path.stem}_pictures")
        for drawn in shown.all():
            write(folder / f"{drawn.name}.png", drawn.png)
    return write(path, page(explanation, shown).encode())


def page(explanation: Explanation, shown: Figures) -> str:
    """A self-contained page: styles and pictures inside, no script, nothing fetched."""
    sections = [
        _header(explanation, shown.photo),
        *[_class_section(prediction, row) for prediction, row in shown.maps.items()],
        _features(explanation, shown),
        _account(explanation.ledger),
        _reading(),
        _again(explanation),
    ]
    return document(f"{explanation.name}: what {explanation.model_name} sees", "\n".join(filter(None, sections)))


def _header(explanation: Explanation, photo: Figure) -> str:
    width, height = explanation.photo.size
    return f"""<header>
{image(photo)}
<div>
<p class="eyebrow">{escape(explanation.model_name)}</p>
<h1>{escape(explanation.name)}</h1>
{bars(explanation.top, explanation.classes)}
<p class="note">{escape(method_sentence(explanation))}.
The model sees {width} × {height} pixels of this part of the photograph.</p>
{_LEGEND}
</div>
</header>"""


def _class_section(prediction: Prediction, row: Sequence[Figure]) -> str:
    label, share = escape(prediction.label), f"{100 * prediction.probability:.1f} %"
    return f"""<section>
<h2>Evidence for <em>{label}</em> <span class="number">{share}</span></h2>
<div class="row">{"".join(map(figure, row))}</div>
</section>"""


def _features(explanation: Explanation, shown: Figures) -> str:
    if not shown.fields:
        return ""
    label = escape(explanation.classes[0].label)
    rows = "".join(_layer(layer, explanation, row) for layer, row in shown.fields.items())
    return f"""<section>
<h2>Where these features come from</h2>
<p>Feature vectors that speak for <em>{label}</em>, and the pixels that caused them. A frame marks the vector’s
position.</p>
{rows}
</section>"""


def _layer(layer: str, explanation: Explanation, row: Sequence[Figure]) -> str:
    shape = next(field.map_shape for field in explanation.fields if field.layer == layer)
    size = f"{shape[0]} tokens" if len(shape) == 1 else " × ".join(map(str, shape))
    pictures = "".join(map(figure, row))
    return f'<h3><code>{escape(layer)}</code> <span class="number">{size}</span></h3><div class="row">{pictures}</div>'


def _account(account: Ledger | None) -> str:
    if account is None:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(entry.layer)}</code></td><td>{signed(entry.relevance_in)}</td>"
        f"<td>{signed(entry.relevance_out)}</td>"
        f"<td>{percent(entry.leaked / account.relevance_in) if account.relevance_in else '0 %'}</td></tr>"
        for entry in account.entries
    )
    return f"""<section>
<h2>The account</h2>
<p>{escape(ledger_sentence(account))}</p>
<details><summary>Layer by layer</summary>
<div class="scroll"><table><thead><tr><th scope="col">Layer</th><th scope="col">Arrived</th>
<th scope="col">Passed on</th><th scope="col">Leaked</th></tr></thead><tbody>{rows}</tbody></table></div></details>
</section>"""


def _reading() -> str:
    return f"<section><h2>How to read this</h2>{''.join(f'<p>{escape(text)}</p>' for text in HOW_TO_READ)}</section>"


def _again(explanation: Explanation) -> str:
    command = as_command(explanation)
    shell = f"<pre><code>{escape(command)}</code></pre>" if command else ""
    return f"<section><h2>Make it again</h2>{shell}<pre><code>{escape(as_call(explanation))}</code></pre></section>"


_LEGEND = (
    '<p class="legend"><span>evidence against</span><i class="scale" role="img" '
    'aria-label="Colour scale from blue, evidence against, over clear to red, evidence for"></i>'
    "<span>evidence for</span></p>"
)


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
