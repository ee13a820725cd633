"""The vision transformers of the package: one for 64-pixel photographs, and one for the scenes of `ierf.world`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


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
