"""Draws follow the weights, one after the other, and depend on their key alone."""

from itertools import permutations

import numpy as np
from support.networks import chi_square

from ierf.store.plan import draw


def test_one_draw_follows_the_weights() -> None:
    weights = np.array([0.5, 3.0, 0.01, 1.5, 2.0, 7.0, 0.3])
    drawn = [draw(weights, 1, f"image {i}")[0] for i in range(20_000)]
    expected = 20_000 * weights / weights.sum()
    assert chi_square(np.bincount(drawn, minlength=7), expected) < 4
    assert chi_square(np.bincount(drawn, minlength=7), np.roll(expected, 1)) > 100


def test_several_draws_are_made_without_replacement() -> None:
    weights = np.array([1.0, 2.0, 3.0, 0.5])
    pairs = list(permutations(range(4), 2))
    expected = np.array([weights[i] / 6.5 * weights[j] / (6.5 - weights[i]) for i, j in pairs])
    drawn = [tuple(draw(weights, 2, f"{i}").tolist()) for i in range(20_000)]
    counts = np.array([drawn.count(pair) for pair in pairs])
    assert counts.sum() == 20_000
    assert chi_square(counts, 20_000 * expected) < 4


def test_positions_without_weight_come_last_and_are_equally_likely() -> None:
    weights = np.array([0.0, 1e-30, -5.0, 2.0, np.float64(0)])
    drawn = np.array([draw(weights, 3, f"{i}") for i in range(9_000)])
    assert {tuple(sorted(first)) for first in drawn[:, :2].tolist()} == {(1, 3)}
    assert chi_square(np.bincount(drawn[:, 2], minlength=5)[[0, 2, 4]], np.full(3, 3_000.0)) < 4


def test_the_key_decides() -> None:
    weights = np.ones(1000)
    assert draw(weights, 5, "a").tolist() == draw(3 * weights, 5, "a").tolist()
    assert draw(weights, 5, "a").tolist() != draw(weights, 5, "b").tolist()
