"""Concepts put in and taken out in order, in a network whose answer is known."""

import pytest
import torch
from torch import Tensor

from ierf.errors import IerfError
from ierf.graph import Reconstruction, area, interlayer_curves, largest_cosine, largest_projection


@pytest.fixture
def image() -> Reconstruction:
    """Two positions, four concepts along the axes of five; concept 3 is idle."""
    codes = torch.tensor([[1.0, 2.0, 0.0, 0.0, 4.0], [0.0, 0.0, 0.0, 8.0, 0.0]])
    return Reconstruction.of(codes, torch.eye(5))


def most(pfvs: Tensor) -> Tensor:
    """Two targets: the largest sum of a PFV's channels, and minus the second channel of the first PFV, plus 3."""
    return torch.stack([pfvs.sum(2).amax(1), 3 - pfvs[:, 0, 1]], 1)


def test_curves_by_hand(image: Reconstruction) -> None:
    assert image.active.tolist() == [0, 1, 3, 4]
    values = torch.tensor([[1.0, 2.0, 8.0, 4.0], [0.1, -9.0, 0.3, 0.2]])
    curves = interlayer_curves(image, most, values)
    assert curves.counts.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(curves.deletion[0] * 8, torch.tensor([8.0, 7.0, 3.0, 1.0, 0.0]))
    torch.testing.assert_close(curves.insertion[0] * 8, torch.tensor([0.0, 8.0, 8.0, 8.0, 8.0]))
    torch.testing.assert_close(curves.deletion[1], torch.tensor([1.0, 1.0, 1.0, 1.0, 3.0]))
    torch.testing.assert_close(curves.insertion[1], torch.tensor([3.0, 3.0, 3.0, 3.0, 1.0]))
    torch.testing.assert_close(area(curves.counts, curves.deletion), torch.tensor([15 / 32, 5 / 4]).double())
    torch.testing.assert_close(area(curves.counts, curves.insertion), torch.tensor([28 / 32, 11 / 4]).double())


def test_few_points_and_small_batches_are_points_of_the_same_curve(image: Reconstruction) -> None:
    values = torch.tensor([[4.0, 1.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
    all_points = interlayer_curves(image, most, values, batch=3)
    few = interlayer_curves(image, most, values, most_points=3)
    assert few.counts.tolist() == [0, 2, 4]
    torch.testing.assert_close(few.deletion, all_points.deletion[:, ::2])
    torch.testing.assert_close(few.insertion, all_points.insertion[:, ::2])


def test_strengths_are_the_largest_over_positions() -> None:
    y = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]])
    atoms = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    torch.testing.assert_close(largest_cosine(y, atoms), torch.tensor([[1.0, 0.8]]))
    torch.testing.assert_close(largest_projection(y, atoms), torch.tensor([[3.0, 4.0]]))
    shifted = largest_cosine(y, atoms, torch.tensor([0.0, 4.0]))
    torch.testing.assert_close(shifted, torch.tensor([[1.0, 0.0]]))


def test_values_are_of_the_active_concepts(image: Reconstruction) -> None:
    with pytest.raises(IerfError, match="4 active concepts"):
        interlayer_curves(image, most, torch.ones(2, 5))
