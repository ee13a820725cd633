"""Intervals of means, where what they should be is known."""

from math import comb, isnan

import pytest
import torch

from ierf.experiments.results import Interval, confidence_interval, shown, student_quantile, wilson


def test_hits_have_wilsons_interval() -> None:
    """53 of 53, 0 of 3 and 17 of 34 by hand: (n p + z²/2 ± z √(n p (1 − p) + z²/4)) / (n + z²), z = 1.959964."""
    for hits, n, low, high in ((53, 53, 0.93242, 1.0), (0, 3, 0.0, 0.56150), (17, 34, 0.34069, 0.65931)):
        found = confidence_interval(torch.tensor([1.0] * hits + [0.0] * (n - hits)))
        assert (found.mean, found.n) == (hits / n, n)
        assert found.low == pytest.approx(low, abs=1e-5)
        assert found.high == pytest.approx(high, abs=1e-5)


@pytest.mark.parametrize(("degrees", "t"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (10, 2.22814), (29, 2.04523)])
def test_students_quantiles_are_those_of_the_tables(degrees: int, t: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(t, rel=1e-5)


def test_few_values_have_students_interval() -> None:
    # Mean 2, s = 1, t of two degrees of freedom.
    found = confidence_interval(torch.tensor([1.0, 2.0, 3.0]))
    assert found.low == pytest.approx(2 - 4.302653 / 3**0.5, rel=1e-6)
    assert found.high == pytest.approx(2 + 4.302653 / 3**0.5, rel=1e-6)


@pytest.mark.parametrize("n", [3, 8, 20])
def test_few_values_are_covered_as_often_as_it_says(n: int) -> None:
    """A percentile bootstrap holds the mean in 69 % (n = 3) to 93 % (n = 20); ± 3 standard deviations of 1000 tries."""
    draws = torch.randn(1000, n, generator=torch.Generator().manual_seed(n))
    found = [confidence_interval(values) for values in draws]
    assert 0.93 <= sum(one.low <= 0 <= one.high for one in found) / 1000 <= 0.97


@pytest.mark.parametrize(("n", "p"), [(8, 0.3), (20, 0.9), (53, 0.98)])
def test_hits_are_covered_as_often_as_it_says(n: int, p: float) -> None:
    """Exactly, over all numbers of hits; Wilson's swings about 95 %, and the bootstrap's has 66 % for 53 at 0.98."""
    share = sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1) if wilson(k, n)[0] <= p <= wilson(k, n)[1])
    assert 0.91 <= share <= 0.995


def test_of_many_values_it_is_the_normal_interval() -> None:
    values = torch.rand(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    half = float(values.std()) / 4000**0.5
    for level, quantile in ((0.95, 1.959964), (0.68, 0.994458)):
        interval = confidence_interval(values, level)
        assert interval.mean == pytest.approx(float(values.mean()), abs=1e-12)
        assert interval.high - interval.mean == pytest.approx(quantile * half, rel=0.1)
        assert interval.mean - interval.low == pytest.approx(quantile * half, rel=0.1)


def test_it_holds_the_true_mean_as_often_as_it_says() -> None:
    samples = torch.randn(200, 40, generator=torch.Generator().manual_seed(0)).exp()
    truth = torch.tensor(0.5).exp().item()
    intervals = [confidence_interval(values, level=0.8, resamples=300) for values in samples]
    share = sum(one.low <= truth <= one.high for one in intervals) / 200
    assert 0.68 <= share <= 0.86  # 0.8, less what a skewed distribution costs at 40 values, ± 3 standard deviations


def test_it_moves_and_scales_with_the_values() -> None:
    values = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, other = confidence_interval(values), confidence_interval(3 * values + 2)
    assert other.low == pytest.approx(3 * one.low + 2)
    assert other.high == pytest.approx(3 * one.high + 2)


def test_the_seed_decides_the_draw() -> None:
    values = torch.randn(30, generator=torch.Generator().manual_seed(0))
    assert confidence_interval(values, seed=3) == confidence_interval(values, seed=3)
    assert confidence_interval(values, seed=3) != confidence_interval(values, seed=4)


def test_images_without_a_score_are_left_out() -> None:
    values = torch.tensor([torch.nan, 1.0, 2.0, torch.nan, 4.0])
    assert confidence_interval(values) == confidence_interval(torch.tensor([1.0, 2.0, 4.0]))
    nothing = confidence_interval(torch.tensor([torch.nan]))
    assert all(map(isnan, (nothing.mean, nothing.low, nothing.high)))


def test_one_value_has_no_interval() -> None:
    found = confidence_interval(torch.tensor([3.0]))
    assert (found.mean, found.n) == (3, 1)
    assert isnan(found.low)
    assert isnan(found.high)


def test_how_it_is_shown() -> None:
    assert shown(Interval(0.5, 0.25, 0.75, 9), of=9) == "0.500 (0.250 – 0.750)"
    assert shown(Interval(0.5, 0.25, 0.75, 9), of=10) == "0.500 (0.250 – 0.750, n = 9)"
    assert shown(confidence_interval(torch.tensor([3.0]))) == "3.000 (n = 1)"
    assert shown(confidence_interval(torch.tensor([torch.nan]))) == "–"
