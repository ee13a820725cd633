"""Rel-ℓ2 and the ℓ0 ratio, by hand."""

import pytest
import torch

from ierf.metrics import l0_ratio, relative_error


def test_relative_error_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    made = torch.tensor([[3.0, 4.0], [0.0, 4.0], [1.0, 0.0]])
    found = relative_error(x, made)
    assert found[:2].tolist() == pytest.approx([0.0, 0.6])
    assert found[2].isnan()


def test_l0_ratio_counts_what_is_exactly_zero() -> None:
    codes = torch.tensor([[0.0, 1.0, -2.0, 0.0], [0.0, 0.0, 0.0, 1e-30]])
    assert l0_ratio(codes).tolist() == [0.5, 0.75]
