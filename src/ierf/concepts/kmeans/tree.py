"""The tree of a bisection, and its coarser cuts."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, eq=False)
class Tree:
    """Nodes in the order of the splits: 0 holds everything, split `i` (from 0) makes the nodes 2i + 1 and 2i + 2."""

    split_nodes: Int[np.ndarray, " splits"]
    """The node that each split took."""
    sizes: Int[np.ndarray, " nodes"]
    """Vectors in each node."""

    @cached_property
    def parents(self) -> Int[np.ndarray, " nodes"]:
        """−1 for the root."""
        return np.concatenate([[-1], np.repeat(self.split_nodes, 2)]).astype(np.int64)

    @cached_property
    def children(self) -> Int[np.ndarray, "nodes 2"]:
        """−1 for leaves."""
        found = np.full((len(self.sizes), 2), -1)
        found[self.split_nodes] = 1 + np.arange(2 * len(self.split_nodes)).reshape(-1, 2)
        return found

    @cached_property
    def starts(self) -> Int[np.ndarray, " nodes"]:
        """How many vectors stand left of each node."""
        found = np.zeros(len(self.sizes), np.int64)
        for node, (left, right) in zip(self.split_nodes, self.children[self.split_nodes], strict=True):
            found[left], found[right] = found[node], found[node] + self.sizes[left]
        return found

    def leaves(self, count: int) -> Int[np.ndarray, " count"]:
        """The leaves, from left to right, of the tree that the first `count − 1` splits made."""
        nodes = np.setdiff1d(np.arange(2 * count - 1), self.split_nodes[: count - 1])
        return nodes[np.argsort(self.starts[nodes])]
