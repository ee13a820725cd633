"""Bisecting spherical k-means (GIG, Appendix B): concepts as the mean vectors of clusters, their tree and its cuts."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ierf.concepts.extractor import Estimator, Shift, Vectors, as_vectors, describe_shift, shift_vector, shifted
from ierf.concepts.two_means import Directions, halve, scrambled, sums
from ierf.errors import IerfError

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


_AT_ONCE = 1 << 24
"""Cosines that are held at once."""


@dataclass(frozen=True)
class Cut:
    """Coarser concepts: the tree with `n` leaves."""

    nodes: Int[Tensor, " n"]
    """Their nodes, from left to right."""
    components: Float[Tensor, "n C"]
    labels: Int[Tensor, " N"]
    of_concepts: Int[Tensor, " K"]
    """The coarser concept of each concept."""


class BisectingSphericalKMeans(Estimator):
    """Bisecting spherical k-means: the largest cluster is split in two until there are `n_concepts` (GIG, App. B).

    Vectors are shifted and normalised, split by 2-means with centroids of norm 1 (see `halve`), and a concept is the
    mean of its cluster's shifted vectors, not normalised. All clusters of a round are split at once, with the tree
    that splitting one after the other gives (see `grow`).

    Concepts are numbered from left to right in the tree, so that neighbours are alike. Clusters whose vectors all
    point the same way (cosine within 1e-6 of 1) are not split: where there are fewer directions than `n_concepts`,
    there are fewer concepts and a warning says how many. Vectors that equal the shift have no direction; they count
    as members of a cluster but never make one. The same seed gives the same tree.

    Args:
        n_concepts: K.
        seed: of the draws, which depend on it and the path of a cluster from the root.
        shift: what is subtracted first: a vector (μ_BN, see `ierf.model.shift_of`), "mean", or None for nothing.
        max_iter: steps of one 2-means at most.
        tol: a 2-means has settled when a step moves no more than this part of its cluster; 0 is until nothing moves.
    """

    components_: Float[Tensor, "K C"]
    shift_: Float[Tensor, " C"]
    labels_: Int[Tensor, " N"]
    """The concept of each vector that was fitted."""
    tree_: Tree

    def __init__(
        self, n_concepts: int, seed: int = 0, shift: Shift = None, max_iter: int = 100, tol: float = 0.001
    ) -> None:
        if n_concepts < 1 or max_iter < 1:
            raise IerfError(f"n_concepts and max_iter are at least 1, not {n_concepts} and {max_iter}")
        if not 0 <= tol < 1:
            raise IerfError(f"tol is a part of a cluster, from 0 to less than 1, not {tol}")
        self.n_concepts, self.seed, self.shift, self.max_iter, self.tol = n_concepts, seed, shift, max_iter, tol

    def fit(self, x: Vectors, y: object = None) -> Self:
        """Grow the tree. Raises `IerfError` for vectors that are not finite or not of shape (N, C)."""
        vectors = as_vectors(x)
        self.shift_ = shift_vector(vectors, self.shift)
        directions = Directions(vectors, self.shift_)
        self.tree_, self.labels_ = grow(directions, self.n_concepts, self.seed, self.max_iter, self.tol)
        rows = torch.arange(len(vectors), device=vectors.device)
        _, added = sums(vectors, rows, self.labels_)
        counts = self.labels_.bincount()[:, None]
        self.components_ = (added / counts - self.shift_).to(vectors)
        if len(counts) < self.n_concepts:
            warnings.warn(
                f"the vectors have {len(counts)} different directions, so there are {len(counts)} concepts "
                f"instead of {self.n_concepts}",
                stacklevel=2,
            )
        return self

    @property
    def parents_(self) -> Int[Tensor, " nodes"]:
        """Of each of the 2K − 1 nodes, −1 for the root; split `i` (from 0) made the nodes 2i + 1 and 2i + 2."""
        return torch.from_numpy(self.tree_.parents)

    @property
    def children_(self) -> Int[Tensor, "nodes 2"]:
        """Of each node, −1 for leaves."""
        return torch.from_numpy(self.tree_.children)

    @property
    def sizes_(self) -> Int[Tensor, " nodes"]:
        """The number of vectors in each node."""
        return torch.from_numpy(self.tree_.sizes)

    @property
    def leaves_(self) -> Int[Tensor, " K"]:
        """The node of each concept."""
        return torch.from_numpy(self.tree_.leaves(len(self.components_)))

    def cut(self, n: int) -> Cut:
        """The concepts of the tree when it had `n` leaves. Raises `IerfError` unless 1 ≤ n ≤ K."""
        count = len(self.components_)
        if not 1 <= n <= count:
            raise IerfError(f"the tree of {count} concepts can be cut into 1 to {count} coarser ones, not {n}")
        device = self.components_.device
        nodes = self.tree_.leaves(n)
        starts = self.tree_.starts[self.tree_.leaves(count)]
        above = torch.from_numpy(np.searchsorted(self.tree_.starts[nodes], starts, side="right") - 1).to(device)
        weights = self.sizes_[self.leaves_].to(device)
        _, added = sums(self.components_, torch.arange(count, device=device), above, weights)
        sizes = self.sizes_[nodes].to(device)
        components = (added / sizes[:, None]).to(self.components_)
        return Cut(torch.from_numpy(nodes), components, above[self.labels_], above)

    def predict(self, x: Vectors) -> Int[Tensor, " N"]:
        """The concept with the largest cosine to each shifted vector; the first one for a vector without direction."""
        vectors = shifted(self, x)
        atoms = normalize(self.components_).T
        parts = torch.split(vectors, max(1, _AT_ONCE // atoms.shape[1]))
        return torch.cat([(part @ atoms).argmax(1) for part in parts])

    def transform(self, x: Vectors) -> Float[Tensor, "N K"]:
        """`⟨x − μ, v⟩ / ‖v‖²` of the concept `v` that `predict` names, 0 elsewhere."""
        vectors, labels = shifted(self, x), self.predict(x)
        atoms = self.components_[labels]
        lengths = atoms.square().sum(1)
        values = (vectors * atoms).sum(1) / lengths.masked_fill(lengths == 0, torch.inf)
        codes = vectors.new_zeros(len(vectors), len(self.components_))
        return codes.scatter_(1, labels[:, None], values[:, None])

    @property
    def config(self) -> dict[str, Any]:
        """Its name and parameters."""
        return {
            "name": "bisecting",
            "n_concepts": self.n_concepts,
            "seed": self.seed,
            "shift": describe_shift(self.shift),
            "max_iter": self.max_iter,
            "tol": self.tol,
        }
