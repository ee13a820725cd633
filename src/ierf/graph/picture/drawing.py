"""A concept graph as one SVG picture: rows of cards with pictures, edges by influence, light and dark (VI, Fig. 9)."""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from ierf.graph.concept_graph import ConceptGraph
from ierf.graph.elements import LOGITS, SIGNIFICANT, Cells, Edge, Node
from ierf.store.pictures import lit

_CARD = (156, 108)
"""Width and height of a node's card."""
_GAP = 18
_ROW = 212
"""From one row's top to the next one's."""
_MARGIN = 168
"""On the left, for the layers' names."""
_TOP = 24

_PICTURE = 68
"""Side of a picture on a card."""
_INSET = 7
_WIDEST = 6.0
_CLASS_COLOURS = 4

_THUMBNAIL = 128
"""Pixels of a thumbnail: about twice as many as it is drawn with."""

_LIGHT = 0.45
"""Mean brightness that a small dark picture is lifted to, of 1."""
_MOST_LIFTED = 0.45
"""Of its exponent."""

_LEAST_SHARE = 0.01


def svg(graph: ConceptGraph) -> str:
    """The picture, self-contained: `<svg>` with its styles and pictures inside, no script."""
    where = lay_out(graph)
    body = "\n".join((*_rows(graph, where), *_edges(graph, where), *_cards(graph, where)))
    title = f"Concept graph of {graph.photo}, {graph.model}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="icg" viewBox="0 0 {where.width:g} {where.height:g}" '
        f'width="{where.width:g}" height="{where.height:g}" role="img">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n"
        f'<rect class="paper" width="{where.width:g}" height="{where.height:g}"/>\n{body}\n</svg>\n'
    )


@dataclass(frozen=True)
class Layout:
    """The upper left corner of every node's card, and the size of the whole."""

    corners: Mapping[str, tuple[float, float]]
    rows: Mapping[str, float]
    """The top of each layer's row."""
    width: float
    height: float


def lay_out(graph: ConceptGraph) -> Layout:
    """Rows centred; in each, nodes stand near the middle of what they lead to, residuals at the right end."""
    layers = [LOGITS, *reversed(graph.layers)]
    rows = [list(graph.row(layer)) for layer in layers]
    widest = max((len(row) for row in rows), default=1)
    width = _MARGIN + max(1, widest) * (_CARD[0] + _GAP) + _GAP
    middle: dict[str, float] = {}
    corners: dict[str, tuple[float, float]] = {}
    for i, row in enumerate(rows):
        ordered = _ordered(row, graph, middle)
        left = _MARGIN + (width - _MARGIN - len(row) * (_CARD[0] + _GAP) + _GAP) / 2
        for j, node in enumerate(ordered):
            x = left + j * (_CARD[0] + _GAP)
            corners[node.id] = (x, _TOP + i * _ROW)
            middle[node.id] = x + _CARD[0] / 2
    tops = {layer: float(_TOP + i * _ROW) for i, layer in enumerate(layers)}
    return Layout(corners, tops, float(width), float(_TOP + (len(layers) - 1) * _ROW + _CARD[1] + _TOP))


def _ordered(row: Sequence[Node], graph: ConceptGraph, middle: Mapping[str, float]) -> list[Node]:
    """By the mean place of the nodes that each leads to, weighted by the edges."""

    def place(node: Node) -> tuple[int, float]:
        out = [(edge.weight, middle[edge.target]) for edge in graph.edges if edge.source == node.id]
        total = sum(weight for weight, _ in out)
        return (node.kind == "own") + 2 * (node.kind == "residual"), sum(
            weight * x for weight, x in out
        ) / total if total else 0.0

    return sorted(row, key=place)


def _rows(graph: ConceptGraph, where: Layout) -> Iterator[str]:
    """The layers' names, and what their rows leave out."""
    for layer, top in where.rows.items():
        y = top + _CARD[1] / 2
        yield f'<text class="layer" x="16" y="{y - 10:g}">{escape("classes" if layer == LOGITS else layer)}</text>'
        if layer != LOGITS:
            account = graph.account(layer)
            shares = (
                f"{percent(min(account.score_kept, default=0.0))} of its evidence",
                f"{percent(account.influence_kept)} of the flow",
                f"{percent(account.influence_residual)} to the residual",
            )
            for i, text in enumerate(shares):
                yield f'<text class="soft" x="16" y="{y + 10 + 15 * i:g}">{escape(text)}</text>'


def _edges(graph: ConceptGraph, where: Layout) -> Iterator[str]:
    """The strongest are drawn last, on top."""
    for edge in sorted(graph.edges, key=lambda e: e.weight):
        yield _edge(edge, where)


def _edge(edge: Edge, where: Layout) -> str:
    x0, y0 = where.corners[edge.source]
    x1, y1 = where.corners[edge.target]
    x0, x1, y1 = x0 + _CARD[0] / 2, x1 + _CARD[0] / 2, y1 + _CARD[1]
    bend = (y0 - y1) / 2
    strength = min(1.0, edge.weight)
    kind = ("against" if edge.sign < 0 else "for") + (" doubtful" if (edge.p_value or 0) > SIGNIFICANT else "")
    said = "" if edge.p_value is None else f", p {edge.p_value:.2g}"
    return (
        f'<path class="edge {kind}" d="M{x0:g} {y0:g}C{x0:g} {y0 - bend:g} {x1:g} {y1 + bend:g} {x1:g} {y1:g}" '
        f'stroke-width="{0.7 + (_WIDEST - 0.7) * strength:.2f}" stroke-opacity="{0.22 + 0.68 * strength:.2f}">'
        f"<title>{escape(edge.source)} → {escape(edge.target)}: {edge.value:+.3g}, "
        f"{escape(percent(edge.share))} of its score{said}</title></path>"
    )


def _cards(graph: ConceptGraph, where: Layout) -> Iterator[str]:
    for node in graph.nodes:
        x, y = where.corners[node.id]
        inside = {"class": _class, "own": _own, "residual": _residual}.get(node.kind, _concept)(graph, node)
        said = f"{node.id}: {percent(node.influence)} of the flow"
        if beside := off_the_map(node):
            said += f"; {beside}: at the class token or registers, which no map shows"
        flow = f"<title>{escape(said)}</title>"
        yield (
            f'<g class="card {node.kind}" transform="translate({x:g} {y:g})">{flow}'
            f'<rect width="{_CARD[0]}" height="{_CARD[1]}" rx="8"/>{inside}</g>'
        )


def _class(graph: ConceptGraph, node: Node) -> str:
    number = graph.classes.index(node)
    label = node.label if len(node.label) <= 20 else f"{node.label[:19]}…"
    return (
        f'<rect class="c{number % _CLASS_COLOURS}" width="{_CARD[0]}" height="6" rx="3"/>'
        f'<text class="name" x="{_CARD[0] / 2}" y="46">{escape(label)}</text>'
        f'<text class="soft middle" x="{_CARD[0] / 2}" y="66">probability {node.activation:.1%}</text>'
        f'<text class="soft middle" x="{_CARD[0] / 2}" y="82">logit {node.importance[number]:.2f}</text>'
    )


def _concept(graph: ConceptGraph, node: Node) -> str:
    """Four exemplars, and its place on the photograph; four more exemplars where there are several photographs."""
    beside = located(graph.view, node) or mosaic(node.exemplars[4:])
    pictures = [_picture(mosaic(node.exemplars), 0), _picture(beside, 1)]
    return "".join(pictures) + _footer(graph, node, node.label)


def _own(graph: ConceptGraph, node: Node) -> str:
    """Its places and its pixels: of no other photograph anything is known."""
    pictures = [_picture(located(graph.view, node), 0), _picture(caused(graph.view, node), 1)]
    return "".join(pictures) + _footer(graph, node, node.label)


def _residual(graph: ConceptGraph, node: Node) -> str:
    return (
        f'<text class="name" x="{_CARD[0] / 2}" y="36">residual</text>'
        f'<text class="soft middle" x="{_CARD[0] / 2}" y="55">what no concept covers:</text>'
        f'<text class="soft middle" x="{_CARD[0] / 2}" y="71">{escape(percent(node.activation))} of the layer</text>'
        + _footer(graph, node, "")
    )


def _picture(picture: Image.Image | None, place: int) -> str:
    x = _INSET + place * (_PICTURE + _CARD[0] - 2 * (_PICTURE + _INSET))
    frame = f'x="{x}" y="{_INSET}" width="{_PICTURE}" height="{_PICTURE}"'
    return f'<rect class="empty" {frame}/>' if picture is None else f'<image {frame} href="{uri(picture)}"/>'


def _footer(graph: ConceptGraph, node: Node, label: str) -> str:
    """The node's name, and a bar for each class: to the right speaks for it, to the left against."""
    largest = max((abs(v) for other in graph.row(node.layer) for v in other.importance), default=0.0)
    middle, reach = _CARD[0] - _INSET - _PICTURE / 2, _PICTURE / 2
    step = 18 / max(1, len(node.importance))
    bars = []
    for c, value in enumerate(node.importance):
        length = reach * abs(value) / largest if largest else 0.0
        bars.append(
            f'<rect class="c{c % _CLASS_COLOURS}" x="{middle - length if value < 0 else middle:g}" '
            f'y="{81 + c * step:g}" width="{length:g}" height="{step - 2:g}"/>'
        )
    axis = f'<path class="axis" d="M{middle:g} 80V100"/>'
    beside = off_the_map(node)
    below = f'<text class="soft small" x="{_INSET}" y="100">{escape(beside)}</text>' if beside else ""
    name = f'<text class="soft" x="{_INSET}" y="{89 if beside else 94}">{escape(label)}</text>'
    return "".join((name, below, *bars, axis))


def percent(share: float) -> str:
    """ "12 %", "0.4 %", "< 0.1 %"."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0095 or not share else f"{100 * share:.1f} %"


def off_the_map(node: Node) -> str:
    """ "83 % prefix tokens": how much of a node no map can show; empty where that is less than 1 %."""
    return f"{percent(node.prefix_share)} prefix tokens" if node.prefix_share >= _LEAST_SHARE else ""


def mosaic(exemplars: tuple[bytes, ...]) -> Image.Image | None:
    """The first four exemplars in a square, each lifted from the dark; None where there are none."""
    if not exemplars:
        return None
    half, sheet = _THUMBNAIL // 2, Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), "#808080")
    for i, content in enumerate(exemplars[:4]):
        sheet.paste(_bright(_opened(content)).resize((half - 1, half - 1)), (i % 2 * (half + 1), i // 2 * (half + 1)))
    return sheet


def _bright(picture: Image.Image) -> Image.Image:
    """The same with its lightest parts white and, where it is dark on the whole, a brighter mean; order is kept."""
    values = np.asarray(picture, dtype=np.float32)
    stretched = np.clip(values / max(1.0, float(np.percentile(values, 99))), 0, 1)
    mean = float(stretched.mean())
    if not 0 < mean < _LIGHT:
        return Image.fromarray(np.rint(255 * stretched).astype(np.uint8))
    exponent = max(_MOST_LIFTED, float(np.log(_LIGHT) / np.log(mean)))
    return Image.fromarray(np.rint(255 * stretched**exponent).astype(np.uint8))


def located(view: bytes, node: Node) -> Image.Image | None:
    """The photograph, bright where the node's concept is (`u_pq`); None without a photograph or a map."""
    return _lit(view, node.map)


def caused(view: bytes, node: Node) -> Image.Image | None:
    """The photograph, bright at the pixels that caused the concept: the node's iERF."""
    return _lit(view, node.ierf)


def whereabouts(view: bytes, node: Node) -> Image.Image | None:
    """The same as `located`, lifted from the dark, for a small picture."""
    picture = located(view, node)
    return None if picture is None else _bright(picture)


def _opened(content: bytes) -> Image.Image:
    """An encoded picture."""
    with Image.open(BytesIO(content)) as picture:
        return picture.convert("RGB")


def jpeg(picture: Image.Image) -> bytes:
    """A thumbnail as a JPEG file."""
    content = BytesIO()
    picture.save(content, "JPEG", quality=85)
    return content.getvalue()


def png(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    content = BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def uri(picture: Image.Image) -> str:
    """A thumbnail inside a page."""
    return f"data:image/jpeg;base64,{b64encode(jpeg(picture)).decode()}"


def _lit(view: bytes, cells: Cells | None) -> Image.Image | None:
    if not view or cells is None:
        return None
    values: np.ndarray = cells.tensor().numpy()
    photo = _opened(view).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BICUBIC)
    return lit(photo, -values if values.sum() < 0 else values)


_STYLE = """
.icg{--paper:#fdfdfc;--ink:#1d2126;--soft:#5d6670;--line:#c9ced3;--card:#fff;--for:#d9480f;--against:#1c7ed6;
--c0:#6741d9;--c1:#159393;--c2:#c2790a;--c3:#a61e4d;font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
@media(prefers-color-scheme:dark){.icg{--paper:#14171a;--ink:#e8eaec;--soft:#9aa4ae;--line:#3a424a;--card:#1d2226;
--for:#ff922b;--against:#4dabf7;--c0:#b197fc;--c1:#69db7c;--c2:#ffd43b;--c3:#faa2c1}}
.icg .paper{fill:var(--paper)}.icg text{fill:var(--ink)}.icg .soft{fill:var(--soft);font-size:11px}
.icg .small{font-size:9px}
.icg .layer{font:600 13px ui-monospace,Menlo,Consolas,monospace}.icg .name{font-weight:600;text-anchor:middle}
.icg .middle{text-anchor:middle}.icg .card>rect:first-of-type{fill:var(--card);stroke:var(--line)}
.icg .residual>rect:first-of-type{stroke-dasharray:4 3;fill:var(--paper)}
.icg .own>rect:first-of-type{stroke-dasharray:1 3}
.icg .empty{fill:var(--line);opacity:.4}.icg .axis{stroke:var(--soft);stroke-width:1}
.icg .edge{fill:none;stroke:var(--for)}.icg .against{stroke:var(--against)}.icg .doubtful{stroke-dasharray:5 5}
.icg .c0{fill:var(--c0)}.icg .c1{fill:var(--c1)}.icg .c2{fill:var(--c2)}.icg .c3{fill:var(--c3)}
"""
