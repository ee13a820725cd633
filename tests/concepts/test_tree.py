"""Trees over concepts: by hand, by brute force, and clustering by its definition."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from ierf.concepts import Codes, ConceptTree, tree
from ierf.concepts.tree import Firings, cluster
from ierf.errors import IerfError


def by_hand() -> ConceptTree:
    #       0
    #    1     2
    #   3 4   5 6
    #        7 8
    parents = torch.tensor([-1, 0, 0, 1, 1, 2, 2, 5, 5])
    return ConceptTree(parents, torch.ones(9, dtype=torch.long), torch.tensor([8, 3, 6, 4, 7]))


def test_parts_and_members_by_hand() -> None:
    found = by_hand()
    assert found.root == 0
    assert [found.children(node) for node in range(9)] == [(1, 2), (3, 4), (5, 6), (), (), (7, 8), (), (), ()]
    members = [[0, 1, 2, 3, 4], [1, 3], [0, 2, 4], [1], [3], [0, 4], [2], [4], [0]]
    assert [found.members(node) for node in range(9)] == members
    assert [found.siblings(concept) for concept in range(5)] == [[4], [3], [0, 4], [1], [0]]
    for node in (-1, 9):
        with pytest.raises(IerfError, match=f"no node {node} in this tree; they are numbered from 0 to 8"):
            found.members(node)
        with pytest.raises(IerfError, match=f"no node {node} "):
            found.children(node)


def test_a_tree_of_one_concept() -> None:
    found = cluster(torch.ones(1, 3))
    assert (found.root, found.children(0), found.members(0), found.siblings(0)) == (0, (), [0], [])


@pytest.mark.parametrize("count", [2, 3, 40])
def test_parts_and_members_by_brute_force(count: int) -> None:
    """Splits of leaves drawn at random, the concepts at the leaves in any order."""
    random = np.random.default_rng(count)
    parents, leaves = [-1], [0]
    for _ in range(count - 1):
        parents += 2 * [leaves.pop(int(random.integers(len(leaves))))]
        leaves += [len(parents) - 2, len(parents) - 1]
    at = random.permutation(leaves)
    found = ConceptTree(torch.tensor(parents), torch.ones(len(parents)).long(), torch.from_numpy(at))
    above = {concept: _way_up(parents, int(node)) for concept, node in enumerate(at)}
    for node in range(len(parents)):
        assert found.members(node) == [concept for concept in range(count) if node in above[concept]]
        assert list(found.children(node)) == [child for child, parent in enumerate(parents) if parent == node]
    for concept in range(count):
        parent = parents[at[concept]]
        assert found.siblings(concept) == [
            other for other in range(count) if other != concept and parent in above[other]
        ]


def _way_up(parents: list[int], node: int) -> set[int]:
    return {node} | (_way_up(parents, parents[node]) if parents[node] >= 0 else set())


def ward(alike: np.ndarray) -> list[tuple[set[int], set[int]]]:
    """The two clusters of each merge, the first merge first: those that add least to the squares within.

    Between unit vectors with these cosines, `‖m_A − m_B‖² = s_AA + s_BB − 2 s_AB` with s the means over all pairs.
    """

    def cost(one: set[int], other: set[int]) -> float:
        a, b = list(one), list(other)
        apart = alike[np.ix_(a, a)].mean() + alike[np.ix_(b, b)].mean() - 2 * alike[np.ix_(a, b)].mean()
        return float(apart) * len(a) * len(b) / (len(a) + len(b))

    clusters, merges = [{k} for k in range(len(alike))], []
    while len(clusters) > 1:
        one, other = min(combinations(clusters, 2), key=lambda pair: cost(*pair))
        merges.append((one, other))
        clusters = [each for each in clusters if each not in (one, other)] + [one | other]
    return merges


def likeness(atoms: Tensor, codes: Tensor | None) -> np.ndarray:
    """The definition, pair by pair."""
    count = len(atoms)
    found = np.eye(count)
    for k in range(count):
        for other in set(range(count)) - {k}:
            lengths = float(atoms[k].norm() * atoms[other].norm())
            found[k, other] = float(atoms[k] @ atoms[other]) / lengths if lengths else 0.0
            if codes is None:
                continue
            n = [int((codes[:, each] != 0).sum()) for each in (k, other)]
            if min(n) > 0:
                both = sum(float(row[k].sign() * row[other].sign()) for row in codes)
                found[k, other] = (found[k, other] + both / (n[0] * n[1]) ** 0.5) / 2
    return found


@pytest.mark.parametrize("fired", [False, True])
def test_clustering_is_wards_of_the_mean_likeness(monkeypatch: pytest.MonkeyPatch, fired: bool) -> None:
    monkeypatch.setattr(tree, "_AT_ONCE", 7)
    generator = torch.Generator().manual_seed(3)
    atoms = torch.randn(24, 10, generator=generator) * torch.linspace(0.1, 5, 24)[:, None]
    atoms[5] = 0
    codes = torch.randn(50, 24, generator=generator) * (torch.rand(50, 24, generator=generator) < 0.3)
    codes[:, [2, 9]] = 0
    firings = Firings(50)
    for some in codes.split(13):
        firings.add(Codes.of(some))
    found = cluster(atoms, firings if fired else None)
    assert found.made_by == ("cosine and co-firing" if fired else "cosine")
    expected = ward(likeness(atoms, codes if fired else None))
    assert found.parents.tolist()[0] == -1
    for split, parts in enumerate(reversed(expected)):
        nodes = (2 * split + 1, 2 * split + 2)
        assert found.children(int(found.parents[nodes[0]])) == nodes
        assert {frozenset(found.members(node)) for node in nodes} == set(map(frozenset, parts))
    assert found.sizes.tolist() == [len(found.members(node)) for node in range(47)]
    again = cluster(atoms, firings if fired else None)
    assert torch.equal(found.parents, again.parents)
    assert torch.equal(found.leaves, again.leaves)


def test_atoms_of_norm_zero_and_concepts_that_never_fire_have_a_place() -> None:
    firings = Firings(4)
    firings.add(Codes.of(torch.zeros(4, 6)))
    for found in (cluster(torch.zeros(6, 3)), cluster(torch.zeros(6, 3), firings), cluster(torch.eye(6), firings)):
        assert found.members(found.root) == list(range(6))
        assert sorted(found.leaves.tolist()) == [node for node in range(11) if not found.children(node)]


def test_a_basis_is_grouped_by_what_fires_together_and_opposites_stand_apart() -> None:
    """Orthogonal atoms: 0 and 3 are added together, 1 and 2 too; 4 is taken away where 0 is added."""
    codes = torch.zeros(30, 5)
    codes[:15, 0], codes[:15, 3], codes[:15, 4] = 1, 2, -1
    codes[15:, 1], codes[15:, 2] = 1, 3
    firings = Firings(30)
    firings.add(Codes.of(codes))
    found = cluster(torch.eye(5), firings)
    groups = {frozenset(found.members(node)) for node in range(9)}
    assert {frozenset({0, 3}), frozenset({1, 2})} <= groups
    assert frozenset({0, 3, 4}) not in groups


def test_a_bounded_even_sample_of_firings_however_they_come() -> None:
    codes = torch.randn(100, 6, generator=torch.Generator().manual_seed(0)).relu()
    whole = Firings(100, most=30)
    whole.add(Codes.of(codes))
    parts = Firings(100, most=30)
    for some in codes.split([1, 2, 50, 47]):
        parts.add(Codes.of(some))
    taken = (codes[::4] != 0).double()
    expected = taken / taken.sum(0).sqrt()
    for each in (whole, parts):
        np.testing.assert_allclose(each.units(6).toarray(), expected.T.numpy())


def test_more_concepts_than_can_be_clustered_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MOST", 10)
    with pytest.raises(IerfError, match="10 concepts at most, these are 11; find fewer, or use bisecting"):
        cluster(torch.randn(11, 3))
