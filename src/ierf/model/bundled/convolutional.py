"""The convolutional networks of the package: a small ResNet-18 for photographs, and one for scenes of `ierf.world`."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


def resnet18_tiny(n_classes: int = 100) -> nn.Module:
    """ResNet-18 with widths 32, 64, 128, 256 and a 3×3 stem of stride 2 without pooling (2.8 M parameters)."""
    return ResNet(widths=(32, 64, 128, 256), n_classes=n_classes)


class ResNet(nn.Module):
    """Four stages of two residual blocks; each but the first halves the resolution. (N, 3, H, W) → (N, T)."""

    def __init__(self, widths: Sequence[int], n_classes: int) -> None:
        super().__init__()
        w1, w2, w3, w4 = widths
        self.conv1 = _conv3x3(3, w1, stride=2)
        self.bn1 = nn.BatchNorm2d(w1)
        self.relu = nn.ReLU()
        self.layer1 = _stage(w1, w1, stride=1)
        self.layer2 = _stage(w1, w2, stride=2)
        self.layer3 = _stage(w2, w3, stride=2)
        self.layer4 = _stage(w3, w4, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(w4, n_classes)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N T"]:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, added before the last ReLU."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(n_in, n_out, stride)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv3x3(n_out, n_out, stride=1)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.relu2 = nn.ReLU()
        self.downsample = _shortcut(n_in, n_out, stride)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        y = self.relu1(self.bn1(self.conv1(x)))
        out: Tensor = self.relu2(self.bn2(self.conv2(y)) + self.downsample(x))
        return out


def _conv3x3(n_in: int, n_out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)


def _stage(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(n_in, n_out, stride), BasicBlock(n_out, n_out, stride=1))


def _shortcut(n_in: int, n_out: int, stride: int) -> nn.Module:
    if n_in == n_out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))


def world_cnn(n_classes: int = 9) -> nn.Module:
    """Five convolutions of 3×3 with widths 16, 32, 64, 64 and 96, three of them with stride 2 (0.1 M parameters)."""
    return WorldCNN(n_classes)


class WorldCNN(nn.Module):
    """Five times convolution, batch norm and ReLU; the mean over the positions; a linear layer. (N, 3, H, W) → (N, T).

    A PFV of `layer3` sees 15 × 15 pixels, about one part; one of `layer5` sees 39 × 39.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.layer1 = _block(3, 16, stride=2)
        self.layer2 = _block(16, 32, stride=2)
        self.layer3 = _block(32, 64, stride=1)
        self.layer4 = _block(64, 64, stride=2)
        self.layer5 = _block(64, 96, stride=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(96, n_classes)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N T"]:
        x = self.layer5(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _block(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())
