"""Nodes of a concept graph: a class, a concept of a layer, or what a layer's concepts leave out."""

from dataclasses import dataclass
from typing import Literal

from ierf.graph.structure.cells import Cells
from ierf.graph.structure.facts import ConceptFacts

Kind = Literal["class", "concept", "residual"]

LOGITS = "logits"
"""The layer of class nodes."""
RESIDUAL = -1
"""The index of a residual node."""


@dataclass(frozen=True)
class Node:
    """What is known of one node; numbers are means over the photographs of the graph."""

    layer: str
    kind: Kind
    index: int
    """Of the concept in its layer's dictionary, or of the class."""
    label: str
    importance: tuple[float, ...]
    """For each class of the graph: `Σ_p AT(u_pq, logit_c)` of a concept (arXiv 2605.00474, VI-A2), `logit_c(X) −
    logit_c(X̂)` of a residual; a class node has its logit at its own place and 0 elsewhere."""
    activation: float
    """`Σ_p |u_pq|` of a concept, `‖X − X̂‖ / ‖X − shift‖` of a residual, the probability of a class."""
    influence: float = 0.0
    """The share of the classes' scores that passes through it, see `ierf.graph.building.pruning`."""
    shared: bool = False
    """Chosen because all classes need it."""
    map: Cells | None = None
    """Where the concept is on the photograph: `u_pq` over the positions of its layer."""
    ierf: Cells | None = None
    """The pixels that caused it there."""
    exemplars: tuple[bytes, ...] = ()
    """PNG files: the parts of photographs whose PFVs point most nearly where the concept points."""
    facts: ConceptFacts | None = None
    """What the bank knows of the concept; None for other nodes and without pictures."""
    prefix_share: float = 0.0
    """The part of a concept's `activation` at tokens in front of the patches (class token, registers), which its map
    does not show."""

    @property
    def id(self) -> str:
        """The same in all graphs of a bank: "layer3.1/512", "layer3.1/residual", "logits/7"."""
        return node_id(self.layer, self.index)


def node_id(layer: str, index: int) -> str:
    """The name of a node, see `Node.id`."""
    return f"{layer}/{'residual' if index == RESIDUAL else index}"
