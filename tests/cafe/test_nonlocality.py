"""Measures of non-locality, computed by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ierf.cafe.nonlocality import displacement, entropy, outside, spread


def one_hot(row: int, column: int, size: tuple[int, int] = (4, 5)) -> torch.Tensor:
    map = torch.zeros(1, *size)
    map[0, row, column] = 2.0
    return map


def test_a_single_patch_is_local_and_an_even_map_is_not() -> None:
    even = torch.full((1, 4, 5), 3.0)
    assert entropy(one_hot(1, 2)).item() == 0
    assert entropy(even).item() == pytest.approx(1)
    assert entropy(one_hot(0, 0) + one_hot(3, 3)).item() == pytest.approx(math.log(2) / math.log(20))
    assert spread(one_hot(1, 2)).item() == 0
    corner = even + one_hot(0, 0)
    distances = [math.hypot(r, c) for r in range(4) for c in range(5)]
    assert spread(corner).item() == pytest.approx(3 * sum(distances) / 62 / 5)


def test_evidence_elsewhere_is_displaced_by_its_distance() -> None:
    assert displacement(one_hot(0, 0), one_hot(3, 4)).item() == pytest.approx(1)
    assert displacement(one_hot(0, 0), one_hot(0, 3)).item() == pytest.approx(0.6)
    assert displacement(one_hot(2, 2), one_hot(2, 2)).item() == 0


def test_the_neighbours_of_the_peak_are_not_outside() -> None:
    evidence = one_hot(1, 1) + 3 * one_hot(2, 2) - 5 * one_hot(3, 3) + 4 * one_hot(1, 3)
    assert outside(one_hot(1, 1), evidence).item() == pytest.approx(8 / 16)
    assert outside(one_hot(1, 1), evidence, dilation=0).item() == pytest.approx(14 / 16)
    assert outside(one_hot(1, 1), evidence, dilation=2).item() == 0


def test_a_silent_latent_has_no_place() -> None:
    silent = torch.zeros(1, 4, 5)
    assert all(math.isnan(f(silent).item()) for f in (entropy, spread))
    for measure in (displacement, outside):
        assert math.isnan(measure(silent, one_hot(0, 0)).item())
        assert math.isnan(measure(one_hot(0, 0), silent).item())


@given(st.floats(0.1, 50), st.integers(0, 3))
def test_neither_scale_nor_turning_matters(scale: float, turns: int) -> None:
    map, evidence = (torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(s)) - 0.2 for s in (1, 2))
    turned, elsewhere = (torch.rot90(one, turns, (1, 2)) for one in (map, evidence))
    torch.testing.assert_close(entropy(scale * turned), entropy(map))
    for measure in (displacement, outside):
        torch.testing.assert_close(measure(scale * turned, elsewhere), measure(map, evidence))
