"""The networks whose weights come with the package: ResNets and vision transformers, for photographs and for scenes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


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


def vit_tiny(n_classes: int = 100) -> nn.Module:
    """ViT of width 192: a convolutional stem of stride 8, a class token, 6 blocks of 3 heads (2.8 M parameters)."""
    return VisionTransformer(width=192, depth=6, heads=3, n_classes=n_classes)


class VisionTransformer(nn.Module):
    """Pre-norm transformer over the cells of a feature map, read off at a class token. (N, 3, H, W) → (N, T).

    Position embeddings belong to an 8 × 8 grid (64 pixels) and are interpolated to any other.
    """

    GRID = 8

    def __init__(self, width: int, depth: int, heads: int, n_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_halve(3, 32), _halve(32, 64), _halve(64, 128), nn.Conv2d(128, width, 1))
        self.class_token = nn.Parameter(nn.init.trunc_normal_(Tensor(1, 1, width), std=0.02))
        self.positions = nn.Parameter(nn.init.trunc_normal_(Tensor(1, width, self.GRID, self.GRID), std=0.02))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N T"]:
        cells = self.stem(x)
        cells = (cells + self._positions(cells.shape[2], cells.shape[3])).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(cells), -1, -1), cells], 1)
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits

    def _positions(self, h: int, w: int) -> Float[Tensor, "1 C h w"]:
        if (h, w) == (self.GRID, self.GRID):
            return self.positions
        return F.interpolate(self.positions, (h, w), mode="bicubic", align_corners=False)


class Block(nn.Module):
    """Self-attention and an MLP, each on normalised tokens and added to them. (N, T, C) → (N, T, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Float[Tensor, "N T C"]) -> Float[Tensor, "N T C"]:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Attention(nn.Module):
    """Multi-head self-attention with packed queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "N T C"]) -> Float[Tensor, "N T C"]:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def _halve(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())


def world_vit(n_classes: int = 9) -> nn.Module:
    """The bundled transformer with a width of 64: 3 blocks of 4 heads (0.26 M parameters)."""
    return VisionTransformer(width=64, depth=3, heads=4, n_classes=n_classes)
