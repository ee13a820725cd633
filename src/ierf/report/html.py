"""The report as one HTML file."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ierf.attribution import Ledger
from ierf.files import write
from ierf.report.components import bars, document, figure, image
from ierf.report.explanation import Explanation, Prediction
from ierf.report.figures import Figure, Figures, figures
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
