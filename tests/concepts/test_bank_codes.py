"""Sparse codes, shares of relevance, trees, matchings: against dense algebra and by hand."""

import pytest
import torch
from torch.nn import functional as F

from ierf.concepts import Codes, ConceptTree
from ierf.concepts.bank_fitting import Occurrence
from ierf.concepts.layer_concepts import match_concepts, relevance_shares
from ierf.errors import IerfError


def random_codes(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape) * (torch.rand(*shape) < 0.2)


def test_sparse_codes_are_the_dense_ones() -> None:
    dense = random_codes(4, 7, 30)
    dense[1, 2] = 0
    codes, atoms = Codes.of(dense), torch.randn(30, 5)
    assert codes.indices.shape[-1] == (dense != 0).sum(-1).max() < 30
    assert codes.shape == dense.shape
    assert torch.equal(codes.dense(), dense)
    assert torch.equal(codes[1:3].dense(), dense[1:3])
    assert torch.equal(codes.counts(), (dense != 0).sum(-1))
    assert codes.active().tolist() == [k for k in range(30) if dense[..., k].any()]
    torch.testing.assert_close(codes.times(atoms), dense @ atoms)
    ascending = codes.indices.masked_fill(codes.values == 0, 30)
    assert bool((ascending.diff(dim=-1) >= 0).all())


@pytest.mark.parametrize("dense", [torch.zeros(2, 3, 6), torch.zeros(0, 6)])
def test_codes_without_anything(dense: torch.Tensor) -> None:
    codes = Codes.of(dense)
    assert torch.equal(codes.dense(), dense)
    assert torch.equal(codes.times(torch.randn(6, 4)), torch.zeros(*dense.shape[:-1], 4))
    assert codes.active().tolist() == []


def test_shares_of_relevance_by_hand() -> None:
    atoms = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    dense = torch.tensor([[3.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, -1.0, 2.0]])
    # x̂ = (3, 4): shares 9/25, 16/25 of 5.  x̂ = 0: nothing.  x̂ = (2, 0): ⟨−(0, 2), x̂⟩ = 0 and ⟨(2, 2), x̂⟩ = 4 of 4.
    shares = relevance_shares(Codes.of(dense), atoms, torch.tensor([5.0, 7.0, 2.0]))
    torch.testing.assert_close(shares, torch.tensor([1.8, 3.2, 2.0]))


def test_siblings_by_hand() -> None:
    #       0
    #    1     2
    #   3 4   5 6
    #        7 8
    tree = ConceptTree(
        torch.tensor([-1, 0, 0, 1, 1, 2, 2, 5, 5]), torch.ones(9, dtype=torch.long), torch.tensor([3, 4, 7, 8, 6])
    )
    assert [tree.siblings(concept) for concept in range(5)] == [[1], [0], [3], [2], [2, 3]]
    alone = ConceptTree(torch.tensor([-1]), torch.tensor([9]), torch.tensor([0]))
    assert alone.siblings(0) == []


def test_sums_over_pfvs_do_not_depend_on_how_they_come() -> None:
    dense, atoms = random_codes(40, 12), torch.randn(12, 5)
    dense[:, 4] = -dense[:, 4].abs()
    x, relevances = torch.randn(40, 5), torch.randn(40)
    classes = torch.arange(40) % 3
    once, twice = Occurrence(12), Occurrence(12)
    once.add(x, Codes.of(dense), atoms, relevances, classes)
    for rows in (slice(0, 13), slice(13, 40)):
        twice.add(x[rows], Codes.of(dense[rows]), atoms, relevances[rows], classes[rows])
    one, other = once.summary(), twice.summary()
    for name in ("frequencies", "strengths", "relevances", "l0_ratio", "relative_error"):
        torch.testing.assert_close(one[name], other[name])
    torch.testing.assert_close(one["frequencies"], (dense != 0).float().mean(0))
    active = (dense != 0).sum(0).clamp_min(1)
    torch.testing.assert_close(one["strengths"], dense.abs().sum(0) / active)
    assert one["l0_ratio"] == pytest.approx(1 - (dense != 0).float().mean().item(), abs=1e-6)
    errors = (x - dense @ atoms).norm(dim=1) / x.norm(dim=1)
    assert one["relative_error"] == pytest.approx(errors.mean().item(), rel=1e-5)
    assert one["relevances"].sum().item() == pytest.approx(1, abs=1e-5)
    positive = dense.clamp_min(0)
    for concept in range(12):
        sums = {c: positive[classes == c, concept].sum().item() for c in range(3)}
        expected = {c: s / sum(sums.values()) for c, s in sums.items() if s > 0}
        for found in (one["class_shares"].of(concept), other["class_shares"].of(concept)):
            assert found == pytest.approx(expected, rel=1e-5)
            assert list(found.values()) == sorted(found.values(), reverse=True)
    assert one["class_shares"].of(4) == {}


def test_matching_finds_a_permutation() -> None:
    torch.manual_seed(1)
    one = torch.randn(20, 16)
    order = torch.randperm(20)
    found = match_concepts(one, 3 * one[order])
    assert torch.equal(order[found.columns], torch.arange(20))
    assert found.mean == pytest.approx(1, abs=1e-5)
    assert found.share_above(0.999) == 1
    assert found.chance < 0.6
    fewer = match_concepts(one, one[[7, 3]])
    assert (fewer.rows.tolist(), fewer.columns.tolist()) == ([3, 7], [1, 0])
    with pytest.raises(IerfError, match="16 and of 5 channels"):
        match_concepts(one, torch.randn(3, 5))


def test_matching_is_the_best_of_all() -> None:
    torch.manual_seed(2)
    one, other = torch.randn(4, 3), torch.randn(4, 3)
    cosines = F.normalize(one) @ F.normalize(other).T
    best = max(sum(cosines[i, j] for i, j in enumerate(order)) for order in _permutations(list(range(4))))
    assert match_concepts(one, other).cosines.sum().item() == pytest.approx(float(best), abs=1e-5)


def _permutations(items: list[int]) -> list[list[int]]:
    return [[x, *rest] for x in items for rest in _permutations([y for y in items if y != x])] if items else [[]]
