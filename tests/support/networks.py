"""Networks to test on: small ones whose scores are known by hand, and those of others with published weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
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


SIZE = (16, 20)


class SmallNet(nn.Module):
    """Two convolutions with activations, a mean, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv1, self.act1 = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()
        self.conv2, self.norm2, self.act2 = nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.norm2(self.conv2(self.act1(self.conv1(x)))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's statistic in standard deviations from its mean: (χ² − d) / √(2d)."""
    degrees = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees))


STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
WIDTHS = (48, 96, 96, 192, 192, 384, 384, 384, 384, 384, 384, 768, 768)


def mobilenet_v1(shared: Path) -> nn.Module:
    """MobileNet-V1 0.75, 224 px, trained on ImageNet; input in [−1, 1] (mean and standard deviation 0.5)."""
    return _loaded(MobileNetV1(), shared / "models" / "mobilenet_v1_075_imagenet.safetensors")


def cifar_resnet(shared: Path, depth: int) -> nn.Module:
    """The ResNet of `depth` 20 or 56 for CIFAR-10, 32 px; input with ImageNet's mean and standard deviation."""
    return _loaded(CifarResNet(depth), shared / "models" / f"resnet{depth}_cifar10.safetensors")


class MobileNetV1(nn.Module):
    """Depthwise and pointwise convolutions, ReLU6, TensorFlow's padding."""

    def __init__(self) -> None:
        super().__init__()
        layers = [_conv(3, 24, 3, stride=2)]
        for n_in, n_out, stride in zip((24, *WIDTHS), WIDTHS, STRIDES, strict=False):
            layers += [_conv(n_in, n_in, 3, stride, groups=n_in), _conv(n_in, n_out, 1)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(WIDTHS[-1], 1000)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 1000"]:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


class CifarResNet(nn.Module):
    """Three stages of (depth − 2) / 6 blocks."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _blocks(n, 16, 16)
        self.layer2 = _blocks(n, 16, 32)
        self.layer3 = _blocks(n, 32, 64)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 10"]:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class CifarBlock(nn.Module):
    """Two convolutions beside a shortcut without parameters: every second pixel, channels padded with zeros."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.stride = n_out // n_in
        self.pad = (n_out - n_in) // 2
        self.conv1 = nn.Conv2d(n_in, n_out, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.pad:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.pad, self.pad))
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + shortcut)


def _conv(n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Padding, convolution, batch-norm, ReLU6."""
    pad: Callable[..., nn.Module] = nn.ZeroPad2d if kernel > 1 else nn.Identity
    return nn.Sequential(
        pad((0, 1, 0, 1) if stride == 2 else 1),
        nn.Conv2d(n_in, n_out, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(n_out, eps=1e-3),
        nn.ReLU6(),
    )


def _blocks(n: int, n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(CifarBlock(n_in, n_out), *(CifarBlock(n_out, n_out) for _ in range(n - 1)))


def _loaded(net: nn.Module, path: Path) -> nn.Module:
    weights = load_file(path)
    lacking = [name for name in net.state_dict() if name not in weights and not name.endswith("num_batches_tracked")]
    assert not lacking, lacking
    net.load_state_dict(weights, strict=False)
    return net.eval()
