"""A small convolutional network for the scenes of `ierf.world`."""

from jaxtyping import Float
from torch import Tensor, nn


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
