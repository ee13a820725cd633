"""Pictures say what the numbers say: colours by sign, places by position, nothing where there is nothing."""

import numpy as np
import pytest
import torch
from PIL import Image

from ierf.errors import IerfError
from ierf.report.pictures import (
    beneath,
    cells,
    diverging,
    enlarged,
    normalised,
    on_grid,
    overlay,
    smoothed,
    spotlight,
    with_inset,
)

SIDE = 96


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def quadrant(value: float, row: int, column: int) -> np.ndarray:
    values = np.zeros((4, 4), dtype=np.float32)
    values[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = value
    return values


def test_the_scale_is_warm_for_cool_against_and_clear_at_zero() -> None:
    red, green, blue, alpha = diverging(np.array([[1.0, 0.3, 0.0, -0.3, -1.0]]))[0].T
    assert (red[:2] > blue[:2]).all()
    assert (blue[3:] > red[3:]).all()
    assert alpha[2] == 0
    assert alpha[0] > alpha[1] > 0
    np.testing.assert_allclose(alpha, alpha[::-1])
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert luminance[0] < luminance[1]
    assert luminance[4] < luminance[3]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("value", [2.5, -2.5])
def test_an_overlay_colours_the_hot_quadrant_and_no_other(
    photo: Image.Image, row: int, column: int, value: float
) -> None:
    half = SIDE // 2
    plain = np.asarray(beneath(photo), dtype=int)
    for paint in (overlay, cells):
        change = np.asarray(paint(photo, quadrant(value, row, column)), dtype=int) - plain
        warmth = (change[..., 0] - change[..., 2]) * np.sign(value)
        for r in (0, 1):
            for c in (0, 1):
                # Away from the seams, where interpolation blends the quadrants.
                inner = warmth[r * half + 16 : r * half + 32, c * half + 16 : c * half + 32]
                assert (inner > 30).all() if (r, c) == (row, column) else (np.abs(inner) <= 2).all()


def test_a_map_of_zeros_leaves_the_photograph(photo: Image.Image) -> None:
    np.testing.assert_array_equal(overlay(photo, np.zeros((7, 7), np.float32)), beneath(photo))
    assert overlay(photo, np.zeros((64, 64), np.float32)).size == photo.size


def test_one_outlier_does_not_hide_the_rest() -> None:
    values = np.ones((64, 64), np.float32)
    values[0, 0] = 1e6
    assert normalised(values).min() == 1
    lone = np.zeros((64, 64), np.float32)
    lone[3, 4] = 5
    assert normalised(lone)[3, 4] == 1


def test_smoothing_keeps_the_sum_and_matches_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    values = np.random.default_rng(1).normal(size=(50, 61))
    expected = ndimage.gaussian_filter(values, 1.3, mode="reflect", radius=4)
    np.testing.assert_allclose(smoothed(values, 1.3), expected, atol=1e-12)
    assert smoothed(values, 1.3).sum() == pytest.approx(values.sum())


def test_enlarging_puts_each_cell_over_its_part_and_never_overshoots() -> None:
    values = np.array([[1, 0], [0, -1]], np.float32)
    large = enlarged(values, (40, 60))
    assert large.shape == (40, 60)
    assert large.max() <= 1
    assert large.min() >= -1
    assert large[5, 5] > 0.9
    assert large[35, 55] < -0.9
    np.testing.assert_array_equal(enlarged(values, (4, 6), smooth=False)[:2, :3], np.ones((2, 3)))


def test_a_spotlight_is_bright_at_the_ierf_and_dim_elsewhere(photo: Image.Image) -> None:
    ierf = np.zeros((64, 64), np.float32)
    ierf[40:56, 8:24] = 1
    ierf[0:16, 48:64] = -1
    lit = np.asarray(spotlight(photo, ierf, None, (8, 8)), dtype=float)
    share = lit.sum(-1) / np.asarray(photo, dtype=float).sum(-1).clip(1)
    assert share[68:76, 20:28].min() > 0.9
    assert share[2:20, 75:94].mean() < 0.3


def test_the_frame_is_around_the_position(photo: Image.Image) -> None:
    nothing = np.zeros((64, 64), np.float32)
    change = np.asarray(spotlight(photo, nothing, (6, 1), (8, 8)), int) - np.asarray(
        spotlight(photo, nothing, None, (8, 8)), int
    )
    rows, columns = np.nonzero(np.abs(change).sum(-1))
    assert (rows.min(), rows.max()) == (71, 84)
    assert (columns.min(), columns.max()) == (11, 24)


def test_an_inset_lies_in_the_lower_right_and_the_rest_is_untouched(photo: Image.Image) -> None:
    small = Image.new("RGB", photo.size, (1, 2, 3))
    framed = np.asarray(with_inset(photo, small))
    np.testing.assert_array_equal(framed[:60], np.asarray(photo)[:60])
    assert (framed[70:] == (1, 2, 3)).all(-1).sum() > 300


@pytest.mark.parametrize(
    ("tokens", "size", "grid"),
    [(196, (224, 224), (14, 14)), (197, (224, 224), (14, 14)), (201, (224, 224), (14, 14)), (51, (160, 80), (10, 5))],
)
def test_tokens_become_a_grid_without_their_prefix(tokens: int, size: tuple[int, int], grid: tuple[int, int]) -> None:
    prefix = tokens - grid[0] * grid[1]
    shown = on_grid(torch.arange(tokens), size)
    assert shown.shape == grid
    assert shown[0, 0] == prefix


def test_a_sequence_that_is_no_grid_is_refused() -> None:
    with pytest.raises(IerfError, match="no rows and columns"):
        on_grid(torch.zeros(2), (224, 10))
    with pytest.raises(IerfError, match="no rows and columns"):
        on_grid(torch.zeros(3, 4, 5), (224, 224))
