"""The tree of bisecting k-means, all clusters of a round split at once, and its coarser cuts (GIG, Appendix B)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ierf.concepts.two_means import Directions, halve, scrambled

_UNKNOWN, _SPLIT, _WHOLE = range(3)


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


def grow(directions: Directions, n_leaves: int, seed: int, max_iter: int, tol: float) -> tuple[Tree, Int[Tensor, " N"]]:
    """Split the largest cluster in two until there are `n_leaves`; the tree, and the leaf of each row from the left.

    Of clusters of equal size the one with the earliest row is split first. What a split does depends on the cluster
    and its path from the root alone, and parts are smaller than the whole, so the clusters that one after the other
    would split are the `n_leaves − 1` largest of the unlimited tree. A round splits at once all clusters that are
    among the largest of those known; a few turn out to be split in vain and are joined again.
    """
    units = directions.units
    directed = units.any(1)
    nodes = _Nodes.root(len(units), seed, _UNKNOWN if directed.any() else _WHOLE)
    of_row = torch.zeros(len(units), dtype=torch.long, device=units.device)
    while len(chosen := nodes.candidates(n_leaves - 1)):
        slots = torch.full((len(nodes.sizes),), -1)
        slots[chosen] = torch.arange(len(chosen))
        cluster = slots.to(units.device)[of_row]
        rows = (directed & (cluster >= 0)).nonzero()[:, 0]
        draws = nodes.draws(chosen).to(units.device)
        halves = halve(directions, rows, cluster[rows], draws, max_iter, tol)
        right = torch.zeros_like(directed).index_copy_(0, rows, halves.right)
        rows = (cluster >= 0).nonzero()[:, 0]
        rows = rows[halves.split[cluster[rows]]]
        part = 2 * (halves.split.cumsum(0) - 1)[cluster[rows]] + right[rows]
        of_row[rows] = len(nodes.sizes) + part
        sizes = part.bincount()
        first = torch.full_like(sizes, len(units)).scatter_reduce_(0, part, rows, "amin")
        nodes.add(chosen, halves.split.cpu().numpy(), sizes.cpu().numpy(), first.cpu().numpy())
    tree, leaf_of_node = nodes.tree(n_leaves)
    return tree, torch.from_numpy(leaf_of_node).to(units.device)[of_row]


@dataclass
class _Nodes:
    """All clusters that were made so far, parents before children."""

    sizes: Int[np.ndarray, " nodes"]
    first: Int[np.ndarray, " nodes"]
    """The earliest row of each."""
    keys: Int[Tensor, " nodes"]
    """A random number for each path from the root."""
    state: Int[np.ndarray, " nodes"]
    """Not yet tried, split, or not to be split."""
    left: Int[np.ndarray, " nodes"]
    """The first child, the second follows it; −1 if there is none."""

    @classmethod
    def root(cls, size: int, seed: int, state: int) -> "_Nodes":
        low = seed % (1 << 64)
        key = scrambled(torch.tensor([low - (1 << 64) if low >> 63 else low]))
        return cls(np.array([size]), np.array([0]), key, np.array([state]), np.array([-1]))

    def candidates(self, splits: int) -> Int[np.ndarray, " M"]:
        """The clusters not yet tried that are among the `splits` largest."""
        possible = np.flatnonzero(self.state != _WHOLE)
        largest = self._largest_first(possible)[:splits]
        return np.sort(largest[self.state[largest] == _UNKNOWN])

    def draws(self, chosen: Int[np.ndarray, " M"]) -> Int[Tensor, "2 M"]:
        """Two keys for each."""
        return scrambled(self.keys[chosen] + torch.tensor([[3], [4]]))

    def add(
        self,
        chosen: Int[np.ndarray, " M"],
        split: Int[np.ndarray, " M"],
        sizes: Int[np.ndarray, " parts"],
        first: Int[np.ndarray, " parts"],
    ) -> None:
        """What came of splitting the chosen ones: the parts of those that were split, two by two."""
        self.state[chosen] = np.where(split, _SPLIT, _WHOLE)
        parents = chosen[split]
        self.left[parents] = len(self.sizes) + 2 * np.arange(len(parents))
        keys = scrambled((self.keys[parents, None] + torch.tensor([1, 2])).flatten())
        self.sizes = np.concatenate([self.sizes, sizes])
        self.first = np.concatenate([self.first, first])
        self.keys = torch.cat([self.keys, keys])
        self.state = np.concatenate([self.state, np.where(sizes > 1, _UNKNOWN, _WHOLE)])
        self.left = np.concatenate([self.left, np.full(len(sizes), -1)])

    def tree(self, n_leaves: int) -> tuple[Tree, Int[np.ndarray, " nodes"]]:
        """The tree of the largest splits, and for each cluster the leaf, from the left, in which it lies."""
        taken = self._largest_first(np.flatnonzero(self.state == _SPLIT))[: n_leaves - 1]
        made = np.stack([self.left[taken], self.left[taken] + 1], 1).ravel()
        number = np.full(len(self.sizes), -1)
        number[np.concatenate([[0], made])] = np.arange(len(made) + 1)
        tree = Tree(number[taken], self.sizes[np.concatenate([[0], made])])
        leaf = np.full(len(number), -1)
        leaves = tree.leaves(len(taken) + 1)
        leaf[np.concatenate([[0], made])[leaves]] = np.arange(len(leaves))
        for node in np.flatnonzero(self.left >= 0):
            if leaf[node] >= 0:
                leaf[self.left[node] : self.left[node] + 2] = leaf[node]
        return tree, leaf

    def _largest_first(self, nodes: Int[np.ndarray, " M"]) -> Int[np.ndarray, " M"]:
        return nodes[np.lexsort((self.first[nodes], -self.sizes[nodes]))]
