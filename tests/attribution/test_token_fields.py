"""iERFs of tokens: many at once against one by one, patch scores by hand, and attention in steps against torch's."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ierf
from ierf.attribution.targets import PFV
from ierf.errors import IerfError, UnknownNameError
from ierf.rules.attention import attend
from ierf.rules.primitives import Backward


def transformer() -> nn.Module:
    """Two blocks on 3 × 2 patches behind a class token and two registers."""
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")
    torch.manual_seed(4)
    net: nn.Module = vision_transformer.VisionTransformer(
        img_size=(24, 16), patch_size=8, embed_dim=12, depth=2, num_heads=2, num_classes=4, reg_tokens=2
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4)
    return net.double().eval()


def pictures(n: int = 2, size: tuple[int, int] = (24, 16)) -> Tensor:
    return torch.randn(n, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


class Mixer(nn.Module):
    """4 × 2 patches whose tokens are mixed linearly, by one matrix over tokens: every relevance is known."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed = nn.Conv2d(3, 5, 4, stride=4)
        self.mix = nn.Parameter(torch.randn(8, 8))
        self.mixed, self.head = nn.Identity(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        logits: Tensor = self.head(self.mixed(self.mix @ tokens).mean(1))
        return logits


@pytest.mark.parametrize("method", ["attnlrp", "cp_lrp", "srd"])
@pytest.mark.parametrize("batch", [1, 3, 9])
def test_many_tokens_get_what_each_gets_alone(method: str, batch: int) -> None:
    net, x = transformer(), pictures()
    fields = ierf.effective_receptive_fields(net, x, "blocks.1", method=method, batch=batch)
    assert fields.shape == (2, 9, 24, 16)
    for token in range(9):
        alone = ierf.attribute(net, x, PFV("blocks.1", (token,)), method=method)
        torch.testing.assert_close(fields[:, token], alone, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(fields[:, 0], fields[:, 4])


def test_a_patch_is_named_by_its_index_or_its_row_and_column() -> None:
    net, x = transformer(), pictures(1)
    by_cell = ierf.effective_receptive_fields(net, x, "blocks.0", [(0, 0), (2, 1)])
    by_index = ierf.effective_receptive_fields(net, x, "blocks.0", [3, 3 + 2 * 2 + 1])
    assert torch.equal(by_cell, by_index)
    assert torch.equal(by_index, ierf.effective_receptive_fields(net, x, "blocks.0", [(3,), (8,)]))


def test_transformers_are_explained_by_attnlrp_unless_asked_otherwise() -> None:
    net, x = transformer(), pictures(1)
    fields = ierf.effective_receptive_fields(net, x, "blocks.1", [0])
    assert torch.equal(fields, ierf.effective_receptive_fields(net, x, "blocks.1", [0], method="attnlrp"))
    held = ierf.effective_receptive_fields(net, x, "blocks.1", [0], method="cp_lrp")
    assert not torch.allclose(fields, held)


@pytest.mark.parametrize("method", ["attnlrp", "cp_lrp"])
def test_patch_scores_by_hand(method: str) -> None:
    """`R_qk = e_qk M_tq a_tk / ‖a_t‖²` of token `a_t = Σ_q M_tq e_q`."""
    net, x = Mixer().double(), pictures(2, (16, 8))
    scores = ierf.effective_receptive_fields(net, x, "mixed", method=method, resolution="patch", batch=3)
    with torch.no_grad():
        e = net.embed(x).flatten(2).transpose(1, 2)
        a = net.mix @ e
        relevance = torch.einsum("nqk,tq,ntk->ntqk", e, net.mix, a / a.square().sum(-1, keepdim=True))
    torch.testing.assert_close(relevance.sum((2, 3)), torch.ones(2, 8).double())
    torch.testing.assert_close(scores, relevance.norm(dim=-1).view(2, 8, 4, 2))


def test_the_pixels_of_a_token_by_hand() -> None:
    """A patch's relevance goes to its pixels in proportion to what they bring to it; the bias keeps a part."""
    net, x = Mixer().double(), pictures(1, (16, 8))
    field = ierf.effective_receptive_fields(net, x, "mixed", [6], method="attnlrp")[0, 0]
    with torch.no_grad():
        e = net.embed(x).flatten(2).transpose(1, 2)
        a = (net.mix @ e)[0, 6]
        slope = torch.einsum("q,k->qk", net.mix[6], a / a.square().sum())
        expected = x * F.conv_transpose2d(slope.T.view(1, 5, 4, 2), net.embed.weight, stride=4)
    torch.testing.assert_close(field, expected.sum(1)[0])


def test_only_networks_with_patches_have_patch_scores() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).double()
    with pytest.raises(IerfError, match="no patches become tokens"):
        ierf.effective_receptive_fields(net, pictures(1, (8, 8)), "1", [(0, 0)], resolution="patch")


def test_what_does_not_exist_is_named() -> None:
    net, x = transformer(), pictures(1)
    with pytest.raises(UnknownNameError, match="resolution"):
        ierf.effective_receptive_fields(net, x, "blocks.1", [0], resolution="patches")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="bias"):
        ierf.effective_receptive_fields(net, x, "blocks.1", [0], bias="drop")
    with pytest.raises(UnknownNameError, match="method"):
        ierf.effective_receptive_fields(net, x, "blocks.1", [0], method="gradient")
    with pytest.raises(IerfError, match="outside"):
        ierf.effective_receptive_fields(net, x, "blocks.1", [9])
    with pytest.raises(IerfError, match="no patch at"):
        ierf.effective_receptive_fields(net, x, "blocks.1", [(3, 0)])


MASK = torch.tensor([[True, False, True], [True, True, True], [False, True, True], [True, True, False]])
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale": {"scale": 0.7},
    "bool mask": {"attn_mask": MASK},
    "float mask": {"attn_mask": torch.linspace(-1, 1, 12).double().view(4, 3)},
    "causal": {"is_causal": True},
    "grouped heads": {"enable_gqa": True},
}


@pytest.mark.parametrize("kind", CALLS)
def test_attention_in_steps_is_attention(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    heads = 2 if kind == "grouped heads" else 4
    shapes = {"query": (2, 4, 4, 6), "key": (2, heads, 3, 6), "value": (2, heads, 3, 5)}
    given = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for name, shape in shapes.items()
    }
    fused, steps = (attend(given | CALLS[kind], Backward(many=many)) for many in (False, True))
    torch.testing.assert_close(fused, steps)
    cotangent = torch.randn(fused.shape, generator=generator, dtype=torch.float64)
    for one, other in zip(*(torch.autograd.grad(y, given.values(), cotangent) for y in (fused, steps)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("method", ["attnlrp", "cp_lrp"])
def test_the_network_and_torch_come_back_as_they_were(method: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    net = torchvision.models.VisionTransformer(16, 8, 2, 2, 12, 24, num_classes=3).eval()
    nn.init.normal_(net.heads.head.weight)
    x = torch.randn(2, 3, 16, 16)
    functions = {name: getattr(F, name) for name in ("multi_head_attention_forward", "has_torch_function", "linear")}

    def gradients() -> list[Tensor]:
        pixels = x.clone().requires_grad_()
        return list(torch.autograd.grad(net(pixels)[:, 1].sum(), [pixels, *net.parameters()]))

    before = gradients()
    assert ierf.attribute(net, x, 1, method, conv_gamma=0.25, linear_gamma=0.1).abs().sum() > 0
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(), strict=True))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert {name: getattr(F, name) for name in functions} == functions


def test_the_gamma_rule_carries_many_relevances_at_once() -> None:
    net, x = Mixer().double(), pictures(2, (16, 8))
    fields = ierf.effective_receptive_fields(net, x, "mixed", method="attnlrp", conv_gamma=0.25, batch=5)
    for token in (0, 6):
        alone = ierf.attribute(net, x, PFV("mixed", (token,)), "attnlrp", conv_gamma=0.25)
        torch.testing.assert_close(fields[:, token], alone)
