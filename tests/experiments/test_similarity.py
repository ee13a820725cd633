"""Likeness of maps, against scipy and by hand."""

import math

import pytest
import torch

from ierf.experiments.results import pearson, ranks, spearman, ssim


def noise(seed: int) -> torch.Tensor:
    return torch.randn(12, 9, generator=torch.Generator().manual_seed(seed))


def test_equal_values_share_their_ranks() -> None:
    assert ranks(torch.tensor([[5.0, 0.0], [0.0, 7.0]])).tolist() == [[2.0, 0.5], [0.5, 3.0]]


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_is_scipys(ties: bool) -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = (noise(seed).round() if ties else noise(seed) for seed in (0, 1))
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a.flatten(), b.flatten()).statistic, abs=1e-12)


def test_monotone_maps_are_alike_by_rank() -> None:
    a = noise(0)
    assert spearman(a, a.exp()) == pytest.approx(1)
    assert spearman(a, -a) == pytest.approx(-1)
    assert pearson(a, 3 * a + 1) == pytest.approx(1)
    assert pearson(a, a.exp()) < 0.95


def test_scale_and_sign_do_not_matter_to_structure() -> None:
    pytest.importorskip("skimage")
    a = noise(0)
    assert ssim(a, -7 * a) == pytest.approx(1)
    assert abs(ssim(a, noise(1))) < 0.4


def test_a_map_of_zeros_is_like_nothing() -> None:
    pytest.importorskip("skimage")
    zeros = torch.zeros(12, 9)
    assert all(math.isnan(measure(zeros, noise(0))) for measure in (spearman, pearson, ssim))
