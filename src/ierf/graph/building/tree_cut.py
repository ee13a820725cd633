"""Groups of concepts: nested cuts of the tree over a layer's dictionary, chosen by what they show for the classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from ierf.concepts import ConceptTree


@dataclass(frozen=True)
class Split:
    """A group of a tree, and the two that it is made of."""

    node: int
    halves: tuple[int, int]


@dataclass(frozen=True)
class TreeCut:
    """Nested cuts: the first `n − 1` splits leave `n` groups, which together hold every active concept."""

    root: int
    splits: tuple[Split, ...]
    members: dict[int, tuple[int, ...]]
    """Of the root and of each half: its active concepts, ascending."""

    def groups(self, n: int) -> list[int]:
        """The tree's nodes that are groups of the cut into `n`; of all that there are where there are fewer."""
        found = [self.root]
        for split in self.splits[: max(0, n - 1)]:
            at = found.index(split.node)
            found[at : at + 1] = split.halves
        return found

    @property
    def finest(self) -> list[int]:
        """The groups after the last split."""
        return self.groups(len(self.splits) + 1)


def cut_tree(tree: "ConceptTree", active: Int[Tensor, " A"], relevance: Float[Tensor, "T K"], most: int) -> TreeCut:
    """Split, again and again, the group that hides most, until there are `most`.

    A group g hides `Σ_t (2 Σ_{k∈g} |r_tk| − |Σ_{k∈g} r_tk|)`, what its members hold and what they take from each
    other; each class t counts the same, as `r` is relevance divided by the class's `Σ_k |r_tk|`. A half without an
    active concept is no group: a node of the tree that has only one other half is that half.

    Args:
        active: concepts with a coefficient, at least one.
        relevance: what each concept adds to each class, signed.
    """
    sizes = relevance.abs().sum(1, keepdim=True)
    share = (relevance / sizes.where(sizes > 0, 1))[:, active].double().cpu()
    above = _ActiveTree.of(tree, active.cpu(), share)
    root = above.branching(tree.root)
    waiting = [(-above.hidden[root], root)] if above.halves[root] else []
    splits: list[Split] = []
    while waiting and len(splits) + 1 < most:
        _, node = heappop(waiting)
        first, second = (above.branching(half) for half in above.halves[node])
        splits.append(Split(node, (first, second)))
        for half in (first, second):
            if above.halves[half]:
                heappush(waiting, (-above.hidden[half], half))
    used = set(active.tolist())
    named = {root, *(half for split in splits for half in split.halves)}
    members = {node: tuple(k for k in tree.members(node) if k in used) for node in named}
    return TreeCut(root, tuple(splits), members)


@dataclass(frozen=True, eq=False)
class _ActiveTree:
    """The part of a tree that lies above active leaves."""

    halves: dict[int, tuple[int, ...]]
    """Of each node: those of its two halves that hold active concepts; nothing for a leaf."""
    hidden: dict[int, float]

    @classmethod
    def of(cls, tree: "ConceptTree", active: Int[Tensor, " A"], share: Float[Tensor, "T A"]) -> "_ActiveTree":
        parents, nodes, places = tree.parents.cpu(), tree.leaves.cpu()[active], torch.arange(len(active))
        held, signed = (torch.zeros(len(share), len(parents), dtype=share.dtype) for _ in range(2))
        used = torch.zeros(len(parents), dtype=torch.bool)
        while len(nodes):
            held.index_add_(1, nodes, share[:, places].abs())
            signed.index_add_(1, nodes, share[:, places])
            used[nodes] = True
            inner = parents[nodes] >= 0
            nodes, places = parents[nodes][inner], places[inner]
        some = used.nonzero()[:, 0].tolist()
        hidden = (2 * held - signed.abs()).sum(0)[some].tolist()
        halves = {node: tuple(half for half in tree.children(node) if used[half]) for node in some}
        return cls(halves, dict(zip(some, hidden, strict=True)))

    def branching(self, node: int) -> int:
        """The nearest node from here down that is a leaf or has two halves."""
        while len(self.halves[node]) == 1:
            (node,) = self.halves[node]
        return node


def membership(groups: Sequence[Sequence[int]], concepts: Int[Tensor, " A"]) -> Float[Tensor, "G A"]:
    """1 where a concept belongs to a group, else 0; `concepts` ascending."""
    table = torch.zeros(len(groups), len(concepts), device=concepts.device)
    place = {concept: i for i, concept in enumerate(concepts.tolist())}
    rows = [g for g, members in enumerate(groups) for k in members if k in place]
    columns = [place[k] for members in groups for k in members if k in place]
    table[rows, columns] = 1
    return table
