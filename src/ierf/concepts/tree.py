"""Trees over concepts: the one that bisecting k-means leaves, and one for concepts that come without."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.concepts.codes import Codes
from ierf.errors import IerfError
from ierf.extras import extra

TreeBy = Literal["bisecting", "cosine and co-firing", "cosine"]
"""What a tree comes from: the splits of bisecting k-means, or clustering by likeness, see `cluster`."""

MOST = 16_384
"""Concepts that are clustered: their distances take 1 GiB, twice."""
_AT_ONCE = 512
"""Concepts whose likeness to all others is worked out at once."""


@dataclass(frozen=True, eq=False)
class ConceptTree:
    """Clusters split in two again and again, `M` of them, each before its parts; the concepts are the leaves."""

    parents: Int[Tensor, " M"]
    """The node that each node was split from; −1 for the root."""
    sizes: Int[Tensor, " M"]
    """PFVs in each node of a bisecting tree; concepts in each node of another."""
    leaves: Int[Tensor, " K"]
    """The node of each concept."""
    made_by: TreeBy = "bisecting"

    @property
    def root(self) -> int:
        """The node that holds all concepts."""
        return 0

    def children(self, node: int) -> tuple[int, int] | tuple[()]:
        """The two parts of a node, () for a leaf."""
        self._check(node)
        left, right = self._layout.children[node].tolist()
        return (left, right) if left >= 0 else ()

    def members(self, node: int) -> list[int]:
        """The concepts in a node, ascending."""
        self._check(node)
        start, stop = self._layout.starts[node], self._layout.stops[node]
        found: list[int] = np.sort(self._layout.order[start:stop]).tolist()
        return found

    @property
    def order(self) -> Int[Tensor, " K"]:
        """The concepts in an order in which those of each node stand beside each other, see `spans`."""
        return torch.from_numpy(self._layout.order)

    @property
    def spans(self) -> Int[Tensor, "M 2"]:
        """Where the concepts of each node begin and end in `order`."""
        return torch.from_numpy(np.stack([self._layout.starts, self._layout.stops], 1))

    def siblings(self, concept: int) -> list[int]:
        """The concepts that came out of the other half when the concept's cluster was split off; [] for the root."""
        parent = int(self.parents[self.leaves[concept]])
        return [other for other in self.members(parent) if other != concept] if parent >= 0 else []

    @cached_property
    def _layout(self) -> "_Layout":
        return _Layout.of(self.parents.cpu().numpy(), self.leaves.cpu().numpy())

    def _check(self, node: int) -> None:
        if not 0 <= node < len(self.parents):
            raise IerfError(
                f"there is no node {node} in this tree; they are numbered from 0 to {len(self.parents) - 1}"
            )


@dataclass(frozen=True, eq=False)
class _Layout:
    """The concepts in an order in which those of each node stand beside each other."""

    order: Int[np.ndarray, " K"]
    starts: Int[np.ndarray, " M"]
    """Where the concepts of each node begin in it."""
    stops: Int[np.ndarray, " M"]
    children: Int[np.ndarray, "M 2"]
    """−1 for leaves."""

    @classmethod
    def of(cls, parents: Int[np.ndarray, " M"], leaves: Int[np.ndarray, " K"]) -> "_Layout":
        children = np.full((len(parents), 2), -1)
        by_parent = 1 + np.argsort(parents[1:], kind="stable")
        children[parents[by_parent[::2]]] = by_parent.reshape(-1, 2)
        counts = np.bincount(leaves, minlength=len(parents))
        for node in range(len(parents) - 1, 0, -1):
            counts[parents[node]] += counts[node]
        starts = np.zeros_like(counts)
        for node in np.flatnonzero(children[:, 0] >= 0).tolist():
            left, right = children[node].tolist()
            starts[left], starts[right] = starts[node], starts[node] + counts[left]
        return cls(np.argsort(starts[leaves], kind="stable"), starts, starts + counts, children)


class Firings:
    """With which sign each concept fires at PFVs, at `most` of them at most, taken evenly from so many."""

    def __init__(self, pfvs: int, most: int = 16_384) -> None:
        self._every, self._seen, self._taken = max(1, -(-pfvs // most)), 0, 0
        self._found: list[tuple[Int[Tensor, " E"], Int[Tensor, " E"], Float[Tensor, " E"]]] = []
        """PFV, concept and sign of each coefficient that is not zero."""

    def add(self, codes: Codes) -> None:
        """The codes of the PFVs that come next."""
        numbers = torch.arange(self._seen, self._seen + len(codes.values), device=codes.values.device)
        taken = codes[numbers % self._every == 0]
        places = taken.values.nonzero(as_tuple=True)
        entries = (places[0] + self._taken, taken.indices[places], taken.values[places].sign())
        self._found.append((entries[0].cpu(), entries[1].cpu(), entries[2].cpu()))
        self._seen += len(codes.values)
        self._taken += len(taken.values)

    def units(self, n_concepts: int) -> Any:
        """The signs of each concept as a row of norm 1, 0 for one that never fires; sparse (scipy)."""
        pfvs, concepts, signs = (torch.cat(parts).numpy() for parts in zip(*self._found, strict=True))
        values = signs.astype(np.float64) / np.sqrt(np.bincount(concepts, minlength=n_concepts))[concepts]
        sparse = extra("scipy.sparse", "concepts")
        return sparse.csr_matrix((values, (concepts, pfvs)), (n_concepts, self._taken))


def cluster(atoms: Float[Tensor, "K C"], firings: Firings | None = None) -> ConceptTree:
    """A tree over concepts by Ward's method: again and again, the two clusters are joined that differ least.

    How alike two concepts are is the mean of two cosines. That of the atoms, `⟨v̂_k, v̂_l⟩`, says whether they point
    the same way; alone, it tells nothing of a basis (PCA), and little of an overcomplete dictionary whose training
    drives atoms apart. That of the signs with which they fire over PFVs, `Σ_p s_pk s_pl / √(n_k n_l)` with `s = sign u`
    and n the PFVs at which a concept fires, says whether they are used together: without negative coefficients it is
    the Ochiai coefficient of the two sets of PFVs, and concepts of which one is added where the other is taken away
    stand apart, as a group of them would hide what each does. Where either never fires the first stands for both.

    The mean is the cosine of two vectors laid end to end, so `‖·‖² = 2 (1 − likeness)` between unit vectors, and Ward's
    method (1963) joins the two clusters that add least to the squares within. Average linkage would split off one
    outlier after another: of 13 groups of the bundled ResNet's 1666 concepts of `layer4.1`, the largest has 1630; by
    Ward's method it has 262, by bisecting k-means 180.

    No join is cheaper than one before, so the first n − 1 splits from the root are the cut into n. Nodes are numbered
    as those of bisecting k-means: split i, from 0, makes the nodes 2i + 1 and 2i + 2.

    Args:
        firings: None: by the cosine of the atoms alone.

    Raises:
        IerfError: more than 16384 concepts, or no scipy.
    """
    by: TreeBy = "cosine" if firings is None else "cosine and co-firing"
    count = len(atoms)
    if count > MOST:
        raise IerfError(
            f"a tree is made of {MOST} concepts at most, these are {count}; find fewer, or use bisecting k-means, "
            "which leaves a tree"
        )
    if count == 1:
        return ConceptTree(torch.tensor([-1]), torch.tensor([1]), torch.tensor([0]), by)
    hierarchy = extra("scipy.cluster.hierarchy", "concepts")
    merges = hierarchy.linkage(_distances(atoms, firings), method="ward")
    number = np.zeros(2 * count - 1, np.int64)
    number[merges[::-1, :2].astype(np.int64).ravel()] = np.arange(1, 2 * count - 1)
    parents = np.concatenate([[-1], np.repeat(number[: count - 1 : -1], 2)])
    sizes = np.empty_like(number)
    sizes[number] = np.concatenate([np.ones(count), merges[:, 3]])
    return ConceptTree(torch.from_numpy(parents), torch.from_numpy(sizes), torch.from_numpy(number[:count].copy()), by)


def _distances(atoms: Float[Tensor, "K C"], firings: Firings | None) -> Float[np.ndarray, " pairs"]:
    """`√(2 (1 − likeness))` of all pairs, the concept with the smaller number first, as scipy has them."""
    units, count = F.normalize(atoms.detach().cpu().double()), len(atoms)
    signs = None if firings is None else firings.units(count)
    found, end = np.empty(count * (count - 1) // 2), 0
    for start in range(0, count, _AT_ONCE):
        rows, others = slice(start, start + _AT_ONCE), slice(start, None)
        alike = (units[rows] @ units[others].T).numpy()
        if signs is not None:
            fires, together = np.diff(signs.indptr) > 0, (signs[rows] @ signs[others].T).toarray()
            alike = np.where(fires[rows, None] & fires[others], (alike + together) / 2, alike)
        for row, values in enumerate(alike):
            found[end : end + len(values) - 1 - row] = values[row + 1 :]
            end += len(values) - 1 - row
    found *= -2
    found += 2
    return np.sqrt(found.clip(0, out=found), out=found)
