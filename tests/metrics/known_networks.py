"""Networks whose scores are known by hand."""

import torch
from torch import Tensor, nn


class Weighted(nn.Module):
    """Logits `⟨w, x⟩ + b`, `−⟨w, x⟩`, 0, in float64; remembers what it was shown and in which mode."""

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.double())
        self.bias = bias
        self.seen: list[Tensor] = []
        self.modes: set[bool] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        self.modes.add(self.training)
        y = (self.weight * x).flatten(1).sum(1)
        return torch.stack([y + self.bias, -y, torch.zeros_like(y)], 1)


class Small(nn.Module):
    """A convolution with batch-norm, a nonlinearity and a head, in float64: sees interactions of pixels."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 8, 3, padding=1, dtype=torch.float64)
            self.norm = nn.BatchNorm2d(8, dtype=torch.float64)
            self.head = nn.Linear(8, 5, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.conv(x)).tanh().square().mean((2, 3)))
        return out


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    """Numbers in [0, 1) in float64."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
