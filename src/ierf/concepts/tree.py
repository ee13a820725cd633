"""The tree that bisecting k-means leaves behind."""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ConceptTree:
    """Clusters split in two again and again, `M` of them; the concepts are the leaves."""

    parents: Int[Tensor, " M"]
    """The node that each node was split from; −1 for the root."""
    sizes: Int[Tensor, " M"]
    """PFVs in each node."""
    leaves: Int[Tensor, " K"]
    """The node of each concept."""

    def siblings(self, concept: int) -> list[int]:
        """The concepts that came out of the other half when the concept's cluster was split off; [] for the root."""
        node = int(self.leaves[concept])
        parent = int(self.parents[node])
        others = [leaf for leaf in range(len(self.leaves)) if leaf != concept] if parent >= 0 else []
        return [leaf for leaf in others if parent in self._ancestors(leaf)]

    def _ancestors(self, concept: int) -> list[int]:
        """The nodes above a concept's own, the nearest first."""
        found, node = [], int(self.parents[self.leaves[concept]])
        while node >= 0:
            found.append(node)
            node = int(self.parents[node])
        return found
