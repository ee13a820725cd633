"""Edges of a concept graph: how much a node of one layer matters to a node of the next."""

from dataclasses import dataclass

from ierf.graph.structure.cells import Cells

SIGNIFICANT = 0.05
"""Edges with a larger p-value are drawn dashed."""


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
    """How often concepts drawn at random reach `|value|`, see `ierf.graph.building.null`; None for a residual."""
    map: Cells | None = None
    """Where it acts: `AT(u_pq, S_t)` over the positions of the source's layer, which sum to `value` but for prefix
    tokens; None for a residual, for several photographs, and without pictures."""

    @property
    def sign(self) -> int:
        """1 for what speaks for the target, −1 for what speaks against it."""
        return -1 if self.value < 0 else 1
