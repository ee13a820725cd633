"""Why this class and not that one: two classes' routes through one photograph, where they part, and what made it so.

Source: arXiv 2605.00474, section VI-E.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ierf.errors import IerfError
from ierf.graph.analysis.interventions import intervene
from ierf.graph.building.build import build
from ierf.graph.concept_graph import KEEP, ConceptGraph
from ierf.graph.elements import Node
from ierf.graph.picture.page import Finding, save_page
from ierf.model import ImageLike, VisionModel, as_vision_model

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank

PER_LAYER = 2
TOGETHER = 0.5
"""Routes go together in a layer where they overlap at least so much."""


@dataclass(frozen=True)
class Culprit:
    """A concept, or a group of them, that speaks for the predicted class more than for the true one."""

    node: Node
    claimed: float
    """By how much it raises the margin, `logit_predicted − logit_true`: the difference of its importances."""
    lost: float
    """By how much the margin fell when it was deleted and the network run on."""


@dataclass(frozen=True)
class Diagnosis:
    """Both routes in one graph; the predicted class comes first."""

    graph: ConceptGraph
    margin: float
    """`logit_predicted − logit_true`."""
    overlaps: tuple[float, ...]
    """For each layer of the graph, from the pixels on, see `overlap`."""
    culprits: tuple[Culprit, ...]
    """Layer by layer from the classes down."""

    @property
    def parting(self) -> str | None:
        """The layer, seen from the pixels, from which on the routes no longer go together; None if they always do."""
        apart = None
        for layer, share in zip(reversed(self.graph.layers), reversed(self.overlaps), strict=True):
            if share >= TOGETHER:
                break
            apart = layer
        return apart

    def summary(self) -> list[str]:
        """By how much the predicted class leads, and where the routes part, in words."""
        predicted, true = (node.label for node in self.graph.classes)
        said = [f"{predicted} leads {true} by {self.margin:+.2f} in logits."]
        if self.parting is None:
            said.append("Both routes go through the same concepts up to the last layer: the difference is in degree.")
        elif self.parting == self.graph.layers[0]:
            said.append(f"The routes differ from {self.parting} on, the lowest layer shown.")
        else:
            said.append(f"Below {self.parting} both routes go through the same concepts; there they part.")
        return said

    def checks(self) -> list[str]:
        """What the graph claims of each culprit beside what its deletion did, in words."""
        return [
            f"{culprit.node.id} raises the margin by {culprit.claimed:.2f}; without it the margin changes by "
            f"{-culprit.lost:+.2f}."
            for culprit in self.culprits
        ]

    def save(self, path: str | Path, keep: float = KEEP, single_file: bool = False) -> Path:
        """A page of the difference of both classes, with the concepts that made it and what the graph leaves out.

        Raises `IerfError` for another suffix than ".html".
        """
        path = Path(path)
        if path.suffix != ".html":
            raise IerfError(f"a diagnosis is saved as .html, not as {path.name!r}")
        predicted, true = (node.label for node in self.graph.classes)
        culprits = zip(self.checks(), self.culprits, strict=True)
        findings = [
            *map(Finding, self.summary()),
            *(Finding(text, (culprit.node.id,)) for text, culprit in culprits),
            *(
                Finding(f"In {layer} the routes overlap by {share:.0%}.")
                for layer, share in zip(reversed(self.graph.layers), reversed(self.overlaps), strict=True)
            ),
        ]
        return save_page(
            path,
            self.graph,
            single_file=single_file,
            title=f"{self.graph.photo}: {predicted}, not {true}",
            findings=findings,
            start=f"mode=difference&edges={keep:g}",
        )


def diagnose(
    model: VisionModel | nn.Module,
    bank: "ConceptBank",
    photo: ImageLike,
    true: str | int,
    predicted: str | int,
    per_layer: int = PER_LAYER,
    **options: Any,
) -> Diagnosis:
    """Compare the routes to two classes, and delete the concepts that part them to see whether the graph is right.

    `per_layer` concepts of each layer are deleted, one at a time; `options` are those of `ConceptGraph.build`.
    Raises `IerfError` where both classes are the same.
    """
    vision_model = as_vision_model(model)
    pair = [vision_model.class_index(c) for c in (predicted, true)]
    if pair[0] == pair[1]:
        raise IerfError(
            f"a diagnosis needs two classes, and both are {vision_model.label(pair[0])}; name the true one, or another "
            "one as predicted"
        )
    graph = build(vision_model, bank, photo, pair, **options)
    x, (first, second) = vision_model.prepare(photo), graph.classes
    culprits = []
    for layer in reversed(graph.layers):
        for node in _differing(graph.row(layer), per_layer):
            refit = graph.settings.get("refit", False)
            change = intervene(vision_model, bank, x, delete=[node.id], refit=refit).change[0]
            culprits.append(Culprit(node, _margin(node), float(change[second.index] - change[first.index])))
    return Diagnosis(
        graph,
        first.importance[0] - second.importance[1],
        tuple(overlap(graph.row(layer)) for layer in graph.layers),
        tuple(culprits),
    )


def overlap(row: Sequence[Node]) -> float:
    """`Σ_q min(a_q, b_q) / Σ_q max(a_q, b_q)` of two classes’ positive importances; 1 if they need the same."""
    pairs = [[max(0.0, value) for value in node.importance] for node in row if node.of_bank]
    most = sum(map(max, pairs))
    return sum(map(min, pairs)) / most if most else 0.0


def _margin(node: Node) -> float:
    return node.importance[0] - node.importance[1]


def _differing(row: Sequence[Node], count: int) -> list[Node]:
    """The concepts that raise the margin most."""
    concepts = [node for node in row if node.of_bank and _margin(node) > 0]
    return sorted(concepts, key=lambda node: -_margin(node))[:count]
