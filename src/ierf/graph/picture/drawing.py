"""A concept graph as one SVG picture: rows of cards with pictures, edges by influence, light and dark."""

from collections.abc import Iterator
from html import escape

from PIL import Image

from ierf.graph.picture.layout import CARD, Layout, lay_out
from ierf.graph.picture.thumbnails import located, mosaic, uri
from ierf.graph.picture.words import off_the_map, percent
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.edge import SIGNIFICANT, Edge
from ierf.graph.structure.node import LOGITS, Node

PICTURE = 68
"""Side of a picture on a card."""
_INSET = 7
_WIDEST = 6.0
_CLASS_COLOURS = 4


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


def _rows(graph: ConceptGraph, where: Layout) -> Iterator[str]:
    """The layers' names, and what their rows leave out."""
    for layer, top in where.rows.items():
        y = top + CARD[1] / 2
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
    x0, x1, y1 = x0 + CARD[0] / 2, x1 + CARD[0] / 2, y1 + CARD[1]
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
        inside = {"class": _class, "concept": _concept, "residual": _residual}[node.kind](graph, node)
        said = f"{node.id}: {percent(node.influence)} of the flow"
        if beside := off_the_map(node):
            said += f"; {beside}: at the class token or registers, which no map shows"
        flow = f"<title>{escape(said)}</title>"
        yield (
            f'<g class="card {node.kind}" transform="translate({x:g} {y:g})">{flow}'
            f'<rect width="{CARD[0]}" height="{CARD[1]}" rx="8"/>{inside}</g>'
        )


def _class(graph: ConceptGraph, node: Node) -> str:
    number = graph.classes.index(node)
    label = node.label if len(node.label) <= 20 else f"{node.label[:19]}…"
    return (
        f'<rect class="c{number % _CLASS_COLOURS}" width="{CARD[0]}" height="6" rx="3"/>'
        f'<text class="name" x="{CARD[0] / 2}" y="46">{escape(label)}</text>'
        f'<text class="soft middle" x="{CARD[0] / 2}" y="66">probability {node.activation:.1%}</text>'
        f'<text class="soft middle" x="{CARD[0] / 2}" y="82">logit {node.importance[number]:.2f}</text>'
    )


def _concept(graph: ConceptGraph, node: Node) -> str:
    """Four exemplars, and its place on the photograph; four more exemplars where there are several photographs."""
    beside = located(graph.view, node) or mosaic(node.exemplars[4:])
    pictures = [_picture(mosaic(node.exemplars), 0), _picture(beside, 1)]
    return "".join(pictures) + _footer(graph, node, node.label)


def _residual(graph: ConceptGraph, node: Node) -> str:
    return (
        f'<text class="name" x="{CARD[0] / 2}" y="36">residual</text>'
        f'<text class="soft middle" x="{CARD[0] / 2}" y="55">what no concept covers:</text>'
        f'<text class="soft middle" x="{CARD[0] / 2}" y="71">{escape(percent(node.activation))} of the layer</text>'
        + _footer(graph, node, "")
    )


def _picture(picture: Image.Image | None, place: int) -> str:
    x = _INSET + place * (PICTURE + CARD[0] - 2 * (PICTURE + _INSET))
    frame = f'x="{x}" y="{_INSET}" width="{PICTURE}" height="{PICTURE}"'
    return f'<rect class="empty" {frame}/>' if picture is None else f'<image {frame} href="{uri(picture)}"/>'


def _footer(graph: ConceptGraph, node: Node, label: str) -> str:
    """The node's name, and a bar for each class: to the right speaks for it, to the left against."""
    largest = max((abs(v) for other in graph.row(node.layer) for v in other.importance), default=0.0)
    middle, reach = CARD[0] - _INSET - PICTURE / 2, PICTURE / 2
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
.icg .empty{fill:var(--line);opacity:.4}.icg .axis{stroke:var(--soft);stroke-width:1}
.icg .edge{fill:none;stroke:var(--for)}.icg .against{stroke:var(--against)}.icg .doubtful{stroke-dasharray:5 5}
.icg .c0{fill:var(--c0)}.icg .c1{fill:var(--c1)}.icg .c2{fill:var(--c2)}.icg .c3{fill:var(--c3)}
"""
