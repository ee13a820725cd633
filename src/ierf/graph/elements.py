"""What a concept graph is made of: nodes, edges, where they are, and what each layer leaves out (VI-A)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.store import quantised, reduced, reduced_size, restored

Kind = Literal["class", "concept", "group", "own", "residual"]
"""A group is a subtree of concepts; an own concept is a direction of one photograph's residual, of no dictionary."""

LOGITS = "logits"
"""The layer of class nodes, and the target of attributions that is no layer: classes are its concepts."""
RESIDUAL = -1
"""The index of a residual node."""
SIGNIFICANT = 0.05
"""Edges with a larger p-value are drawn dashed."""


@dataclass(frozen=True)
class Cells:
    """A map (rows, columns), one byte for each cell: `m ≈ (byte − 128) · scale`, as iERFs lie in a store."""

    rows: int
    columns: int
    scale: float
    content: bytes = field(repr=False)

    @classmethod
    def of(cls, values: Float[Tensor, "h w"], side: int | None = None) -> "Cells":
        """A map of at most `side` cells on a side (None: 64); larger ones are summed over areas first."""
        rows, columns = values.shape
        size = reduced_size((rows, columns), None if side is None else min(side, max(rows, columns)))
        small = reduced(values.detach().cpu().float(), size)
        levels, scale = quantised(small[None])
        return cls(*size, float(scale), levels.numpy().tobytes())

    def tensor(self) -> Float[Tensor, "h w"]:
        """The map again, within half a step of `scale` of what it was."""
        levels = torch.frombuffer(bytearray(self.content), dtype=torch.uint8).view(1, self.rows, self.columns)
        return restored(levels, torch.tensor([self.scale]))[0]


@dataclass(frozen=True)
class ConceptFacts:
    """How a concept occurs in the photographs of its bank."""

    frequency: float
    """The share of PFVs whose coefficient is not zero."""
    strength: float
    """The mean size of the coefficients that are not zero."""
    relevance: float
    """Its share of the layer's relevance."""
    classes: tuple[tuple[str, float], ...]
    """Predicted classes with their shares of its positive coefficients, the largest first."""
    nearest: tuple[tuple[int, float], ...]
    """Concepts of the layer with the largest cosines."""
    cosines: tuple[float, ...]
    """Of its exemplars with its vector."""


@dataclass(frozen=True)
class Node:
    """What is known of one node; numbers are means over the photographs of the graph."""

    layer: str
    kind: Kind
    index: int
    """Of the concept in its layer's dictionary, of the class, of the group's node in the dictionary's tree, or of the
    own direction, from 0."""
    label: str
    importance: tuple[float, ...]
    """For each class of the graph: `Σ_p AT(u_pq, logit_c)` of a concept (arXiv 2605.00474, VI-A2), `logit_c(X) −
    logit_c(X̂)` of a residual; a class node has its logit at its own place and 0 elsewhere."""
    activation: float
    """`Σ_p |u_pq|` of a concept, `‖X − X̂‖ / ‖X − shift‖` of a residual, the probability of a class; in a graph of
    groups `Σ_p ⟨Σ_{k∈g} u_pk v_k, x̃_p⟩ / ‖x̃_p‖`, the part of the PFVs' lengths that the node makes."""
    influence: float = 0.0
    """The share of the classes' scores that passes through it, see `ierf.graph.concept_graph`."""
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

    members: tuple[int, ...] = ()
    """Of a group: its concepts with a coefficient here, those first that add or take most."""
    effects: tuple[float, ...] = ()
    """By how much each class's logit fell when the node was taken out of its layer and the network run on; nothing
    where that was not tried."""
    score: tuple[float, float] | None = None
    """As a target: `S(shift)` and `S(X)`; the values of all edges into it sum to their difference."""
    parent: str = ""
    """The id of the group that it is a half of."""
    opens: int = 0
    """From this budget on it is shown as its two halves; 0: it has none."""

    @property
    def of_bank(self) -> bool:
        """Whether it is a concept of the bank or a group of them."""
        return self.kind in ("concept", "group")

    @property
    def id(self) -> str:
        """The same in all graphs of a bank: "layer3.1/512", "layer3.1/group77", "layer3.1/residual", "logits/7"."""
        return node_id(self.layer, self.index, self.kind)


def node_id(layer: str, index: int, kind: Kind = "concept") -> str:
    """The name of a node, see `Node.id`."""
    name = "residual" if index == RESIDUAL else f"{kind if kind in ('group', 'own') else ''}{index}"
    return f"{layer}/{name}"


@dataclass(frozen=True)
class Edge:
    """From a node to one nearer to the classes; numbers are means over the photographs of the graph."""

    source: str
    """A node's id."""
    target: str
    value: float
    """ICAT of the source's coefficients (arXiv 2605.00474, Eq. 14); `S(X) − S(X̂)` where the source is a residual."""
    weight: float
    """`|value|` divided by the largest of the edges that are shown between the two layers: in [0, 1]."""
    share: float
    """`|value|` divided by the sum of all nodes' `|value|` into the target, also of those not shown: in [0, 1]."""
    p_value: float | None = None
    """How often concepts drawn at random reach `|value|`, see `p_values`; None for a residual."""
    map: Cells | None = None
    """Where it acts: `AT(u_pq, S_t)` over the positions of the source's layer, which sum to `value` but for prefix
    tokens; None for a residual, for several photographs, and without pictures."""

    @property
    def sign(self) -> int:
        """1 for what speaks for the target, −1 for what speaks against it."""
        return -1 if self.value < 0 else 1


@dataclass(frozen=True)
class LayerAccount:
    """What one layer's nodes stand for and what they do not; means over the photographs, except where said."""

    layer: str
    concepts: int
    """Concepts in the layer's dictionary."""
    active: float
    """Concepts with a coefficient anywhere on a photograph."""
    l0: float
    """Concepts with a coefficient at a position."""
    residual_share: float
    """`‖X − X̂‖ / ‖X − shift‖`: how much of the layer its concepts miss."""
    kkt: float
    """The largest KKT residual of a code, relative to λ: how far the Lasso is from its optimum."""
    completeness_error: float
    """The largest `|Σ AT − (S(X̂) − S(0⁺))| / |S(X̂) − S(0⁺)|` of a score that was attributed to this layer."""
    logits: tuple[float, ...]
    """The classes' logits when X̂ replaces X here."""
    score_kept: tuple[float, ...]
    """For each class, `Σ |importance|` of the layer's shown concepts divided by that of all its concepts."""
    influence_kept: float
    """The share of the classes' scores that is followed down to the layer's shown concepts."""
    influence_residual: float
    """The share that ends in the layer's residual."""
    score_held: tuple[float, ...] = ()
    """Of a graph of groups: for each class, what the slopes of the layer above hand to the nodes and the residual, over
    `logit(X) − logit(shift)`; importances are scaled to make it 1 where it is within a factor of four."""
