"""Relevance is conserved from the encoder to the pixels, on networks of others, which stay as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.networks import cifar_resnet, mobilenet_v1
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

import ierf
from ierf.attribution.targets import Relevance

TIMM = (
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "vgg16",
    "vgg16_bn",
    "densenet121",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "regnety_004",
    "convnext_tiny",
)
TORCHVISION = (
    "resnet18",
    "squeezenet1_1",
    "googlenet",
    "convnext_tiny",
    "efficientnet_b0",
    "shufflenet_v2_x0_5",
)
MORE_OF_TIMM = (
    "poolformer_s12",
    "skresnet18",
    "resnest14d",
    "resnetv2_50",
    "nf_resnet50",
    "edgenext_xx_small",
    "ghostnet_100",
    "cspresnet50",
    "convnextv2_atto",
)
SIZES = {"vgg16": (64, 64), "vgg16_bn": (64, 64)}
NARROWER: dict[str, dict[str, Any]] = {"vgg16": {"mlp_ratio": 0.05}, "vgg16_bn": {"mlp_ratio": 0.05}}
"""A head of 100 million weights takes all the time and no other rule."""


def randomised(net: nn.Module) -> nn.Module:
    """Batch-norm statistics, scales and biases far from the neutral values that a fresh network has."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.ndim == 1:
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return net.eval()


def from_timm(name: str) -> nn.Module:
    torch.manual_seed(0)
    return randomised(pytest.importorskip("timm").create_model(name, num_classes=10, **NARROWER.get(name, {})))


def from_torchvision(name: str) -> nn.Module:
    torch.manual_seed(0)
    options: dict[str, Any] = {"init_weights": False, "transform_input": True} if name == "googlenet" else {}
    return randomised(getattr(pytest.importorskip("torchvision").models, name)(num_classes=10, **options))


def batch(size: tuple[int, int], n: int = 2) -> Tensor:
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(2))


def loss_of_class(net: nn.Module, x: Tensor) -> Tensor:
    """|Σ_p R_p − Σ_i R_i| / Σ_i |R_i| for every sample, from the signed final ratio of a class."""
    start = ierf.attribute(net, x, 3, resolution="low", head="raw")
    pixels = ierf.attribute(net, x, 3, head="raw")
    assert pixels.isfinite().all()
    return (pixels.sum((1, 2)) - start.sum((1, 2))).abs() / start.abs().sum((1, 2))


def conserves(net: nn.Module, size: tuple[int, int]) -> None:
    x = batch(size)
    in_float32 = loss_of_class(net.float(), x)
    in_float64 = loss_of_class(net.double(), x.double())
    assert float(in_float32.max()) < 1e-4
    assert float(in_float64.max()) < 1e-9


@pytest.mark.parametrize("name", TIMM)
def test_timm_networks_conserve(name: str) -> None:
    conserves(from_timm(name), SIZES.get(name, (64, 73)))


@pytest.mark.parametrize("name", MORE_OF_TIMM)
def test_unusual_timm_networks_conserve(name: str) -> None:
    conserves(from_timm(name), (65, 64))


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_networks_conserve(name: str) -> None:
    conserves(from_torchvision(name), (72, 65))


@pytest.mark.shared_data
@pytest.mark.parametrize("depth", [20, 56])
def test_cifar_resnets_conserve(shared: Path, depth: int) -> None:
    conserves(cifar_resnet(shared, depth), (32, 27))


@pytest.mark.shared_data
def test_mobilenet_v1_conserves(shared: Path) -> None:
    conserves(mobilenet_v1(shared), (96, 65))


def test_inner_layers_of_a_resnet_hold_the_same_relevance() -> None:
    net, x = from_timm("resnet18").double(), batch((64, 65)).double()
    start = ierf.attribute(net, x, resolution="low", head="raw").sum((1, 2))
    for layer in ("layer4.0", "layer3", "layer2.1", "layer1.0", "maxpool", "act1", "bn1", "conv1"):
        here = ierf.attribute(net, x, resolution=layer, head="raw").sum((1, 2))
        torch.testing.assert_close(here, start, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100", "convnext_tiny"])
def test_maps_in_single_precision_are_those_in_double(name: str) -> None:
    net, x = from_timm(name), batch((64, 65))
    single = ierf.attribute(net, x, 3, head="raw").double()
    double = ierf.attribute(net.double(), x.double(), 3, head="raw")
    assert float((single - double).abs().max()) < 1e-3 * float(double.abs().max())


@pytest.mark.parametrize("bias", ["norm", "uniform"])
def test_any_relevance_map_of_an_inner_layer_conserves(bias: str) -> None:
    net, x = from_timm("resnet18").double(), batch((64, 65)).double()
    relevance = torch.randn(2, 8, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pixels = ierf.attribute(net, x, Relevance("layer2", relevance), bias=bias)
    slack = {"norm": 1e-9, "uniform": 5e-2}[bias]
    assert float((pixels.sum((1, 2)) - relevance.sum((1, 2))).abs().max()) < slack * float(relevance.abs().sum())


def _hooks(net: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    everywhere = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
    return sum(len(getattr(m, kind)) for m in net.modules() for kind in kinds) + sum(
        len(getattr(torch_module, name)) for name in everywhere
    )


def _plain_gradient(net: nn.Module, x: Tensor) -> Tensor:
    point = x.clone().requires_grad_()
    return torch.autograd.grad(net(point)[:, 1].sum(), point)[0]


EXPLANATIONS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "attribute": ierf.attribute,
    "gradcam": lambda net, x: ierf.attribute(net, x, method="gradcam"),
    "ledger": ierf.check_conservation,
    "iERF": lambda net, x: ierf.effective_receptive_fields(net, x, "layer3", [(1, 1), (0, 2)]),
    "error": lambda net, x: ierf.attribute(net, x, target=10**6),
}


@pytest.mark.parametrize("explain", EXPLANATIONS)
@pytest.mark.parametrize("source", ["timm", "cifar"])
def test_the_network_comes_back_exactly_as_it_was(explain: str, source: str, request: pytest.FixtureRequest) -> None:
    if source == "timm":
        net, x = from_timm("resnet18"), batch((64, 65))
    else:
        if not Path(request.getfixturevalue("shared")).is_dir():
            pytest.skip("no development data")
        net, x = cifar_resnet(request.getfixturevalue("shared"), 20), batch((32, 32))
    net.layer2.train()
    next(net.parameters()).requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    flags = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    dictionaries = {name: set(vars(m)) for name, m in net.named_modules()}
    pixels = x.clone()
    try:
        EXPLANATIONS[explain](net, x)
    except ierf.IerfError:
        assert explain == "error"
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert flags == ([m.training for m in net.modules()], [p.requires_grad for p in net.parameters()])
    assert all(p.grad is None for p in net.parameters())
    assert _hooks(net) == 0
    assert dictionaries == {name: set(vars(m)) for name, m in net.named_modules()}
    assert torch.equal(x, pixels)
    assert not x.requires_grad


def test_the_next_plain_gradient_is_bit_identical() -> None:
    net, x = from_timm("resnet18"), batch((64, 65))
    before = _plain_gradient(net, x)
    ierf.attribute(net, x)
    assert torch.equal(_plain_gradient(net, x), before)


def test_a_network_that_fails_on_its_way_leaves_nothing_behind() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            raise ValueError(str(self.conv(x).shape))

    net = Broken().train()
    with pytest.raises(ValueError, match="4"):
        ierf.attribute(net, batch((8, 8)))
    assert net.training
    assert net.conv.training
    assert _hooks(net) == 0
    assert type(torch.relu(torch.ones(2))) is Tensor
    outside = torch.ones(1, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.nn.functional.silu(outside).sum(), outside)
    assert float(slope) == pytest.approx(0.9277, abs=1e-4)
