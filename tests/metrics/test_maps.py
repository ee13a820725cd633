"""One size and one scale for all maps."""

import pytest
import torch
from support.networks import noise

from ierf.errors import IerfError
from ierf.metrics import normalise_map
from ierf.metrics.scoring import at_pixels, finite


def test_every_sample_is_divided_by_its_own_largest_value() -> None:
    maps = torch.tensor([[[1.0, -4.0]], [[0.5, 0.25]]])
    assert normalise_map(maps).tolist() == [[[0.25, -1.0]], [[1.0, 0.5]]]
    assert normalise_map(maps[0]).tolist() == [[0.25, -1.0]]


def test_no_value_leaves_the_unit_interval() -> None:
    maps = torch.randn(2000, 3, 3, generator=torch.Generator().manual_seed(0)) * 1e-3
    assert float(normalise_map(maps).abs().max()) == 1.0


def test_a_map_of_zeros_stays_and_a_broken_one_is_nan() -> None:
    assert normalise_map(torch.zeros(2, 2)).tolist() == [[0, 0], [0, 0]]
    assert normalise_map(torch.tensor([[1.0, torch.nan]])).isnan().all()


def test_enlarging_is_linear_between_the_centres() -> None:
    enlarged = at_pixels(torch.tensor([[[0.0, 4.0]]]), (2, 4))
    assert enlarged.tolist() == [[[0.0, 1.0, 3.0, 4.0]] * 2]


def test_enlarging_leaves_a_map_of_the_right_size_alone() -> None:
    maps = noise(2, 5, 7)
    assert at_pixels(maps, (5, 7)) is maps


def test_maps_have_samples_rows_and_columns() -> None:
    with pytest.raises(IerfError, match=r"\(samples, rows, columns\), not \(2, 3, 4, 4\)"):
        at_pixels(noise(2, 3, 4, 4), (4, 4))
    with pytest.raises(IerfError, match="not"):
        at_pixels(noise(2, 0, 4), (4, 4))


def test_which_maps_are_finite() -> None:
    maps = torch.zeros(3, 2, 2)
    maps[0, 0, 0], maps[2, 1, 1] = torch.nan, torch.inf
    assert finite(maps).tolist() == [False, True, False]
