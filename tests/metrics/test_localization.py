"""Scores of a map against a mask, on maps small enough to count by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.metrics import attribution_localization, pointing_game


def spot(row: int, column: int, side: int = 40) -> Tensor:
    map = torch.zeros(side, side)
    map[row, column] = 1
    return map


def box(top: int, left: int, bottom: int, right: int, side: int = 40) -> Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("column", "hit"),
    [(10, 1), (24, 1), (25, 0)],
    ids=["inside", "at the tolerance", "one pixel beyond"],
)
def test_the_maximum_may_miss_the_mask_by_the_tolerance(column: int, hit: int) -> None:
    assert pointing_game(spot(5, column), box(0, 0, 10, 10), tolerance=15) == hit


def test_the_tolerance_is_a_disc_not_a_square() -> None:
    mask = box(0, 0, 1, 1)
    assert pointing_game(spot(3, 4), mask, tolerance=5) == 1
    assert pointing_game(spot(4, 4), mask, tolerance=5) == 0


def test_an_empty_mask_is_no_hit_and_no_miss() -> None:
    empty = torch.zeros(40, 40, dtype=torch.bool)
    assert pointing_game(spot(0, 0), empty).isnan()
    assert attribution_localization(spot(0, 0), empty).isnan()


def test_only_positive_relevance_counts() -> None:
    map = torch.tensor([[3.0, 1.0], [-5.0, 0.0]])
    mask = torch.tensor([[True, False], [True, False]])
    assert attribution_localization(map, mask) == pytest.approx(0.75)


def test_a_map_without_positive_relevance_has_no_share() -> None:
    assert attribution_localization(-torch.ones(4, 4), torch.ones(4, 4, dtype=torch.bool)).isnan()


def test_quantus_counts_evidence_against_as_well() -> None:
    map = torch.tensor([[3.0, 1.0], [-5.0, -1.0]])
    mask = torch.tensor([[True, False], [True, False]])
    assert attribution_localization(map, mask, preset="quantus") == pytest.approx(0.8)
    with pytest.raises(UnknownNameError, match="did you mean quantus"):
        attribution_localization(map, mask, preset="quantos")  # type: ignore[arg-type]


def test_a_map_with_nan_has_no_score() -> None:
    broken = spot(5, 5)
    broken[0, 0] = torch.nan
    for score in (pointing_game, attribution_localization):
        assert score(broken, box(0, 0, 10, 10)).isnan()


def test_a_coarse_map_is_scaled_up_to_the_mask() -> None:
    map = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    assert pointing_game(map, box(20, 20, 40, 40), tolerance=0) == 1
    assert pointing_game(map, box(0, 0, 20, 20), tolerance=0) == 0


def test_batch_mates_do_not_matter() -> None:
    maps = torch.randn(5, 12, 12, generator=torch.Generator().manual_seed(0))
    masks = torch.rand(5, 12, 12, generator=torch.Generator().manual_seed(1)) > 0.9
    for score in (pointing_game, attribution_localization):
        alone = torch.stack([score(map, mask) for map, mask in zip(maps, masks, strict=True)])
        torch.testing.assert_close(score(maps, masks), alone, equal_nan=True)


def test_as_many_maps_as_masks() -> None:
    with pytest.raises(IerfError, match="2 maps for 3 masks"):
        pointing_game(torch.zeros(2, 4, 4), torch.ones(3, 4, 4, dtype=torch.bool))


@pytest.mark.parametrize("value", [0.0, 0.7, -3.0])
@pytest.mark.parametrize("size", [(40, 40), (5, 5)])
def test_a_map_that_is_the_same_everywhere_is_no_hit(value: float, size: tuple[int, int]) -> None:
    mask = torch.ones(40, 40, dtype=torch.bool)
    assert pointing_game(torch.full(size, value), mask) == 0
    assert attribution_localization(torch.zeros(size), mask).isnan()


@pytest.mark.parametrize("score", [pointing_game, attribution_localization])
def test_shapes_and_masks_that_fit_no_map(score: Any) -> None:
    with pytest.raises(IerfError, match="rows and columns"):
        score(torch.ones(4), torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(IerfError, match="one mask per map"):
        score(torch.rand(2, 3, 4, 4), torch.ones(3, 2, 4, 4, dtype=torch.bool))
    with pytest.raises(IerfError, match="holds NaN"):
        score(torch.rand(4, 4), torch.full((4, 4), torch.nan))
