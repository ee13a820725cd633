"""The bundled vision transformer against the formulas, written out."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ierf.model.loading.bundled import Attention, VisionTransformer, vit_tiny


def _by_hand(attention: Attention, x: Tensor) -> Tensor:
    """`softmax(q kᵀ / √d) v` for each picture, head and query token, one after the other."""
    n, t, c = x.shape
    d = c // attention.heads
    mixed = torch.zeros_like(x)
    q, k, v = (x @ attention.qkv.weight.T + attention.qkv.bias).split(c, -1)
    for picture in range(n):
        for head in range(attention.heads):
            part = slice(head * d, (head + 1) * d)
            for token in range(t):
                scores = [(q[picture, token, part] @ k[picture, other, part]) / math.sqrt(d) for other in range(t)]
                weights = torch.stack(scores).exp()
                mixed[picture, token, part] = (weights / weights.sum()) @ v[picture, :, part]
    return mixed @ attention.out.weight.T + attention.out.bias


@torch.no_grad()
def test_attention_is_the_softmax_loop() -> None:
    torch.manual_seed(0)
    attention = Attention(12, heads=3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(attention(x), _by_hand(attention, x))


@torch.no_grad()
def test_a_block_adds_attention_and_mlp_on_normalised_tokens() -> None:
    torch.manual_seed(0)
    net = VisionTransformer(width=12, depth=1, heads=3, n_classes=4).double()
    block, x = net.blocks[0], torch.randn(2, 5, 12, dtype=torch.float64)
    middle = x + _by_hand(block.attention, F.layer_norm(x, (12,)))
    torch.testing.assert_close(block(x), middle + block.mlp(F.layer_norm(middle, (12,))))


@torch.no_grad()
def test_positions_belong_to_their_cells_and_bend_to_other_sizes() -> None:
    """With the stem at zero the tokens are the class token and the positions, row by row."""
    torch.manual_seed(0)
    net = VisionTransformer(width=12, depth=1, heads=3, n_classes=4).eval()
    net.stem = torch.nn.AvgPool2d(8)
    net.stem.register_forward_hook(lambda module, args, out: torch.zeros(len(out), 12, *out.shape[2:]))
    seen: list[Tensor] = []
    net.blocks.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for height, width in [(64, 64), (48, 48), (32, 96)]:
        net(torch.zeros(2, 3, height, width))
    whole, smaller, oblong = seen
    assert torch.equal(whole[0, 0], net.class_token[0, 0])
    assert torch.equal(whole[1, 1 + 8 * 2 + 5], net.positions[0, :, 2, 5])
    assert (smaller.shape, oblong.shape) == ((2, 37, 12), (2, 49, 12))
    bent = F.interpolate(net.positions, (6, 6), mode="bicubic", align_corners=False)
    torch.testing.assert_close(smaller[0, 1 + 6 * 4 + 1], bent[0, :, 4, 1])
    net.positions.fill_(0.25)
    net(torch.zeros(1, 3, 48, 48))
    torch.testing.assert_close(seen[-1][0, 1:], torch.full((36, 12), 0.25))


@torch.no_grad()
def test_vit_tiny_answers_for_each_picture_alone() -> None:
    torch.manual_seed(0)
    net = vit_tiny(7).eval()
    x = torch.randn(3, 3, 64, 64)
    together = net(x)
    alone = torch.cat([net(picture[None]) for picture in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert together.shape == (3, 7)
    assert (together[0] - together[1]).abs().max() > 1e-4
    assert sum(p.numel() for p in vit_tiny().parameters()) == pytest.approx(2.8e6, rel=0.02)
