"""PFVs read from one pass and put back into another, against hooks written by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ierf
from ierf.errors import IerfError, UnknownNameError
from ierf.model import capture, patched
from ierf.store import Clock
from ierf.store.batch_collection import collect_batch, sites
from ierf.store.plan import Settings


class Shortcuts(nn.Module):
    """In-place activations, a residual sum in place, and a layer whose output is changed after it returned."""

    def __init__(self, inplace: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.block = nn.Conv2d(6, 6, 3, padding=1)
        self.act = nn.ReLU(inplace)
        self.head = nn.Linear(6, 4)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x), inplace=self.inplace)
        y = self.block(x)
        y = y.add_(x) if self.inplace else y + x
        return self.head(self.act(y).mean((2, 3)))


class Tokens(nn.Module):
    """A class token before the patches, channels last, and a dictionary for an output."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + F.gelu(self.mix(x))
        return {"logits": self.head(x[:, 0])}


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def test_a_layer_that_ends_with_an_activation_gives_what_entered_it(pictures: Tensor) -> None:
    net = Shortcuts().eval()
    plain = Shortcuts(inplace=False).eval()
    plain.load_state_dict(net.state_dict())
    found = capture(net, pictures, ["conv", "block", "act"])
    conv = plain.conv(pictures)
    block = plain.block(conv.relu())
    before = block + conv.relu()
    for layer, expected in (("conv", conv), ("block", block), ("act", before)):
        torch.testing.assert_close(found[layer].tensor, expected)
        torch.testing.assert_close(found[layer].pfvs[:, 7], expected[:, :, 0, 7])
        torch.testing.assert_close(found[layer].pfvs[:, 13], expected[:, :, 1, 1])
    assert [found[layer].values for layer in ("conv", "block", "act")] == ["output", "output", "pre-activation"]
    assert bool((found["act"].tensor < 0).any())


def test_output_values_are_what_the_layer_returns(pictures: Tensor) -> None:
    found = capture(Shortcuts(inplace=False).eval(), pictures, ["act"], "output")["act"]
    assert found.values == "output"
    torch.testing.assert_close(found.tensor, found.tensor.relu())
    assert bool(found.tensor.any())


def test_all_tokens_are_pfvs(pictures: Tensor) -> None:
    net = Tokens().eval()
    found = capture(net, pictures, ["patches", "mix", "head"])
    assert found["patches"].pfvs.shape == (2, 6, 8)
    assert (found["patches"].axis, found["mix"].axis) == (1, 2)
    torch.testing.assert_close(found["mix"].pfvs[:, 0], net.mix(net.token[:, 0]).expand(2, -1))
    torch.testing.assert_close(found["head"].pfvs[:, 0], net(pictures)["logits"])


@pytest.mark.parametrize(
    ("name", "layers", "values"),
    [
        ("resnet18-tiny", ["layer2.1", "bn1", "layer3.0.downsample", "relu"], "pre-activation"),
        ("vit-tiny", ["stem.1", "blocks.3"], "output"),
    ],
)
def test_the_store_keeps_the_same_pfvs(name: str, layers: list[str], values: str) -> None:
    """With AttnLRP, which knows no activations as places of relevance, a store always keeps outputs."""
    model = ierf.load(f"bundled:{name}")
    x = torch.randn(2, 3, *model.preprocess.size, generator=torch.Generator().manual_seed(0))
    settings = Settings(sampling="all", ierf=False)
    kept, _ = collect_batch(model, x, ["a", "b"], sites(model, layers, settings), settings, Clock({}))
    found = capture(model, x, layers, values)
    for layer in layers:
        own = torch.from_numpy(kept[layer].pfvs)
        torch.testing.assert_close(found[layer].pfvs[:, -own.shape[1] :], own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("values", ["pre-activation", "output"])
def test_pfvs_put_back_change_nothing(pictures: Tensor, values: str) -> None:
    for net, layers in ((Shortcuts(), ["conv", "block", "act"]), (Tokens(), ["patches", "mix"])):
        net.eval()
        expected = net(pictures)
        expected = expected["logits"] if isinstance(expected, dict) else expected
        torch.testing.assert_close(patched(net, pictures, {name: lambda p: p for name in layers}, values), expected)


def test_replaced_pfvs_take_every_path(pictures: Tensor) -> None:
    net = Shortcuts().eval()
    logits = patched(net, pictures, {"act": lambda pfvs: pfvs * 0 + 1})
    torch.testing.assert_close(logits, net.head(torch.ones(2, 6)))
    logits = patched(net, pictures, {"conv": lambda pfvs: pfvs * 0 - 1})
    torch.testing.assert_close(logits, net.head(net.block(torch.zeros(2, 6, 8, 12)).relu().mean((2, 3))))


def test_a_later_replacement_sees_the_earlier_one_and_gradients_flow(pictures: Tensor) -> None:
    net = Shortcuts(inplace=False).eval()
    seen = {}

    def look(pfvs: Tensor) -> Tensor:
        seen["block"] = pfvs
        return pfvs

    ones = torch.ones(2, 96, 6, requires_grad=True)
    logits = patched(net, pictures, {"conv": lambda pfvs: ones, "block": look})
    expected = net.block(torch.ones(2, 6, 8, 12))
    torch.testing.assert_close(seen["block"], expected.movedim(1, -1).flatten(1, 2))
    (gradient,) = torch.autograd.grad(logits.sum(), ones)
    assert bool(gradient.any())


def test_the_network_is_left_alone(pictures: Tensor) -> None:
    net = Shortcuts().train()
    net.conv.eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    capture(net, pictures, ["act"])
    with pytest.raises(ZeroDivisionError):
        patched(net, pictures, {"act": lambda pfvs: 1 / 0})  # type: ignore[arg-type, return-value]
    assert [m.training for m in (net, net.conv, net.block)] == [True, False, True]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_what_cannot_be_captured_is_said(pictures: Tensor) -> None:
    net = Shortcuts().eval()
    net.idle = nn.Linear(2, 2)
    with pytest.raises(UnknownNameError, match="blok"):
        capture(net, pictures, ["blok"])
    with pytest.raises(IerfError, match="'idle' returns nothing"):
        capture(net, pictures, ["idle"])
    with pytest.raises(UnknownNameError, match="kind of PFV values"):
        capture(net, pictures, ["conv"], "inside")  # type: ignore[arg-type]
    with pytest.raises(IerfError, match=r"\(N, 96, 6\)"):
        patched(net, pictures, {"act": lambda pfvs: pfvs[:, 1:]})
