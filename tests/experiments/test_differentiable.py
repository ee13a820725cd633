"""Maps as functions of the pixels: they are the methods' maps, and finite differences agree with their derivatives."""

import pytest
import torch
from torch import Tensor, nn

import ierf
from ierf.errors import UnknownNameError
from ierf.experiments.manipulation import MAPS, explained, soft_logits
from ierf.model import VisionModel


class Residual(nn.Module):
    """Strided convolutions, batch-norm, biases, a shortcut, max-pooling and a head, in float64."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(6)
            self.conv = nn.Conv2d(6, 6, 3, padding=1)
            self.pool = nn.MaxPool2d(2)
            self.last = nn.Conv2d(6, 8, 1)
            self.head = nn.Linear(8, 5)
            for parameter in self.parameters():
                nn.init.normal_(parameter, std=0.4)
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)
        self.act = activation()
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.stem(x)))
        y = self.pool(self.act(self.conv(y) + y))
        logits: Tensor = self.head(self.act(self.last(y)).mean((2, 3)))
        return logits


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def noise(like: Tensor, seed: int) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=like.dtype)


@pytest.mark.parametrize("method", [name for name in MAPS if name not in ("srd", "integrated_gradients")])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_they_are_the_maps_of_the_methods(method: str, activation: type[nn.Module], x: Tensor) -> None:
    model = VisionModel(Residual(activation))
    with explained(model, x, [3, 1], method) as found:
        torch.testing.assert_close(found.map.detach(), ierf.attribute(model, x, [3, 1], method))
        torch.testing.assert_close(found.logits.detach(), model(x).detach())


def test_integrated_gradients_has_its_own_number_of_steps(x: Tensor) -> None:
    model = VisionModel(Residual())
    with explained(model, x, [3, 1], "integrated_gradients") as found:
        expected = ierf.attribute(model, x, [3, 1], "integrated_gradients", steps=8)
        torch.testing.assert_close(found.map.detach(), expected)


def test_srd_starts_from_ones_at_the_encoder(x: Tensor) -> None:
    model = VisionModel(Residual())
    with explained(model, x, [3, 1], "srd") as found:
        ones = torch.ones(2, 3, 2, dtype=torch.float64)
        expected = ierf.attribute(model, x, ierf.targets.Relevance("act", ones))
        torch.testing.assert_close(found.map.detach(), expected)
        total = found.map.detach().sum((1, 2))
    torch.testing.assert_close(total, torch.full((2,), 6.0, dtype=torch.float64))


@pytest.mark.parametrize("method", list(MAPS))
@pytest.mark.parametrize(("activation", "beta"), [(nn.ReLU, None), (nn.ReLU, 5.0), (nn.ReLU6, 5.0), (nn.GELU, None)])
def test_derivatives_are_those_of_finite_differences(
    method: str, activation: type[nn.Module], beta: float | None, x: Tensor
) -> None:
    model = VisionModel(Residual(activation))
    direction, step = noise(x, 3), 1e-6

    def value(pixels: Tensor) -> Tensor:
        with explained(model, pixels, [3, 1], method, beta) as found:
            return (found.map * noise(found.map, 2)).sum().detach()

    with explained(model, x, [3, 1], method, beta) as found:
        slope = found.gradient((found.map * noise(found.map, 2)).sum())
    expected = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    got = (slope * direction).sum()
    assert abs(float(got)) > 1e-3 or beta is None
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_a_steep_softplus_is_the_relu(x: Tensor) -> None:
    model = VisionModel(Residual(nn.ReLU6))
    for method in MAPS:
        with explained(model, x, [3, 1], method) as hard, explained(model, x, [3, 1], method, 1e6) as soft:
            torch.testing.assert_close(soft.map.detach(), hard.map.detach(), rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(soft.logits.detach(), hard.logits.detach(), rtol=1e-5, atol=1e-5)


def test_soft_logits_are_those_beside_the_soft_map(x: Tensor) -> None:
    model = VisionModel(Residual())
    with explained(model, x, [3, 1], "gradient", 2.0) as found:
        torch.testing.assert_close(soft_logits(model, x, 2.0), found.logits.detach())
        assert not torch.allclose(soft_logits(model, x, 2.0), model(x), rtol=1e-2)


def test_other_methods_are_named(x: Tensor) -> None:
    with pytest.raises(UnknownNameError, match="gradient"), explained(VisionModel(Residual()), x, [0, 0], "gradeint"):
        pass
