"""The Gini index, against its values by hand and its definition by pairs."""

import pytest
import torch

from ierf.metrics import sparseness


@pytest.mark.parametrize(("values", "gini"), [([0, 0, 0, 1], 0.75), ([1, 2, 3, 4], 0.25), ([2, 2, 2, 2], 0.0)])
def test_known_values(values: list[float], gini: float) -> None:
    assert sparseness(torch.tensor(values, dtype=torch.float32).view(2, 2)) == pytest.approx(gini)


def test_it_is_half_the_mean_difference_of_pairs() -> None:
    map = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    v = map.flatten(1).abs()
    pairs = (v[:, :, None] - v[:, None, :]).abs().mean((1, 2)) / (2 * v.mean(1))
    torch.testing.assert_close(sparseness(map), pairs)


def test_sign_order_and_scale_do_not_matter() -> None:
    map = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    expected = sparseness(map)
    for changed in (-map, map.flip(0), map.T, 100 * map):
        torch.testing.assert_close(sparseness(changed), expected)


def test_an_empty_map_has_none() -> None:
    assert sparseness(torch.zeros(4, 4)).isnan()
