"""Concept graphs by hand, to look at in a browser."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from support.concept_graphs import SHARES

from ierf.graph import (
    LOGITS,
    RESIDUAL,
    Cells,
    ConceptFacts,
    ConceptGraph,
    Edge,
    LayerAccount,
    Node,
    jpeg,
    png,
)

PLACES = {"b/0": (0, 0), "b/1": (3, 3), "a/4": (0, 3), "a/5": (3, 0)}
"""The one cell of a map of 4 × 4 in which a concept is; its iERF is one row below, of rows in a circle."""
HOSTILE = "</script><script>document.title='taken over'</script><img src=x onerror=alert(1)>"


def small(shares: dict[tuple[str, str], float] = SHARES, photo: str = "cat.png") -> ConceptGraph:
    """Two classes, layers "a" below "b", two concepts and a residual each; influences as they follow from `shares`."""
    nodes = [
        Node(LOGITS, "class", 3, "tabby", (4.0, 0.0), 0.6),
        Node(LOGITS, "class", 8, HOSTILE, (0.0, 3.0), 0.3),
        _concept("b", 0, (2.0, -0.5)),
        _concept("b", 1, (1.0, 1.5)),
        Node("b", "residual", RESIDUAL, "residual", (0.1, 0.2), 0.2),
        _concept("a", 4, (0.5, 0.25)),
        _concept("a", 5, (-0.5, 0.75)),
        Node("a", "residual", RESIDUAL, "residual", (0.3, 0.1), 0.3),
    ]
    edges = [
        Edge(s, t, -share if s == "a/5" else share, share, share, 0.01, _acting(s, t))
        for (s, t), share in shares.items()
    ]
    whole = ConceptGraph("net", photo, 1, ("a", "b"), tuple(nodes), tuple(edges), _accounts("ab"), {"extractor": "pca"})
    pictures = tuple(jpeg(picture(seed).resize((96, 96))) for seed in range(10))
    made = whole.pruned(1.0)
    drawn = (replace(node, exemplars=pictures) if node.kind == "concept" else node for node in made.nodes)
    return replace(made, nodes=tuple(drawn), view=png(Image.new("RGB", (32, 32), (40, 160, 80))))


def large(layers: int, per_row: int, edges: int) -> ConceptGraph:
    """So many layers of so many nodes, with maps of 64 × 64 as rough as iERFs, pictures, and places of edges."""
    names = tuple(f"layer{i}" for i in range(layers))
    random = torch.Generator().manual_seed(0)
    exemplars = tuple(jpeg(picture(seed).resize((96, 96))) for seed in range(4))
    nodes = [Node(LOGITS, "class", i, f"class {i}", (1.0, 1.0), 0.5, 0.5) for i in range(2)]
    for layer in reversed(names):
        for i in range(per_row - 1):
            maps = [Cells.of(_smooth(random, size)) for size in (14, 64)]
            nodes.append(Node(layer, "concept", i, f"#{i}", (0.5, -0.2), 1.0, 1 / per_row, False, *maps, exemplars))
        nodes.append(Node(layer, "residual", RESIDUAL, "residual", (0.1, 0.1), 0.1, 0.1))
    rows = {layer: [n for n in nodes if n.layer == layer] for layer in (*names, LOGITS)}
    pairs = [
        (source.id, target.id)
        for low, high in zip(names, (*names[1:], LOGITS), strict=True)
        for source in rows[low]
        for target in rows[high]
        if target.kind != "residual"
    ]
    kept = torch.randperm(len(pairs), generator=random)[:edges].tolist()
    values = torch.randn(len(kept), generator=random).tolist()
    made = tuple(
        Edge(*pairs[i], value, min(1.0, abs(value) / 3), 0.05, 0.2, Cells.of(_smooth(random, 14)))
        for i, value in zip(kept, values, strict=True)
    )
    view = png(picture(7).resize((224, 224)))
    return ConceptGraph("net", "photo", 1, names, tuple(nodes), made, _accounts(names), {}, view)


def _acting(source: str, target: str) -> Cells | None:
    """In the cell of the source and, half as much with the other sign, in that of the target."""
    if source not in PLACES:
        return None
    values = torch.zeros(4, 4)
    values[PLACES.get(target, (1, 1))] = 0.5 if source == "a/5" else -0.5
    values[PLACES[source]] = -1.0 if source == "a/5" else 1.0
    return Cells.of(values)


def _concept(layer: str, index: int, importance: tuple[float, ...]) -> Node:
    row, column = PLACES[f"{layer}/{index}"]
    maps = [torch.zeros(4, 4), torch.zeros(4, 4)]
    maps[0][row, column] = 2.0
    maps[1][(row + 1) % 4, column] = 1.0 + index
    maps[1][2, 2] = 0.25 * index - 0.5
    facts = ConceptFacts(0.12, 1.5, 0.03, (("tiger", 0.75), ("lynx", 0.25)), ((1, 0.9), (7, 0.4)), (0.9,) * 10)
    cells = [Cells.of(values) for values in maps]
    return Node(
        layer, "concept", index, f"#{index}", importance, 2.0, 0.0, False, *cells, (), facts, 0.28 * (index == 0)
    )


def _accounts(layers: tuple[str, ...] | str) -> tuple[LayerAccount, ...]:
    return tuple(
        LayerAccount(layer, 16, 6.0, 2.5, 0.2, 1e-3, 1e-2, (3.9, 2.9), (0.8, 0.6), 0.0, 0.0) for layer in layers
    )


def picture(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((128, 128), Image.Resampling.BICUBIC)


def _smooth(random: torch.Generator, size: int) -> torch.Tensor:
    """A bump somewhere, rough as relevance is."""
    centre = torch.rand(2, generator=random) * size
    at = torch.arange(size, dtype=torch.float32)
    bump = torch.outer(
        (-((at - centre[0]) ** 2) / size).exp(),
        (-((at - centre[1]) ** 2) / size).exp(),
    )
    return bump * (1 + torch.randn(size, size, generator=random))
