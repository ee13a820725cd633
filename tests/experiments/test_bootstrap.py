"""Bootstrap intervals, where the distribution of resampled means is known."""

from math import isnan

import pytest
import torch

from ierf.experiments.bootstrap import Interval, confidence_interval


def test_two_values_have_three_possible_means() -> None:
    # 0, ½ and 1 with probabilities ¼, ½ and ¼.
    values = torch.tensor([0.0, 1.0])
    assert confidence_interval(values) == Interval(0.5, 0.0, 1.0)
    assert confidence_interval(values, level=0.4) == Interval(0.5, 0.5, 0.5)


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


def test_one_value_is_all_that_is_known() -> None:
    assert confidence_interval(torch.tensor([3.0])) == Interval(3.0, 3.0, 3.0)
