"""Groups of concepts: nested cuts of the tree over a layer's dictionary, chosen by what they show for the classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import torch
from jaxtyping import Float, Int
from torch import Tensor


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


def cut_tree(
    parents: Int[Tensor, " M"],
    leaves: Int[Tensor, " K"],
    active: Int[Tensor, " A"],
    relevance: Float[Tensor, "T K"],
    most: int,
) -> TreeCut:
    """Split, again and again, the group that hides most, until there are `most`.

    A group g hides `Σ_t (2 Σ_{k∈g} |r_tk| − |Σ_{k∈g} r_tk|)`, what its members hold and what they take from each
    other; each class t counts the same, as `r` is relevance divided by the class's `Σ_k |r_tk|`. A half without an
    active concept is no group: a node of the tree that has only one other half is that half.

    Args:
        parents, leaves: of the tree, see `ierf.concepts.ConceptTree`.
        active: concepts with a coefficient, at least one.
        relevance: what each concept adds to each class, signed.
    """
    sizes = relevance.abs().sum(1, keepdim=True)
    share = (relevance / sizes.where(sizes > 0, 1))[:, active].double().cpu()
    tree = _ActiveTree.of(parents.cpu(), leaves.cpu()[active.cpu()], share)
    root = tree.branching(tree.root)
    waiting = [(-tree.hidden[root], root)] if tree.halves(root) else []
    splits = []
    heapify(waiting)
    while waiting and len(splits) + 1 < most:
        _, node = heappop(waiting)
        first, second = (tree.branching(half) for half in tree.halves(node))
        splits.append(Split(node, (first, second)))
        for half in (first, second):
            if tree.halves(half):
                heappush(waiting, (-tree.hidden[half], half))
    concepts = active.tolist()
    named = {root, *(half for split in splits for half in split.halves)}
    members = {node: tuple(sorted(concepts[i] for i in tree.below(node))) for node in named}
    return TreeCut(root, tuple(splits), members)


@dataclass(frozen=True, eq=False)
class _ActiveTree:
    """The part of a tree that lies above active leaves."""

    root: int
    children: dict[int, tuple[int, ...]]
    leaf: dict[int, list[int]]
    """Places of active concepts by the tree's leaf."""
    hidden: dict[int, float]

    @classmethod
    def of(cls, parents: Int[Tensor, " M"], leaves: Int[Tensor, " A"], share: Float[Tensor, "T A"]) -> "_ActiveTree":
        held, signed = (torch.zeros(share.shape[0], len(parents), dtype=share.dtype) for _ in range(2))
        nodes, places = leaves, torch.arange(len(leaves))
        used = torch.zeros(len(parents), dtype=torch.bool)
        while len(nodes):
            held.index_add_(1, nodes, share[:, places].abs())
            signed.index_add_(1, nodes, share[:, places])
            used[nodes] = True
            nodes = parents[nodes]
            nodes, places = nodes[nodes >= 0], places[nodes >= 0]
        hidden = (2 * held - signed.abs()).sum(0)
        some = used.nonzero()[:, 0].tolist()
        children: dict[int, list[int]] = {node: [] for node in some}
        root = -1
        for node, parent in zip(some, parents[some].tolist(), strict=True):
            if parent < 0:
                root = node
            else:
                children[parent].append(node)
        leaf: dict[int, list[int]] = {}
        for place, node in enumerate(leaves.tolist()):
            leaf.setdefault(node, []).append(place)
        return cls(
            root,
            {node: tuple(sorted(below)) for node, below in children.items()},
            leaf,
            dict(zip(some, hidden[some].tolist(), strict=True)),
        )

    def halves(self, node: int) -> tuple[int, ...]:
        """The two halves that hold active concepts; nothing for a leaf."""
        return self.children[node]

    def branching(self, node: int) -> int:
        """The nearest node from here down that is a leaf or has two halves."""
        while len(self.children[node]) == 1:
            (node,) = self.children[node]
        return node

    def below(self, node: int) -> Iterator[int]:
        """Places of the active concepts under a node."""
        waiting = [node]
        while waiting:
            here = waiting.pop()
            yield from self.leaf.get(here, ())
            waiting += self.children[here]


def membership(groups: Sequence[Sequence[int]], concepts: Int[Tensor, " A"]) -> Float[Tensor, "G A"]:
    """1 where a concept belongs to a group, else 0; `concepts` ascending."""
    table = torch.zeros(len(groups), len(concepts), device=concepts.device)
    place = {concept: i for i, concept in enumerate(concepts.tolist())}
    rows = [g for g, members in enumerate(groups) for k in members if k in place]
    columns = [place[k] for members in groups for k in members if k in place]
    table[rows, columns] = 1
    return table
