"""μ_BN by watching a pass, against the batch-norms that a person would name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.networks import cifar_resnet, mobilenet_v1
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

import ierf
from ierf.model import shift_of, shifts_of


def by_hand(norm: nn.Module) -> Tensor:
    """With a loop, in float64."""
    state = {name: value.double() for name, value in norm.state_dict().items()}
    return torch.tensor(
        [
            float(beta - gamma * mean / (var + norm.eps) ** 0.5)
            for beta, gamma, mean, var in zip(
                state["bias"], state["weight"], state["running_mean"], state["running_var"], strict=True
            )
        ]
    )


def lively(net: nn.Module) -> nn.Module:
    """Batch-norms that differ from each other and from the identity, biases of convolutions that are not 0."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                if tensor is not None:
                    tensor.data.normal_()
            if module.running_var is not None:
                module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.data.normal_()
    return net.eval()


def named(model: ierf.VisionModel, name: str) -> nn.Module:
    return model.net.get_submodule(name)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_a_residual_block_has_the_shift_of_its_last_batch_norm(source: str, name: str) -> None:
    pytest.importorskip(source)
    model = ierf.load(f"{source}:{name}?weights=random")
    lively(model.net)
    last = "bn2" if name == "resnet18" else "bn3"
    found = shifts_of(model, ["layer1.0", "layer1.1", "layer2.0", "layer4.1", "layer3"])
    for layer, norm in (
        ("layer1.0", f"layer1.0.{last}"),
        ("layer1.1", f"layer1.1.{last}"),
        ("layer2.0", f"layer2.0.{last}"),
        ("layer4.1", f"layer4.1.{last}"),
        ("layer3", f"layer3.{1 if name == 'resnet18' else 5}.{last}"),
    ):
        torch.testing.assert_close(found[layer], by_hand(named(model, norm)))
    assert shift_of(model, "layer2.0", "output") is None
    torch.testing.assert_close(shift_of(model, "layer2.0.bn1", "output"), by_hand(named(model, "layer2.0.bn1")))


def test_functional_activations_and_shortcuts_without_parameters(shared: Path) -> None:
    if not shared.is_dir():
        pytest.skip("no development data")
    model = ierf.VisionModel(cifar_resnet(shared, 20), ierf.model.Preprocess((32, 32)))
    for layer in ("layer1.0", "layer2.0", "layer3.2"):
        torch.testing.assert_close(shift_of(model, layer), by_hand(named(model, f"{layer}.bn2")))


def test_mobilenet_and_vgg(shared: Path) -> None:
    if not shared.is_dir():
        pytest.skip("no development data")
    mobilenet = ierf.VisionModel(mobilenet_v1(shared))
    torch.testing.assert_close(shift_of(mobilenet, "features.7"), by_hand(named(mobilenet, "features.7.2")))


def test_vgg_with_and_without_batch_norm() -> None:
    models = pytest.importorskip("torchvision.models")
    with_norm = ierf.VisionModel(lively(models.vgg11_bn(weights=None)))
    torch.testing.assert_close(shift_of(with_norm, "features.6"), by_hand(with_norm.net.features[5]))
    plain = ierf.VisionModel(lively(models.vgg11(weights=None)))
    found = shifts_of(plain, ["features.4", "features.5", "features.3", "classifier.0"])
    torch.testing.assert_close(found["features.4"], plain.net.features[3].bias)
    torch.testing.assert_close(found["features.3"], plain.net.features[3].bias)
    assert found["features.5"] is None, "max-pool of an activation"
    assert found["classifier.0"] is None, "a linear layer"


class Block(nn.Module):
    """A residual block of which everything can be chosen."""

    def __init__(self, last: nn.Module, act: Callable[[Tensor], Tensor], order: bool = True) -> None:
        super().__init__()
        self.stem, self.conv1, self.bn1 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.last, self.act, self.order = nn.Conv2d(4, 4, 1, bias=False), last, act, order
        self.side = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.end = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        main = self.last(self.conv2(self.act(self.bn1(self.conv1(x)))))
        side = self.side(x)
        total = self.end(self.act(main + side if self.order else side.add_(main)))
        return total.mean((2, 3))


@pytest.mark.parametrize("order", [True, False])
@pytest.mark.parametrize("act", [torch.relu, torch.relu_, nn.ReLU6(inplace=True), nn.SiLU()])
def test_the_longest_branch_counts_whatever_the_order_and_however_it_is_written(
    act: Callable[[Tensor], Tensor], order: bool
) -> None:
    net = lively(Block(nn.BatchNorm2d(4), act, order))
    model = ierf.VisionModel(net, ierf.model.Preprocess((9, 7)))
    torch.testing.assert_close(shift_of(model, "end"), by_hand(net.last))
    torch.testing.assert_close(shift_of(model, "side"), by_hand(net.side[1]))
    assert shift_of(model, "end", "output") is None


def test_other_norms_have_no_shift_and_batch_norms_without_parameters_have() -> None:
    group = ierf.VisionModel(lively(Block(nn.GroupNorm(2, 4), nn.ReLU())), ierf.model.Preprocess((9, 7)))
    assert shift_of(group, "end") is None
    bare = lively(Block(nn.BatchNorm2d(4, affine=False), nn.ReLU()))
    bare.last.running_mean.copy_(torch.arange(4.0))
    bare.last.running_var.copy_(torch.tensor([1.0, 4.0, 9.0, 16.0]) - bare.last.eps)
    found = shift_of(ierf.VisionModel(bare, ierf.model.Preprocess((9, 7))), "end")
    torch.testing.assert_close(found, -torch.tensor([0, 1 / 2, 2 / 3, 3 / 4]))
    batch = lively(Block(nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()))
    assert shift_of(ierf.VisionModel(batch, ierf.model.Preprocess((9, 7))), "end") is None


def test_folding_a_batch_norm_leaves_the_shift() -> None:
    net = lively(Block(nn.BatchNorm2d(4), nn.ReLU()))
    before = shift_of(ierf.VisionModel(net, ierf.model.Preprocess((9, 7))), "end")
    assert before is not None
    net.conv2, net.last = fuse_conv_bn_eval(net.conv2, net.last), nn.Identity()
    torch.testing.assert_close(shift_of(ierf.VisionModel(net, ierf.model.Preprocess((9, 7))), "end"), before)


def test_a_transformer_has_none_and_the_network_is_left_alone() -> None:
    pytest.importorskip("timm")
    model = ierf.load("timm:vit_tiny_patch16_224?weights=random")
    model.net.train()
    assert shifts_of(model, ["blocks.3", "blocks.11"]) == {"blocks.3": None, "blocks.11": None}
    assert model.net.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.net.modules())


def test_what_cannot_be_found_is_said() -> None:
    net = lively(Block(nn.BatchNorm2d(4), nn.ReLU()))
    net.unused = nn.Identity()
    model = ierf.VisionModel(net, ierf.model.Preprocess((9, 7)))
    with pytest.raises(ierf.IerfError, match="unused"):
        shift_of(model, "unused")
    with pytest.raises(ierf.IerfError, match="kind of PFV values"):
        shift_of(model, "end", "pre_activation")  # type: ignore[arg-type]
