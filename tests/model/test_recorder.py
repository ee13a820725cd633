"""What is read, replaced and cut where a network loops over tensors, writes through views, or has backward hooks."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ierf.errors import IerfError
from ierf.model import Section, capture, patched


class _Inside(nn.Module):
    """A convolution, a block whose forward is the one given, the mean, a linear layer."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.block, self.fc = nn.Conv2d(3, 8, 3, padding=1), block, nn.Linear(8, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.conv(x)).mean((2, 3)))


class _ReluOfAPart(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1.5
        y[:, :4].relu_()
        return y


class _ReluThenWritten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(x * 1.5)
        y[:, :4].mul_(2)
        return y


class _InputWrittenLater(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        h = x * 1.5
        y = F.relu(h)
        h.add_(1)
        return y


class _OutWrittenLater(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        h = x * 1.5
        y = F.relu(h)
        torch.add(h, 1, out=h)
        return y


class _FilledByViews(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        filled = torch.zeros_like(x)
        for i in range(x.shape[1]):
            filled[:, i].copy_(2 * x[:, i])
        return filled


class _OverSamples(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.inner(z[None]) for z in x])


def _returned(net: nn.Module, layer: str, x: Tensor) -> Tensor:
    """What a forward hook sees."""
    found: list[Tensor] = []
    hook = net.get_submodule(layer).register_forward_hook(lambda module, args, output: found.append(output.clone()))
    with torch.no_grad():
        net(x)
    hook.remove()
    return found[-1]


@pytest.mark.parametrize("hooked", [False, True], ids=["", "backward hooks"])
@pytest.mark.parametrize("graded", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize(
    ("block", "values"),
    [
        (_ReluOfAPart, "output"),
        (_ReluThenWritten, "output"),
        (_InputWrittenLater, "pre-activation"),
        (_OutWrittenLater, "pre-activation"),
        (_FilledByViews, "output"),
        (_OverSamples, "output"),
        (nn.ReLU, "pre-activation"),
    ],
)
def test_captured_values_are_the_networks(block: type[nn.Module], values: str, graded: bool, hooked: bool) -> None:
    """Whatever is kept, run on by hand from where it stands, is what the layer returns."""
    net = _Inside(block())
    if block is _OutWrittenLater and graded:
        pytest.skip("torch refuses out= with gradients")
    if hooked:
        for module in net.modules():
            module.register_full_backward_hook(lambda *_: None)
    x = torch.randn(2, 3, 8, 8)
    with torch.set_grad_enabled(graded):
        found = capture(net, x, ["block"])["block"]
    kept = found.tensor.detach()
    assert (found.values, found.axis) == (values, 1)
    assert torch.equal(kept.relu() if values == "pre-activation" else kept, _returned(net, "block", x))


def test_a_backward_hook_does_not_hide_the_activation_function() -> None:
    """The copy that a module with a backward hook returns is what its activation function returned."""
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Flatten(), nn.Linear(144, 2)).eval()
    x = torch.randn(1, 3, 8, 8)
    plain = capture(net, x, ["0"])["0"]
    net[0][1].register_full_backward_hook(lambda *_: None)
    hooked = capture(net, x, ["0"])["0"]
    assert hooked.site == plain.site
    assert hooked.values == "pre-activation"
    assert torch.equal(hooked.tensor, net[0][0](x))


def test_a_loop_over_a_tensor_is_followed() -> None:
    net, x = _Inside(_OverSamples()), torch.randn(1, 3, 8, 8)
    found = capture(net, x, ["block.inner"])["block.inner"]
    assert torch.equal(found.tensor.relu(), _returned(net, "block.inner", x))
    section = Section.of(net, x, "conv")
    assert torch.allclose(section(capture(net, x, ["conv"])["conv"].pfvs), net(x), atol=1e-6)


def test_a_layer_that_runs_once_for_each_sample_is_not_replaced_in_the_first_alone() -> None:
    net, x = _Inside(_OverSamples()), torch.randn(2, 3, 8, 8)
    with pytest.raises(IerfError, match=r"'block\.inner' runs 2 times for 2 samples and 1 times for one"):
        patched(net, x, {"block.inner": torch.zeros_like})
    assert torch.allclose(patched(net, x[:1], {"block.inner": torch.zeros_like}), net.fc.bias)


def test_what_a_replacement_computes_is_none_of_the_networks() -> None:
    """Its activation functions are not counted, whatever place of the network they stand for."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
    ).append(nn.Flatten()).append(nn.Linear(512, 5)).eval()  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    halved = patched(net, x, {"1": lambda pfvs: F.relu(pfvs) - F.relu(-pfvs), "4": lambda pfvs: pfvs / 2})
    assert torch.allclose(halved, net[5:](F.relu(net[:4](x) / 2)), atol=1e-6)
