"""Networks cut between two layers: the section gives what the network gives, and refuses where it could not."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ierf
from ierf.errors import IerfError
from ierf.model import Section, as_vision_model, capture


def noise(side: int = 64, n: int = 3) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def timm_net(name: str, **options: object) -> nn.Module:
    timm = pytest.importorskip("timm")
    net: nn.Module = timm.create_model(name, pretrained=False, **options).eval()
    return net


def agrees(net: nn.Module, x: Tensor, source: str, target: str | None, values: str = "pre-activation") -> Section:
    """The section, after it was compared with the whole network on another batch than its example."""
    section = Section.of(net, x[:1], source, target, values)  # type: ignore[arg-type]
    ends = [source] if target is None else [source, target]
    with torch.no_grad():
        found = capture(net, x, ends, values)  # type: ignore[arg-type]
        expected = as_vision_model(net)(x) if target is None else found[target].pfvs
        torch.testing.assert_close(section(found[source].pfvs), expected)
    return section


@pytest.mark.parametrize("values", ["pre-activation", "output"])
@pytest.mark.parametrize(
    ("source", "target"), [("layer2.1", "layer3.1"), ("layer1", "layer4.0"), ("bn1", "layer1"), ("layer3", None)]
)
def test_residual_networks(source: str, target: str | None, values: str) -> None:
    agrees(ierf.load("bundled:resnet18-tiny").net, noise(), source, target, values)


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [
        ("vgg11_bn", "features.10", "features.20"),
        ("vgg11_bn", "features.9", "features.10"),
        ("mobilenetv2_050", "blocks.1", "blocks.3"),
        ("mobilenetv3_small_050", "blocks.3", None),
        ("convnext_atto", "stages.1.blocks.0", "stages.2"),
    ],
)
def test_convolutional_networks(name: str, source: str, target: str | None) -> None:
    agrees(timm_net(name, num_classes=10), noise(), source, target)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_transformers_with_class_tokens_and_rotary_positions(name: str) -> None:
    side = 56 if "14" in name else 64
    net = timm_net(name, img_size=side, num_classes=7)
    agrees(net, noise(side), "blocks.2", "blocks.4")
    agrees(net, noise(side), "patch_embed", "blocks.0")
    agrees(net, noise(side), "blocks.10", None)


def test_networks_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.DINOv3ViTConfig(**small, image_size=64, patch_size=16)
    agrees(transformers.DINOv3ViTModel(config).eval(), noise(), "model.layer.0", "model.layer.2")
    config = transformers.ViTConfig(**small, image_size=64, patch_size=16, num_labels=5)
    agrees(transformers.ViTForImageClassification(config).eval(), noise(), "vit.layers.1", None)
    config = transformers.SwinConfig(
        image_size=64, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=5
    )
    agrees(transformers.SwinForImageClassification(config).eval(), noise(), "swin.encoder.layers.0", None)


class Awkward(nn.Module):
    """In-place and functional activations, buffers, shapes in Python, constants of the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.three = nn.Conv2d(5, 4, 1)
        self.register_buffer("scale", torch.full((4,), 0.5))
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        n, _, h, _ = x.shape
        x = self.one(x.to(self.scale.device)).relu_()
        grid = torch.linspace(0, 1, h, device=x.device).view(1, 1, h, 1).expand(n, 1, h, x.shape[-1])
        x = self.two(x) * self.scale.view(-1, 1, 1)
        x += torch.zeros_like(x) + 1
        x = self.three(torch.cat([F.relu_(x), grid], 1))
        x = torch.maximum(x, x.new_zeros(1)).flatten(2).mean(2)
        return self.last(x), n


@pytest.mark.parametrize(("source", "target"), [("one", "three"), ("one", None), ("two", "last"), ("two", "three")])
def test_an_awkward_network(source: str, target: str | None) -> None:
    agrees(Awkward().eval(), noise(8), source, target)


class Around(nn.Module):
    """A path around `inner`, taken by an operation after it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.outer = nn.Conv2d(4, 4, 1)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.inner(x)
        if self.how == "add":
            y = y + x
        elif self.how == "gate":
            y = y * self.outer(x).mean((2, 3), keepdim=True).sigmoid()
        elif self.how == "write":
            y[:, :1] = x[:, :1]
        elif self.how == "stack":
            y = torch.stack([y, x]).sum(0)
        elif self.how == "replace":
            y = self.outer(x)
        return y.mean((2, 3))


@pytest.mark.parametrize(
    ("how", "operation"), [("add", "add"), ("gate", "mul"), ("write", "__setitem__"), ("stack", "stack")]
)
def test_a_path_around_the_cut_is_refused_by_name(how: str, operation: str) -> None:
    with pytest.raises(IerfError, match=f"cannot be cut at 'inner': '{operation}'"):
        Section.of(Around(how).eval(), noise(8), "inner")


def test_refusals_name_the_module() -> None:
    model = ierf.load("bundled:resnet18-tiny")
    with pytest.raises(IerfError, match=r"cut at 'layer2\.0\.bn1': 'add' in 'layer2\.0'"):
        Section.of(model, noise(), "layer2.0.bn1", "layer3")
    with pytest.raises(IerfError, match="'layer2' does not come after 'layer3'"):
        Section.of(model, noise(), "layer3", "layer2")
    with pytest.raises(IerfError, match="the logits do not depend on 'inner' alone"):
        Section.of(Around("replace").eval(), noise(8), "inner")


def test_inside_the_block_a_target_before_the_shortcut_is_fine() -> None:
    agrees(ierf.load("bundled:resnet18-tiny").net, noise(), "layer2.0.bn1", "layer2.0.conv2")


def test_nothing_before_the_cut_is_computed() -> None:
    before, after = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    net = nn.Sequential(before, nn.ReLU(), after, nn.Flatten(), nn.LazyLinear(2)).eval()
    net(noise(4))
    section = Section.of(net, noise(4), "1")
    with torch.no_grad():
        before.weight.fill_(torch.nan)
    for n in (1, 5, 0):
        assert bool(section(torch.randn(n, 16, 3)).isfinite().all())


def test_gradients_are_those_of_the_layers_between() -> None:
    model = ierf.load("bundled:resnet18-tiny")
    net = model.net
    section = Section.of(model, noise(), "layer2", "layer3")
    pfvs = torch.randn(2, 256, 64, requires_grad=True)
    kept = pfvs.detach().clone()
    out = section(pfvs)
    weight = torch.randn_like(out)
    (given,) = torch.autograd.grad((out * weight).sum(), pfvs)

    def by_hand(pfvs: Tensor) -> Tensor:
        x = pfvs.view(2, 16, 16, 64).permute(0, 3, 1, 2).relu()
        x = net.layer3[0](x)  # type: ignore[index, operator]
        block = net.layer3[1]  # type: ignore[index]
        x = block.bn2(block.conv2(block.relu1(block.bn1(block.conv1(x))))) + x
        return x.flatten(2).mT

    torch.testing.assert_close(out, by_hand(pfvs))
    (expected,) = torch.autograd.grad((by_hand(pfvs) * weight).sum(), pfvs)
    torch.testing.assert_close(given, expected)
    assert torch.equal(pfvs, kept)
    assert all(p.grad is None for p in net.parameters())


def test_a_section_needs_the_pfvs_of_its_layer() -> None:
    section = Section.of(ierf.load("bundled:resnet18-tiny"), noise(), "layer2", "layer3")
    with pytest.raises(IerfError, match=r"\(N, 256, 64\), all positions row-major, not \(2, 64, 64\)"):
        section(torch.randn(2, 64, 64))


def test_modes_and_hooks_come_back_also_after_a_refusal() -> None:
    net = Around("add").train()
    with pytest.raises(IerfError):
        Section.of(net, noise(8), "inner")
    assert net.training
    assert net.inner.training
    assert not torch.nn.modules.module._global_forward_hooks
    assert torch.overrides._get_current_function_mode() is None
