"""The parts that all pages are made of: bars, figures, crops, facts, cards, tabs; `look.css` says how they look.

The page of a graph makes the same parts in the browser (`web/src/card.ts`) and is built with the same styles.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

from ierf.report.explain import Prediction
from ierf.report.figures import Figure


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
