"""Graphs of groups by hand: two layers, each with a tree of four concepts, and an own direction in the lower one."""

from dataclasses import replace

import torch
from PIL import Image
from support.page_graphs import picture

from ierf.graph import LOGITS, RESIDUAL, Cells, ConceptFacts, ConceptGraph, LayerAccount, Node
from ierf.graph.hierarchy import Hierarchy, LayerPair
from ierf.graph.picture.drawing import jpeg, png

TREES = {
    "b": {"b/group0": ("b/group1", "b/group4"), "b/group1": ("b/0", "b/1"), "b/group4": ("b/2", "b/group5")},
    "a": {"a/group0": ("a/7", "a/group3"), "a/group3": ("a/8", "a/group6"), "a/group6": ("a/9", "a/10")},
}
"""The halves of each group, in the order in which they open."""
FINEST = {"b": ["b/0", "b/1", "b/2", "b/group5"], "a": ["a/7", "a/8", "a/9", "a/10", "a/own0"]}


def grouped(seed: int = 0, photo: str = "cat.png", pictures: bool = True) -> ConceptGraph:
    """Two groups a row, of the classes 3 and 8; every number of a group is the sum of those of its halves."""
    random = torch.Generator().manual_seed(seed)
    classes = [Node(LOGITS, "class", c, f"class {c}", _own_logit(i), 0.5) for i, c in enumerate((3, 8))]
    nodes = {layer: _nodes(layer, random, pictures) for layer in "ba"}
    rows = [classes, nodes["b"], nodes["a"]]
    pairs = [_pair(layer, rows[i], rows[i + 1], random, pictures) for i, layer in enumerate("ba")]
    residuals = [
        Node(layer, "residual", RESIDUAL, "residual", (0.1, -0.2), 0.3, map=Cells.of(torch.ones(4, 4)))
        for layer in "ba"
    ]
    accounts = tuple(
        LayerAccount(layer, 16, 6.0, 2.5, 0.2, 1e-3, 1e-4, (3.9, 2.9), (1.0, 1.0), 0.0, 0.0, (1.0, 1.4))
        for layer in "ab"
    )
    whole = ConceptGraph(
        model="net",
        photo=photo,
        photographs=1,
        layers=("a", "b"),
        nodes=(*classes, *residuals),
        edges=(),
        accounts=accounts,
        settings={"nodes": "groups", "budget": 2, "trees": {"a": "bisecting", "b": "cosine"}},
        view=png(Image.new("RGB", (32, 32), (40, 160, 80))),
        hierarchy=Hierarchy((*nodes["b"], *nodes["a"]), tuple(pairs)),
    )
    return whole.cut(2)


def leaves(name: str) -> list[str]:
    """What a node holds that does not open."""
    halves = TREES[name.split("/")[0]].get(name, ()) if "/" in name else ()
    return [leaf for half in halves for leaf in leaves(half)] if halves else [name]


def _own_logit(place: int) -> tuple[float, float]:
    return (4.0, 0.0) if place == 0 else (0.0, 3.0)


def _nodes(layer: str, random: torch.Generator, pictures: bool) -> list[Node]:
    tree, finest = TREES[layer], FINEST[layer]
    values = {name: torch.randn(2, generator=random).tolist() for name in finest}
    maps = {name: torch.randn(4, 4, generator=random) for name in finest}
    parents = {half: group for group, halves in tree.items() for half in halves}
    opens = {group: i + 2 for i, group in enumerate(tree)}
    facts = ConceptFacts(0.12, 1.5, 0.03, (("tiger", 0.75), ("lynx", 0.25)), (), ())
    found = []
    for name in (*tree, *finest):
        some, number = leaves(name), name.split("/")[1]
        kind = "group" if number.startswith("group") else "own" if number.startswith("own") else "concept"
        place = torch.stack([maps[leaf] for leaf in some]).sum(0)
        shown = tuple(jpeg(picture(sum(map(ord, leaf)))) for leaf in some[:2]) if pictures and kind != "own" else ()
        members = tuple(range(20, 20 + 3 * len(some))) if kind == "group" else ()
        index = int(number.removeprefix("group").removeprefix("own"))
        found.append(
            Node(
                layer,
                kind,
                index,
                f"{len(members)} concepts" if kind == "group" else number,
                tuple(sum(values[leaf][c] for leaf in some) for c in (0, 1)),
                float(len(some)),
                map=Cells.of(place) if pictures else None,
                ierf=Cells.of(place.roll(1, 0)) if pictures else None,
                exemplars=shown,
                facts=None if kind == "own" else facts,
                members=members,
                effects=tuple(0.5 * sum(values[leaf][c] for leaf in some) for c in (0, 1)),
                score=(0.5, 2.0),
                parent=parents.get(name, ""),
                opens=opens.get(name, 0),
            )
        )
    return found


def _pair(layer: str, targets: list[Node], sources: list[Node], random: torch.Generator, pictures: bool) -> LayerPair:
    below = FINEST[layer]
    above = [n.id for n in targets] if targets[0].kind == "class" else FINEST["b"]
    values = {(s, t): float(torch.randn(1, generator=random)) for s in (*below, "residual") for t in above}
    places = {t.id: [t.id] if t.kind == "class" else leaves(t.id) for t in targets}

    def summed(source: str, target: Node) -> float:
        some = [source] if source == "residual" else leaves(source)
        return sum(values[s, t] for s in some for t in places[target.id])

    names = [*(node.id for node in sources), "residual"]
    p_values = torch.rand(len(sources), len(targets), generator=random).double().tolist()
    acting = torch.randn(len(below), len(above), 3, 2, generator=random)
    return LayerPair(
        (*(node.id for node in sources), f"{layer}/residual"),
        tuple(node.id for node in targets),
        tuple(tuple(summed(name, target) for target in targets) for name in names),
        tuple(tuple(row) for row in p_values),
        tuple(tuple(Cells.of(one) for one in row) for row in acting) if pictures else (),
    )


def another(graph: ConceptGraph, budget: int) -> ConceptGraph:
    """The same graph as if it had been built with another budget."""
    return replace(graph.cut(budget), photo=f"{graph.photo} {budget}")
