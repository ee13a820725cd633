"""Bisecting spherical k-means: concepts as the mean vectors of clusters (GIG, Appendix B)."""

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ierf.concepts.bisection import Tree, grow
from ierf.concepts.extractor import Estimator, Shift, Vectors, as_vectors, describe_shift, shift_vector, shifted
from ierf.concepts.two_means import Directions, sums
from ierf.errors import IerfError

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
