"""Reduced iERFs keep their sums; their bytes are within half a step."""

import pytest
import torch
from torch.nn import functional as F

from ierf.store.plan import ZERO, quantised, reduced, reduced_size, restored


def test_cells_hold_the_sum_of_their_pixels() -> None:
    maps = torch.randn(2, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(reduced(maps, (4, 4)), F.avg_pool2d(maps, (3, 2)) * 6)


def test_a_pixel_on_an_edge_is_shared_by_area() -> None:
    line = torch.tensor([[3.0, 5.0, 7.0]], dtype=torch.float64)
    torch.testing.assert_close(reduced(line, (1, 2)), torch.tensor([[5.5, 9.5]], dtype=torch.float64))


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (7, 11)])
def test_sums_are_kept(size: tuple[int, int]) -> None:
    maps = torch.randn(3, 7, 11, dtype=torch.float64)
    torch.testing.assert_close(reduced(maps, size).sum((1, 2)), maps.sum((1, 2)))
    assert torch.equal(reduced(maps, (7, 11)), maps)


def test_sizes() -> None:
    assert reduced_size((224, 224), None) == (56, 56)
    assert reduced_size((64, 64), None) == (64, 64)
    assert reduced_size((224, 112), 28) == (28, 14)
    assert reduced_size((14, 14), 56) == (14, 14)


def test_bytes_are_within_half_a_step_and_zero_is_exact() -> None:
    maps = torch.randn(5, 9, 9)
    maps[:, 3] = 0
    maps[4] = 0
    small, scale = quantised(maps)
    again = restored(small, scale)
    assert bool(((again - maps).abs() <= scale[:, None, None] * 0.5001).all())
    assert bool((small[:, 3] == ZERO).all())
    assert bool((again[:, 3] == 0).all())
    assert scale[4] == 0
    torch.testing.assert_close(again.abs().amax((1, 2)), maps.abs().amax((1, 2)))
    torch.testing.assert_close(restored(*quantised(-maps)), -again)
