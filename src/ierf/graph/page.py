"""A concept graph as one HTML page: the picture, how to read it, what it leaves out."""

from html import escape

from ierf.graph.concept_graph import ConceptGraph
from ierf.graph.drawing import svg
from ierf.graph.node import Node
from ierf.graph.thumbnails import caused, located, mosaic, opened, uri
from ierf.graph.words import READING, left_out, percent


def page(graph: ConceptGraph) -> str:
    """A self-contained page: styles and pictures inside, no script, nothing fetched."""
    labels = " and ".join(node.label for node in graph.classes)
    return document(f"{graph.photo}: {labels}", "\n".join((_head(graph, labels), picture(graph), notes(graph))))


def picture(graph: ConceptGraph) -> str:
    """The drawing, scrolled sideways where it is wider than the page."""
    return f'<div class="scroll">{svg(graph)}</div>'


def notes(graph: ConceptGraph) -> str:
    """How to read the drawing, what it leaves out, its layers in numbers, its concepts one by one."""
    return (
        f"<section><h2>How to read this</h2>{_paragraphs(READING)}</section>"
        f"<section><h2>What it leaves out</h2>{_paragraphs(left_out(graph))}{_accounts(graph)}</section>"
        f"<section><h2>Its concepts</h2>{_concepts(graph)}</section>"
    )


def document(title: str, body: str) -> str:
    """A whole page around `body`, which is HTML; `title` is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def figures(graph: ConceptGraph, node: Node) -> str:
    """A concept's exemplars, its place and its pixels on the photograph."""
    shown = (
        ("elsewhere", mosaic(node.exemplars)),
        ("where it is", located(graph.view, node)),
        ("the pixels that caused it", caused(graph.view, node)),
    )
    return "".join(
        f'<figure><img src="{uri(image)}" alt="{escape(node.id)}, {what}"><figcaption>{what}</figcaption></figure>'
        for what, image in shown
        if image is not None
    )


def _head(graph: ConceptGraph, labels: str) -> str:
    photo = f'<img class="photo" src="{uri(opened(graph.view))}" alt="the photograph">' if graph.view else ""
    many = f", the mean over {graph.photographs} photographs" if graph.photographs > 1 else ""
    return (
        f"<header>{photo}<div><p class='soft'>{escape(graph.model)}{many}</p><h1>{escape(graph.photo)}</h1>"
        f"<p>How it becomes {escape(labels)}.</p></div></header>"
    )


def _paragraphs(texts: tuple[str, ...] | list[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _accounts(graph: ConceptGraph) -> str:
    head = (
        "layer",
        "concepts",
        "active",
        "per position",
        "residual",
        "evidence shown",
        "flow followed",
        "KKT",
        "completeness error",
    )
    rows = [
        (
            escape(account.layer),
            str(account.concepts),
            f"{account.active:.0f}",
            f"{account.l0:.1f}",
            percent(account.residual_share),
            percent(min(account.score_kept, default=0.0)),
            percent(account.influence_kept),
            f"{account.kkt:.1g}",
            f"{account.completeness_error:.1g}",
        )
        for account in reversed(graph.accounts)
    ]
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{body}</table>"


def _concepts(graph: ConceptGraph) -> str:
    cards = []
    for node in graph.nodes:
        if node.kind == "concept":
            values = ", ".join(
                f"{value:+.3g} for {escape(each.label)}"
                for each, value in zip(graph.classes, node.importance, strict=True)
            )
            cards.append(
                f"<li><div class='row'>{figures(graph, node)}</div><p><code>{escape(node.id)}</code> {values}; "
                f"{percent(node.influence)} of the flow</p></li>"
            )
    return f"<ul class='concepts'>{''.join(cards)}</ul>"


_STYLE = """
:root{--paper:#fdfdfc;--ink:#1d2126;--soft:#5d6670;--line:#e2e4e6}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e8eaec;--soft:#9aa4ae;--line:#2c3238}}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{padding:2rem;max-width:2400px;margin:0 auto}h1{margin:0;font-size:1.7rem}h2{font-size:1.2rem;margin:2rem 0 .6rem}
p{max-width:52rem;margin:0 0 .7rem}.soft{color:var(--soft);margin:0}
header{display:flex;gap:1.5rem;align-items:center;margin-bottom:1.5rem}.photo{width:128px;border-radius:8px}
.scroll{overflow-x:auto}.scroll svg{max-width:none}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.3rem 1rem .3rem 0;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}
ul.concepts{list-style:none;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(420px,1fr));gap:1.2rem}
.row{display:flex;gap:8px}figure{margin:0}figure img{display:block;width:128px;height:128px;border-radius:6px}
figcaption{font-size:.75rem;color:var(--soft)}code{font-size:.9em}
.sides{display:grid;gap:2rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,680px),1fr))}
.sides svg{width:100%;height:auto}
"""
