"""Explanations hold on awkward pictures, networks and surroundings, and mistakes are answered in one sentence."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ierf
from ierf.attribution.targets import PFV, Channel, Direction, Logit, Relevance
from ierf.errors import IerfError, UnknownNameError


class Small(nn.Module):
    """Two stages with batch-norm, a shortcut, a max-pool and a squeeze-excite gate."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.gate = nn.Linear(8, 8)
        self.last = nn.Conv2d(8, 10, 3, stride=2)
        self.fc = nn.Linear(10, 7)
        nn.init.normal_(self.norm.bias)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        x = F.relu(self.conv(x) + x)
        x = x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]
        logits: Tensor = self.fc(F.relu(self.last(x)).mean((2, 3)))
        return logits


@pytest.fixture
def net() -> Small:
    return Small().double().eval()


def pictures(n: int = 4, size: tuple[int, int] = (18, 15)) -> Tensor:
    return torch.randn(n, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def same(one: Tensor, other: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


AWKWARD: dict[str, Callable[[Tensor], Tensor]] = {
    "black": torch.zeros_like,
    "white": torch.ones_like,
    "grey": lambda x: torch.full_like(x, -0.3),
    "black patch": lambda x: torch.cat([torch.zeros_like(x[..., :9]), x[..., 9:]], -1),
    "one channel black": lambda x: x * torch.tensor([1.0, 0.0, 1.0]).view(-1, 1, 1).to(x),
    "one bright pixel": lambda x: F.pad(x[..., 3:4, 4:5], (4, 10, 3, 14)),
    "huge": lambda x: x * 1e6,
    "tiny": lambda x: x * 1e-6,
}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers_are_refused_by_sample(net: Small, value: float) -> None:
    x = torch.zeros(3, 3, 12, 12, dtype=torch.float64)
    x[1, 0, 2, 3] = value
    with pytest.raises(ierf.IerfError, match="NaN or infinite in sample 1"):
        ierf.attribute(net, x)
    with pytest.raises(ierf.IerfError, match="no pictures"):
        ierf.attribute(net, x[:0])
    with pytest.raises(ierf.IerfError, match=r"one number per sample, \(N,\), not 3\.0"):
        ierf.attribute(net, x[:1], target=lambda y: 3.0)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("bias", ["norm", "uniform", "drop"])
@pytest.mark.parametrize("kind", AWKWARD)
def test_awkward_pictures_give_finite_maps(net: Small, kind: str, bias: str) -> None:
    x = AWKWARD[kind](pictures(2)).float()
    net.float()
    assert ierf.attribute(net, x, 1, bias=bias).isfinite().all()
    fields = ierf.effective_receptive_fields(net, x, "last", [(0, 0), (2, 1)], bias=bias)
    assert fields.isfinite().all()
    assert fields.abs().max() < 1e6


def test_a_black_pixel_holds_no_relevance(net: Small) -> None:
    x = AWKWARD["black patch"](pictures(2))
    assert (ierf.attribute(net, x)[..., :9] == 0).all()


CRIPPLED: dict[str, Callable[[Small], Any]] = {
    "all weights zero": lambda net: [p.zero_() for p in net.parameters()],
    "stem zero": lambda net: net.stem.weight.zero_(),
    "dead channels": lambda net: (net.norm.weight[:4].zero_(), net.norm.bias[:4].fill_(-3)),
    "all dead": lambda net: (net.norm.weight.zero_(), net.norm.bias.fill_(-3)),
    "head zero": lambda net: net.fc.weight.zero_(),
    "gate shut": lambda net: (net.gate.weight.zero_(), net.gate.bias.fill_(-1e4)),
    "tiny weights": lambda net: net.conv.weight.mul_(1e-30),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", CRIPPLED)
def test_crippled_networks_give_finite_maps(net: Small, kind: str, dtype: torch.dtype) -> None:
    with torch.no_grad():
        CRIPPLED[kind](net)
    net.to(dtype)
    x = pictures(2).to(dtype)
    for target in (None, Channel("last", 1), PFV("last", (1, 1))):
        assert ierf.attribute(net, x, target).isfinite().all()
    ledger = ierf.check_conservation(net, x)
    assert abs(ledger.relevance_out) < float("inf")


TARGETS: list[Any] = [2, Logit(5), Channel("last", 3), PFV("last", (2, 1)), lambda y: y[:, 0] - y[:, 1]]


def test_a_list_of_mixed_targets_gives_every_sample_its_own(net: Small) -> None:
    x = pictures(5)
    together = ierf.attribute(net, x, TARGETS)
    for i, target in enumerate(TARGETS):
        same(together[i : i + 1], ierf.attribute(net, x[i : i + 1], target))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_batch_mates_do_not_matter(net: Small, dtype: torch.dtype, tolerance: float) -> None:
    x, net = pictures().to(dtype), net.to(dtype)
    x[1] *= 100
    x[2] = 0
    together = ierf.attribute(net, x, [1, 2, 3, 4])
    for i in range(4):
        same(together[i : i + 1], ierf.attribute(net, x[i : i + 1], i + 1), tolerance)


def test_a_batch_can_be_permuted(net: Small) -> None:
    x, order = pictures(), [2, 0, 3, 1]
    same(ierf.attribute(net, x[order]), ierf.attribute(net, x)[order])


@pytest.mark.parametrize("form", [[1, 4, 0, 6], torch.tensor([1, 4, 0, 6]), Logit([1, 4, 0, 6]), (1, 4, 0, 6)])
def test_every_way_to_name_classes_gives_the_same_map(net: Small, form: Any) -> None:
    x = pictures()
    same(
        ierf.attribute(net, x, form),
        torch.cat([ierf.attribute(net, x[i : i + 1], c) for i, c in enumerate((1, 4, 0, 6))]),
    )


def test_none_is_the_predicted_class(net: Small) -> None:
    x = pictures()
    same(ierf.attribute(net, x), ierf.attribute(net, x, net(x).argmax(1).tolist()))


def test_a_function_of_the_logits_is_a_target(net: Small) -> None:
    x = pictures()
    same(ierf.attribute(net, x, lambda y: y[:, 3], head="raw"), ierf.attribute(net, x, 3, head="raw"))
    difference = ierf.attribute(net, x, lambda y: 2 * y[:, 3] - y[:, 0], head="raw")
    same(difference, 2 * ierf.attribute(net, x, 3, head="raw") - ierf.attribute(net, x, 0, head="raw"), 1e-11)


def test_a_single_picture_needs_no_batch_axis(net: Small) -> None:
    x = pictures(1)
    same(ierf.attribute(net, x[0], 2), ierf.attribute(net, x, 2))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(net: Small, context: Callable[[], Any]) -> None:
    x = pictures()
    wanted = ierf.attribute(net, x, 1)
    with context():
        same(ierf.attribute(net, x, 1), wanted)
        same(ierf.attribute(net, x.clone(), 1), wanted)
        same(ierf.attribute(net, x * 1, 1, resolution="stem"), ierf.attribute(net, x, 1, resolution="stem"))
        assert ierf.check_conservation(net, x).conserved()


def test_a_network_made_in_inference_mode_works() -> None:
    with torch.inference_mode():
        made = Small().double().eval()
    same(ierf.attribute(made, pictures(), 1), ierf.attribute(Small().double().eval(), pictures(), 1))


def test_a_network_in_training_mode_is_explained_in_evaluation_mode(net: Small) -> None:
    x = pictures()
    wanted = ierf.attribute(net, x, 1)
    net.train()
    net.conv.eval()
    same(ierf.attribute(net, x, 1), wanted)
    assert [m.training for m in (net, net.norm, net.conv, net.fc)] == [True, True, False, True]
    assert int(net.norm.num_batches_tracked) == 0


@pytest.mark.parametrize("requires", [True, False])
def test_it_does_not_matter_whether_parameters_require_gradients(net: Small, requires: bool) -> None:
    x = pictures()
    wanted = ierf.attribute(net, x, 1)
    net.requires_grad_(requires)
    same(ierf.attribute(net, x, 1), wanted)
    same(ierf.attribute(net, x.clone().requires_grad_(), 1), wanted)
    assert all(p.requires_grad is requires and p.grad is None for p in net.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_is_explained_in_single(net: Small, dtype: torch.dtype) -> None:
    net.to(dtype)
    x = pictures().to(dtype)
    found = ierf.attribute(net, x, 1)
    assert found.dtype is torch.float32
    assert {p.dtype for p in net.parameters()} == {dtype}
    same(found, ierf.attribute(net.float(), x.float(), 1), 1e-6)


def test_the_layout_of_the_pixels_does_not_matter(net: Small) -> None:
    x = pictures()
    wanted = ierf.attribute(net, x, 1)
    same(ierf.attribute(net, x.contiguous(memory_format=torch.channels_last), 1), wanted)
    same(ierf.attribute(net.to(memory_format=torch.channels_last), x, 1), wanted)
    same(ierf.attribute(net, x.transpose(2, 3).contiguous().transpose(2, 3), 1), wanted)
    same(ierf.attribute(net, x.repeat_interleave(2, 0)[::2], 1), wanted)
    wide = torch.cat([x, x], 3)[..., : x.shape[3]]
    same(ierf.attribute(net, wide, 1), wanted)


def test_two_calls_are_bit_identical(net: Small) -> None:
    x = pictures()
    assert torch.equal(ierf.attribute(net, x), ierf.attribute(net, x))


def test_maps_are_linear_in_the_relevance(net: Small) -> None:
    x, generator = pictures(2), torch.Generator().manual_seed(0)
    one, other = (torch.randn(2, 4, 3, generator=generator, dtype=torch.float64) for _ in range(2))

    def explained(r: Tensor) -> Tensor:
        return ierf.attribute(net, x, Relevance("last", r))

    same(explained(2 * one - 3 * other), 2 * explained(one) - 3 * explained(other), 1e-11)


def test_a_channel_sums_to_its_activations(net: Small) -> None:
    x = pictures()
    y = F.max_pool2d(F.relu(net.norm(net.stem(x))), 2)
    features = net.conv(y).detach()
    for index in (0, 5):
        target = Channel("conv", index)
        torch.testing.assert_close(ierf.attribute(net, x, target, resolution="conv"), features[:, index])
        torch.testing.assert_close(ierf.attribute(net, x, target).sum((1, 2)), features[:, index].sum((1, 2)))
    each = ierf.attribute(net, x, Channel("conv", [0, 1, 2, 3]), resolution="conv")
    torch.testing.assert_close(each, features[torch.arange(4), torch.arange(4)])


def test_a_direction_along_a_channel_is_that_channel(net: Small) -> None:
    x = pictures()
    vector = torch.zeros(8).double()
    vector[3] = 1
    same(ierf.attribute(net, x, Direction("conv", vector)), ierf.attribute(net, x, Channel("conv", 3)))
    per_sample = torch.eye(8).double()[[3, 0, 3, 1]]
    same(ierf.attribute(net, x, Direction("conv", per_sample)), ierf.attribute(net, x, Channel("conv", [3, 0, 3, 1])))


def test_a_pfv_is_relevance_one_at_its_position(net: Small) -> None:
    x = pictures(2)
    hot = torch.zeros(2, 4, 3).double()
    hot[0, 1, 2] = hot[1, 3, 0] = 1
    same(ierf.attribute(net, x, PFV("last", [(1, 2), (3, 0)])), ierf.attribute(net, x, Relevance("last", hot)))


def test_a_positive_factor_on_the_last_pfvs_changes_no_ierf(net: Small) -> None:
    x = pictures(2)
    wanted = ierf.effective_receptive_fields(net, x, "last")
    with torch.no_grad():
        net.last.weight *= 3
        net.last.bias *= 3
    same(ierf.effective_receptive_fields(net, x, "last"), wanted, 1e-11)


def test_the_order_of_channels_changes_no_map(net: Small) -> None:
    x, order = pictures(2), torch.randperm(8, generator=torch.Generator().manual_seed(0))
    wanted = ierf.attribute(net, x, 1)
    with torch.no_grad():
        for parameter in (
            net.stem.weight,
            net.stem.bias,
            net.norm.weight,
            net.norm.bias,
            net.gate.weight,
            net.gate.bias,
        ):
            parameter.copy_(parameter[order].clone())
        net.norm.running_mean.copy_(net.norm.running_mean[order].clone())
        net.norm.running_var.copy_(net.norm.running_var[order].clone())
        net.conv.weight.copy_(net.conv.weight[order][:, order].clone())
        net.conv.bias.copy_(net.conv.bias[order].clone())
        net.gate.weight.copy_(net.gate.weight[:, order].clone())
        net.last.weight.copy_(net.last.weight[:, order].clone())
    same(ierf.attribute(net, x, 1), wanted, 1e-11)


def test_with_global_average_pooling_the_final_ratio_and_the_bias_make_the_logit(net: Small) -> None:
    """Φ_i^c = w_c·A_i / HW, so Σ_i Φ_i^c + b_c is the logit (Eq. 6)."""
    x = pictures()
    for c in range(7):
        phi = ierf.attribute(net, x, c, resolution="low", head="raw")
        torch.testing.assert_close(phi.sum((1, 2)) + net.fc.bias[c], net(x)[:, c], rtol=1e-12, atol=1e-12)


def test_the_mean_heads_of_all_classes_sum_to_nothing(net: Small) -> None:
    x = pictures(2)
    total = sum(ierf.attribute(net, x, c, resolution="low", head="mean") for c in range(7))
    assert float(total.abs().max()) < 1e-12


def test_clamped_is_the_positive_part_of_mean(net: Small) -> None:
    x = pictures(2)
    mean = torch.stack([ierf.attribute(net, x, c, resolution="low", head="mean") for c in range(7)])
    clamped = torch.stack([ierf.attribute(net, x, c, resolution="low") for c in range(7)])
    assert (mean < 0).any()
    assert torch.equal(clamped, mean.clamp_min(0))


class Flattened(nn.Module):
    """A VGG-like head: adaptive pooling, flatten, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.pool = nn.AdaptiveAvgPool2d((3, 3))
        self.classifier = nn.Sequential(nn.Linear(54, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


def test_grad_cam_weighs_channels_by_the_mean_gradient() -> None:
    """α by hand: back through two linear layers and the adaptive pooling, without autograd."""
    net = Flattened().double().eval()
    x, c = pictures(2, (14, 12)), 3
    features = net.features(x).detach()
    first, last = net.classifier[0], net.classifier[3]
    alive = (first(net.pool(features).flatten(1)) > 0).double()
    by_pooled = ((last.weight[c] * alive) @ first.weight).view(2, 6, 3, 3).detach()
    alpha = by_pooled.sum((2, 3)) / features[0, 0].numel()
    phi = torch.einsum("nk,nkhw->nhw", alpha, features)
    same(ierf.attribute(net, x, c, resolution="low", head="raw"), phi)
    same(ierf.attribute(net, x, c, method="gradcam", resolution="low"), phi.clamp_min(0))
    wide = F.interpolate(phi.clamp_min(0)[:, None], size=(14, 12), mode="bilinear", align_corners=False)[:, 0]
    same(ierf.attribute(net, x, c, method="gradcam"), wide)


def test_the_gradient_baselines_are_the_gradient(net: Small) -> None:
    x = pictures()
    point = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net(point)[:, 2].sum(), point)
    same(ierf.attribute(net, x, 2, method="gradient"), slope.abs().amax(1))
    same(ierf.attribute(net, x, 2, method="gradient_x_input"), (slope * x).sum(1))


MISTAKES: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "class too large": (IerfError, "0 … 6", {"target": 7}),
    "negative class": (IerfError, "out of range", {"target": -1}),
    "one class of a list": (IerfError, "out of range", {"target": [0, 1, 2, 99]}),
    "too few targets": (IerfError, "2 targets for 4 samples", {"target": [0, 1]}),
    "too few mixed targets": (IerfError, "2 targets for 4 samples", {"target": [Logit(0), 1]}),
    "no targets": (IerfError, "0 targets", {"target": []}),
    "layer of a target": (UnknownNameError, "did you mean last", {"target": Channel("lasst", 0)}),
    "layer of a resolution": (UnknownNameError, "did you mean norm", {"resolution": "nrom"}),
    "resolution": (UnknownNameError, "there is no layer 'medium'", {"resolution": "medium"}),
    "encoder": (UnknownNameError, "did you mean last", {"encoder": "lst"}),
    "channel": (IerfError, "channels 0 … 9", {"target": Channel("last", 10)}),
    "position outside": (IerfError, r"\(4, 0\) is outside 'last', whose map is 4 × 3", {"target": PFV("last", (4, 0))}),
    "negative position": (IerfError, "outside", {"target": PFV("last", (-1, 0))}),
    "position of one number": (IerfError, "row, column", {"target": PFV("last", (1,))}),
    "relevance of the wrong size": (IerfError, r"\(4, 4, 3\)", {"target": Relevance("last", torch.zeros(4, 3, 3))}),
    "direction of the wrong size": (IerfError, "10 channels", {"target": Direction("last", torch.zeros(8))}),
    "method": (UnknownNameError, "did you mean gradcam", {"method": "gradcan"}),
    "option": (UnknownNameError, "did you mean bias", {"bais": "norm"}),
    "choice": (UnknownNameError, "did you mean uniform", {"bias": "unifrom"}),
    "head": (UnknownNameError, "clamped", {"head": "clmaped"}),
    "function of the wrong shape": (IerfError, r"\(N,\)", {"target": lambda y: y.sum()}),
    "layer after the start": (IerfError, "does not lie between", {"target": Channel("stem", 0), "resolution": "last"}),
    "a name as target": (IerfError, "cat", {"target": "cat"}),
    "a fraction as target": (IerfError, "1.5", {"target": 1.5}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_one_sentence(net: Small, mistake: str) -> None:
    error, message, arguments = MISTAKES[mistake]
    with pytest.raises(error, match=message):
        ierf.attribute(net, pictures(), **arguments)


def test_pixels_must_be_a_float_tensor(net: Small) -> None:
    with pytest.raises(IerfError, match="float"):
        ierf.attribute(net, torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_a_constant_network_has_nothing_to_explain() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.ones(1, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.logits.expand(len(x), -1)

    with pytest.raises(IerfError, match="depend"):
        ierf.attribute(Constant(), torch.zeros(1, 3, 8, 8))


def test_a_network_without_parameters_computes_in_the_inputs_precision() -> None:
    """float64 in, float64 all the way: a map that float32 could not hold."""

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.mean((1, 2, 3)), x.square().mean((1, 2, 3))], 1)

    x = torch.randn(1, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = ierf.attribute(Mean(), x, 1, "gradient_x_input")
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, (2 * x.square() / x.numel()).sum(1), rtol=1e-14, atol=0)
    assert ierf.attribute(Mean(), x.half(), 1, "gradient_x_input").dtype == torch.float32
