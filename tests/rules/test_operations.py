"""Every operation form has its rule: the same map however it is written, and nothing lost on the way."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ierf
from ierf.attribution.targets import Relevance
from ierf.errors import UnsupportedOperationError

Middle = Callable[[Tensor], Tensor]
C, H, W = 6, 9, 8


class Net(nn.Module):
    """Convolution, `middle`, convolution, mean, linear; in float64 with everything random."""

    def __init__(self, middle: Middle, out: int = C, front: int = C) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.front = nn.Conv2d(3, front, 3, padding=1)
        self.middle = middle if isinstance(middle, nn.Module) else _Function(middle)
        self.back = nn.Conv2d(out, 5, 3, padding=1)
        self.head = nn.Linear(5, 4)
        for module in self.middle.modules():
            randomise(module)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.back(self.middle(self.front(x)))).mean((2, 3)))
        return logits


class _Function(nn.Module):
    def __init__(self, function: Middle) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def randomise(module: nn.Module) -> None:
    for name in ("weight", "bias"):
        if isinstance(getattr(module, name, None), nn.Parameter):
            nn.init.normal_(getattr(module, name))
    if isinstance(getattr(module, "running_mean", None), Tensor):
        module.running_mean.normal_()  # type: ignore[union-attr,operator]
        module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr,operator]


def picture(n: int = 2, c: int = 3) -> Tensor:
    return torch.randn(n, c, H, W, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def explained(net: nn.Module, x: Tensor | None = None, **options: Any) -> Tensor:
    return ierf.attribute(net, picture() if x is None else x, 1, head="raw", encoder="back", **options)


def loss(net: nn.Module, x: Tensor | None = None) -> float:
    """The greatest |Σ_p R_p − Σ_i R_i| / Σ_i |R_i| of a sample."""
    start = explained(net, x, resolution="back")
    return float(((explained(net, x).sum((1, 2)) - start.sum((1, 2))).abs() / start.abs().sum((1, 2))).max())


def unexplained(net: nn.Module, x: Tensor | None = None, **options: Any) -> float:
    ledger = ierf.check_conservation(net, picture() if x is None else x, layer="back", **options)
    return max(abs(entry.unexplained) for entry in ledger.entries) / abs(ledger.relevance_in)


def same_forward(net: nn.Module, x: Tensor) -> bool:
    """Whether the pass under rules computed what the network computes, seen through Φ + b/HW = logit at the end."""
    weighed = ierf.attribute(net, x, 1, head="raw", encoder="back", resolution="back")
    back: dict[str, Tensor] = {}
    handle = net.back.register_forward_hook(lambda m, args, out: back.update(out=out.detach()))
    try:
        point = net(x)
    finally:
        handle.remove()
    values = back["out"].requires_grad_()
    slope = torch.autograd.grad(net.head(torch.tanh(values).mean((2, 3)))[:, 1].sum(), values)[0]
    wanted = (slope.mean((2, 3), keepdim=True) * values.detach()).sum(1)
    return point.isfinite().all().item() and torch.allclose(weighed, wanted, rtol=1e-10, atol=1e-12)


PRELU = torch.tensor([0.3], dtype=torch.float64)

ACTIVATIONS: dict[str, list[Middle]] = {
    "relu": [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        F.relu,
        lambda x: F.relu(x, inplace=True),
        torch.relu,
        lambda x: x.relu(),
        lambda x: x.relu_(),
        torch.relu_,
        F.relu_,
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_(min=0),
        lambda x: torch.clamp(x, min=0),
        lambda x: torch.clamp_min(x, 0),
        lambda x: x.clip(min=0),
        lambda x: F.threshold(x, 0, 0),
    ],
    "relu6": [
        nn.ReLU6(),
        nn.ReLU6(inplace=True),
        F.relu6,
        nn.Hardtanh(0, 6),
        lambda x: x.clamp(0, 6),
        lambda x: F.relu6(x, True),
    ],
    "leaky_relu": [
        nn.LeakyReLU(0.1),
        nn.LeakyReLU(0.1, inplace=True),
        lambda x: F.leaky_relu(x, 0.1),
        lambda x: F.leaky_relu(x, 0.1, True),
        lambda x: F.leaky_relu_(x, 0.1),
        lambda x: F.leaky_relu(input=x, negative_slope=0.1),
    ],
    "elu": [nn.ELU(), nn.ELU(inplace=True), F.elu, lambda x: F.elu(x, 1.0, True), F.elu_],
    "selu": [nn.SELU(), nn.SELU(True), F.selu, torch.selu, torch.selu_],
    "celu": [nn.CELU(0.7), nn.CELU(0.7, True), lambda x: F.celu(x, 0.7), lambda x: torch.celu_(x, 0.7)],
    "silu": [nn.SiLU(), nn.SiLU(True), F.silu, lambda x: F.silu(x, inplace=True)],
    "gelu": [nn.GELU(), F.gelu, lambda x: F.gelu(x, approximate="none")],
    "gelu_tanh": [nn.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")],
    "mish": [nn.Mish(), nn.Mish(True), F.mish],
    "hardswish": [nn.Hardswish(), nn.Hardswish(True), F.hardswish],
    "tanh": [nn.Tanh(), torch.tanh, lambda x: x.tanh(), lambda x: x.tanh_(), F.tanh],
    "sigmoid": [nn.Sigmoid(), torch.sigmoid, lambda x: x.sigmoid(), lambda x: x.sigmoid_(), F.sigmoid],
    "softplus": [nn.Softplus(), F.softplus],
    "prelu": [lambda x: F.prelu(x, PRELU), lambda x: torch.prelu(x, PRELU), lambda x: x.prelu(PRELU)],
    "hardtanh": [nn.Hardtanh(), nn.Hardtanh(inplace=True), F.hardtanh, F.hardtanh_, lambda x: x.clamp(-1, 1)],
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_gives_one_map_however_it_is_written(name: str) -> None:
    first, *others = (explained(Net(form)) for form in ACTIVATIONS[name])
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_turns_the_gradient_into_the_pre_activation(name: str) -> None:
    """The rule itself, `g_v = v ⟨a, g_a⟩ / ‖v‖²`, by hand on a network without biases in front of one activation."""
    net = Net(ACTIVATIONS[name][0])
    x = picture()
    v = net.front(x).detach()
    a = ACTIVATIONS[name][0](v.clone()).detach()
    arrived = ierf.attribute(net, x, 1, head="raw", encoder="back", resolution="middle")
    g_v = v * (arrived / v.square().sum(1)).unsqueeze(1)
    net.front.bias = None
    slope = F.conv_transpose2d(g_v, net.front.weight, padding=1).detach()
    alive = a.square().sum(1).gt(0)
    assert bool(alive.any())
    by_hand = (x * slope).sum(1)
    dropped = Net(ACTIVATIONS[name][0])
    found = ierf.attribute(dropped, x, Relevance("middle", arrived), bias="drop")
    torch.testing.assert_close(found, by_hand, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_conserves(name: str) -> None:
    assert loss(Net(nn.Sequential(nn.Conv2d(C, 40, 1), _Function(ACTIVATIONS[name][0])), out=40)) < 1e-10


def _in_place_add(x: Tensor) -> Tensor:
    y = torch.tanh(x)
    y += x
    return y


def _ignored_result(x: Tensor) -> Tensor:
    x = x + 0.5
    x.tanh_()
    return x


def _set_every_second_channel(x: Tensor) -> Tensor:
    y = torch.tanh(x)
    y[:, ::2] = x[:, ::2]
    return y


def _fill_a_new_tensor(x: Tensor) -> Tensor:
    y = torch.zeros(x.shape, dtype=x.dtype)
    y[:, :3] = x[:, 3:]
    y[:, 3:] = torch.tanh(x[:, :3])
    return y


def _split(x: Tensor) -> Tensor:
    one, two = x.chunk(2, 1)
    three, four = torch.split(two, [1, 2], dim=1)
    return torch.cat([four, torch.tanh(one), three], 1)


def _shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return torch.tanh(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


def _strided_padded_shortcut(x: Tensor) -> Tensor:
    return F.pad(x[:, :3, ::2, ::2], (0, 0, 0, 0, 1, 2))


def _own_layer_norm(x: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    square = (x - mean).pow(2).mean(1, keepdim=True)
    return (x - mean) / torch.sqrt(square + 1e-6)


def _own_rms_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)


def _with_zeros_like(x: Tensor) -> Tensor:
    return torch.cat([torch.tanh(x[:, :3]), torch.zeros_like(x[:, 3:])], 1)


LINES: dict[str, Middle] = {
    "in-place add": _in_place_add,
    "in-place activation whose result is ignored": _ignored_result,
    "set every second channel": _set_every_second_channel,
    "fill a new tensor": _fill_a_new_tensor,
    "chunk, split and cat": _split,
    "channel shuffle": _shuffle,
    "slicing and padding of a shortcut": _strided_padded_shortcut,
    "asymmetric padding": lambda x: F.pad(torch.tanh(x), (1, 0, 1, 0)),
    "reflection padding": lambda x: F.pad(torch.tanh(x), (1, 1, 2, 0), mode="reflect"),
    "layer-norm by hand": _own_layer_norm,
    "RMS-norm by hand": _own_rms_norm,
    "gate x · sigmoid(x)": lambda x: x * torch.sigmoid(x),
    "gate sigmoid(x) · x": lambda x: torch.sigmoid(x) * x,
    "gate x · relu6(x + 3) / 6": lambda x: x * F.relu6(x + 3) / 6,
    "gate x · tanh(softplus(x))": lambda x: x * torch.tanh(F.softplus(x)),
    "squeeze-excite gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "spatial gate": lambda x: x * x.mean(1, keepdim=True).sigmoid(),
    "gate by an operation without a rule": lambda x: x * torch.exp(-x.pow(2).mean((2, 3), keepdim=True)),
    "in-place gate": lambda x: torch.tanh(x).mul_(x.mean((2, 3), keepdim=True).sigmoid()),
    "gate by an operation without a rule behind an activation": lambda x: x * torch.relu(torch.exp(x) - 1).sigmoid(),
    "denominator without a rule": lambda x: x / (1 + torch.exp(x.mean(1, keepdim=True))),
    "softmax gate": lambda x: x * torch.softmax(x, 1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "max-pool": lambda x: F.max_pool2d(torch.tanh(x), 3, 2, 1),
    "max-pool with ceil": lambda x: F.max_pool2d(torch.tanh(x), 2, 2, ceil_mode=True),
    "adaptive average pool": lambda x: F.adaptive_avg_pool2d(torch.tanh(x), (4, 3)),
    "adaptive max-pool": lambda x: F.adaptive_max_pool2d(torch.tanh(x), (4, 3)),
    "bilinear upsampling": lambda x: F.interpolate(torch.tanh(x), scale_factor=2, mode="bilinear"),
    "pixel shuffle": lambda x: F.pixel_unshuffle(F.pad(torch.tanh(x), (0, 0, 0, 1)), 2)[:, :C],
    "gate expanded to its map": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid().expand_as(x),
    "squared activation": lambda x: torch.relu(x) ** 2,
    "maximum of two maps": lambda x: torch.maximum(x, torch.tanh(x)),
    "added constant": lambda x: x + 0.7,
    "subtracted from a constant": lambda x: 0.7 - x,
    "added vector of channels": lambda x: x + torch.linspace(-1, 1, C, dtype=x.dtype).view(-1, 1, 1),
    "scaled sum": lambda x: torch.add(x, torch.tanh(x), alpha=0.3),
    "scaled constant": lambda x: torch.add(x, torch.ones(C, 1, 1, dtype=x.dtype), alpha=0.3),
    "constant plus scaled map": lambda x: torch.add(torch.ones(C, 1, 1, dtype=x.dtype), x, alpha=0.3),
    "constant minus scaled map": lambda x: torch.sub(torch.ones(C, 1, 1, dtype=x.dtype), x, alpha=0.3),
    "rsub with a scale": lambda x: torch.rsub(x, 0.7, alpha=0.3),
    "a map plus itself": lambda x: torch.tanh(x) + torch.tanh(x) + x + x,
    "a map plus the same tensor": lambda x: (lambda y: y + y)(torch.tanh(x)),
    "a constant made like the map": lambda x: torch.tanh(x) + torch.ones_like(x),
    "zeros made like the map": _with_zeros_like,
    "permute to channels last and back": lambda x: torch.tanh(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "flatten and unflatten positions": lambda x: torch.tanh(x.flatten(2)).unflatten(2, (H, W)),
    "roll": lambda x: torch.roll(torch.tanh(x), (1, 2), (2, 3)),
    "float and back": lambda x: torch.tanh(x).double().contiguous().clone(),
    "addcmul": lambda x: torch.addcmul(x, torch.tanh(x), torch.full((C, 1, 1), 0.2, dtype=x.dtype)),
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_code_conserves(line: str) -> None:
    assert loss(Net(LINES[line])) < 1e-10


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_code_computes_what_the_network_computes(line: str) -> None:
    assert same_forward(Net(LINES[line]), picture())


class _Branches(nn.Module):
    """A convolution's output that a batch-norm and something else use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(C, C, 3, padding=1), nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(torch.tanh(x))
        return torch.tanh(self.norm(y)) + y.sigmoid()


class _ReusedReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act, self.conv = nn.LeakyReLU(inplace=True), nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.conv(self.act(x)))
        return self.act(y + x)


class _SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(C, 2, 1), nn.Conv2d(2, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return gate * x


class _ChannelsLastBlock(nn.Module):
    """As in ConvNeXt: depthwise convolution, layer-norm and linear layers on the last axis, LayerScale, shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(C, C, 3, padding=1, groups=C), nn.LayerNorm(C)
        self.up, self.down = nn.Linear(C, 2 * C), nn.Linear(2 * C, C)
        self.gamma = nn.Parameter(torch.randn(C))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class _StandardisedWeight(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(torch.tanh(x), w, self.bias, self.stride, self.padding)


class _Attention(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.qkv, self.out, self.fused = nn.Linear(C, 3 * C), nn.Linear(C, C), fused

    def forward(self, x: Tensor) -> Tensor:
        t = torch.tanh(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(t).chunk(3, -1)
        if self.fused:
            y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        else:
            y = torch.softmax(q @ k.transpose(-1, -2) / C**0.5, -1) @ v
        return (t + self.out(y)).transpose(1, 2).unflatten(2, (H, W))


class _AttentionWithBias(nn.Module):
    """Scores, plus a bias for each pair of positions, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.bias = nn.Linear(C, 3 * C), nn.Parameter(torch.randn(H * W, H * W))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(torch.tanh(x).flatten(2).transpose(1, 2)).chunk(3, -1)
        weights = torch.softmax(q @ k.transpose(-1, -2) + self.bias, -1)
        return (weights @ v).transpose(1, 2).unflatten(2, (H, W))


class _AttentionToItself(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        t = torch.tanh(x).flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(t, t, t).transpose(1, 2).unflatten(2, (H, W))


class _TokenNorm(nn.Module):
    """Batch-norm over the tokens of a sequence, whose channels are the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(C, C), nn.BatchNorm1d(H * W)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.linear(torch.tanh(x).flatten(2).transpose(1, 2)))
        return torch.tanh(y).transpose(1, 2).unflatten(2, (H, W))


def _before(module: nn.Module) -> nn.Sequential:
    """The module between two activations, on a map of its own."""
    return nn.Sequential(nn.Tanh(), module, nn.Tanh())


MODULES: dict[str, Callable[[], nn.Module]] = {
    "batch-norm before a convolution": lambda: nn.Sequential(nn.BatchNorm2d(C), nn.Tanh(), nn.Conv2d(C, C, 1)),
    "batch-norm after a pool": lambda: nn.Sequential(nn.Conv2d(C, C, 1), nn.AvgPool2d(2), nn.BatchNorm2d(C)),
    "batch-norm without statistics": lambda: _before(nn.BatchNorm2d(C, track_running_stats=False)),
    "batch-norm without statistics after a convolution": lambda: nn.Sequential(
        nn.Tanh(), nn.Conv2d(C, C, 3), nn.BatchNorm2d(C, track_running_stats=False), nn.Tanh()
    ),
    "batch-norm without scale and shift": lambda: nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C, affine=False)),
    "two batch-norms": lambda: nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.BatchNorm2d(C), nn.Tanh()),
    "layer-norm over channels and positions": lambda: _before(nn.LayerNorm([C, H, W])),
    "group-norm": lambda: _before(nn.GroupNorm(2, C)),
    "instance-norm": lambda: _before(nn.InstanceNorm2d(C, affine=True)),
    "instance-norm with statistics": lambda: _before(nn.InstanceNorm2d(C, affine=True, track_running_stats=True)),
    "instance-norm with statistics after a convolution": lambda: nn.Sequential(
        nn.Tanh(), nn.Conv2d(C, C, 3), nn.InstanceNorm2d(C, affine=True, track_running_stats=True), nn.Tanh()
    ),
    "group-norm after a convolution": lambda: nn.Sequential(
        nn.Tanh(), nn.Conv2d(C, C, 3), nn.GroupNorm(3, C), nn.Tanh()
    ),
    "RMS-norm": lambda: _before(nn.RMSNorm([W])),
    "convolution used twice over": _Branches,
    "one activation module used three times": _ReusedReLU,
    "squeeze-excite": _SqueezeExcite,
    "block on the last axis": _ChannelsLastBlock,
    "weight standardisation": lambda: _StandardisedWeight(C, C, 3, padding=1),
    "weight-norm": lambda: _before(nn.utils.parametrizations.weight_norm(nn.Conv2d(C, C, 3))),
    "even kernel with padding same": lambda: _before(nn.Conv2d(C, C, (4, 2), padding="same")),
    "dilated even kernel with padding same": lambda: _before(nn.Conv2d(C, C, 2, padding="same", dilation=3)),
    "padding valid": lambda: _before(nn.Conv2d(C, C, 3, padding="valid")),
    "circular padding": lambda: _before(nn.Conv2d(C, C, 3, padding=1, padding_mode="circular")),
    "1×1 convolution with stride": lambda: _before(nn.Conv2d(C, C, 1, stride=2)),
    "kernel with gaps": lambda: _before(nn.Conv2d(C, C, 2, stride=3)),
    "wide groups": lambda: nn.Sequential(nn.Conv2d(C, 20, 1), nn.Tanh(), nn.Conv2d(20, C, 3, groups=2), nn.Tanh()),
    "dropout": lambda: nn.Sequential(nn.Dropout(), nn.Dropout2d(inplace=True), nn.Tanh()),
    "attention": lambda: _Attention(fused=False),
    "fused attention": lambda: _Attention(fused=True),
    "attention with a bias": _AttentionWithBias,
    "attention of a map to itself": _AttentionToItself,
    "batch-norm over tokens": _TokenNorm,
    "softmax2d as a gate": lambda: _Function(lambda x: x * nn.Softmax2d()(x)),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_conserves(name: str) -> None:
    assert loss(Net(MODULES[name]())) < 1e-10


@pytest.mark.parametrize("name", MODULES)
def test_a_module_computes_what_it_computes(name: str) -> None:
    assert same_forward(Net(MODULES[name]()), picture())


@pytest.mark.parametrize("name", [name for name in MODULES if "batch-norm without statistics" not in name])
def test_a_module_explains_each_sample_alone(name: str) -> None:
    net, x = Net(MODULES[name]()), picture(3)
    alone = torch.cat([explained(net, x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(explained(net, x), alone, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("bias", ["norm", "uniform", "drop"])
@pytest.mark.parametrize("name", MODULES)
def test_the_ledger_of_a_module_explains_all_that_leaks(name: str, bias: str) -> None:
    assert unexplained(Net(MODULES[name]()), bias=bias) < 1e-10


@pytest.mark.parametrize("line", LINES)
def test_the_ledger_of_a_line_of_code_explains_all_that_leaks(line: str) -> None:
    assert unexplained(Net(LINES[line])) < 1e-10


CONSTANTS_THAT_TAKE_RELEVANCE: dict[str, Middle] = {
    "padding with a value": lambda x: F.pad(torch.tanh(x), (1, 0, 0, 2), value=1.0),
    "a constant channel": lambda x: torch.cat([torch.tanh(x)[:, 1:], torch.ones(len(x), 1, H, W, dtype=x.dtype)], 1),
    "maximum with a number": lambda x: torch.maximum(x, torch.tensor(0.3, dtype=x.dtype)),
    "where with a number": lambda x: torch.where(x > 0, x, torch.tensor(0.3, dtype=x.dtype)),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.3),
    "clamp by a tensor": lambda x: torch.clamp(x, torch.tensor(0.1, dtype=x.dtype)),
    "set to a number": lambda x: _set_first_channel(torch.tanh(x)),
    "detached part": lambda x: torch.tanh(x) + x.detach(),
}


def _set_first_channel(x: Tensor) -> Tensor:
    x[:, 0] = 0.4
    return x


@pytest.mark.parametrize("line", CONSTANTS_THAT_TAKE_RELEVANCE)
def test_what_a_constant_takes_is_in_the_ledger(line: str) -> None:
    """Where a constant takes part, relevance may leak, but never namelessly."""
    net = Net(CONSTANTS_THAT_TAKE_RELEVANCE[line])
    assert same_forward(net, picture())
    assert unexplained(net) < 1e-10


def test_a_view_changed_in_place_changes_its_base() -> None:
    def through_view(x: Tensor) -> Tensor:
        x = torch.tanh(x)
        x[:, :3].mul_(0.1)
        x.view(-1).neg_()
        return x

    def without_view(x: Tensor) -> Tensor:
        x = torch.tanh(x)
        return -torch.cat([x[:, :3] * 0.1, x[:, 3:]], 1)

    assert torch.allclose(Net(through_view)(picture()), Net(without_view)(picture()))
    right_or_refused(through_view, without_view)


def right_or_refused(middle: Middle, plain: Middle) -> None:
    """What cannot be followed may be refused, but never be explained wrongly."""
    try:
        found = explained(Net(middle))
    except UnsupportedOperationError:
        return
    torch.testing.assert_close(found, explained(Net(plain)))


@pytest.mark.parametrize("form", ["zero_", "fill_", "copy_"])
def test_a_buffer_written_in_place_is_followed_or_refused(form: str) -> None:
    def middle(x: Tensor) -> Tensor:
        x = torch.tanh(x)
        if form == "copy_":
            buffer = torch.empty(x.shape, dtype=x.dtype)
            buffer.copy_(x)
            return buffer
        part = x[:, :1].clone()
        if form == "zero_":
            part.zero_()
        else:
            part.fill_(0)
        return torch.cat([part, x[:, 1:]], 1)

    def plain(x: Tensor) -> Tensor:
        x = torch.tanh(x)
        return x if form == "copy_" else torch.cat([torch.zeros(len(x), 1, H, W, dtype=x.dtype), x[:, 1:]], 1)

    right_or_refused(middle, plain)


def test_input_channels_taken_apart_and_rescaled_keep_their_pixels() -> None:
    """As GoogLeNet's `transform_input` does: the same as an affine map of each pixel."""
    scale, shift = torch.tensor([0.5, 0.6, 0.7]).double(), torch.tensor([0.3, -0.2, 0.1]).double()

    def apart(x: Tensor) -> Tensor:
        return torch.cat([x[:, c].unsqueeze(1) * scale[c] + shift[c] for c in range(3)], 1)

    def together(x: Tensor) -> Tensor:
        return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)

    for transform in (apart, together):
        net = Net(nn.Tanh())
        net.front = nn.Sequential(_Function(transform), net.front)
        torch.testing.assert_close(explained(net), explained(net, resolution="front.0"), rtol=1e-10, atol=1e-12)


def test_a_bias_where_no_input_acts_is_lost_and_named() -> None:
    net = Net(_before(nn.Conv2d(C, C, 1, padding=1)))
    assert loss(net) > 1e-3
    assert unexplained(net) < 1e-10
    ledger = ierf.check_conservation(net, picture(), layer="back")
    assert {leak.module for entry in ledger.entries for leak in entry.leaks if abs(leak.amount) > 1e-9} == {"middle.1"}


UNSUPPORTED: dict[str, Middle] = {
    "exp": lambda x: torch.exp(x),
    "fft2": lambda x: torch.fft.fft2(x).real,
    "mul": lambda x: x * x.flip(1),
    "cumprod": lambda x: torch.cumprod(x, 1),
    "sin": lambda x: torch.sin(x),
    "erfinv": lambda x: torch.erfinv(0.9 * torch.tanh(x)),
}


class _Inner(nn.Module):
    def __init__(self, function: Middle) -> None:
        super().__init__()
        self.odd = _Function(function)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.odd(x)
        return y


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_operation_without_a_rule_raises_with_its_name_its_module_and_the_way_out(name: str) -> None:
    with pytest.raises(UnsupportedOperationError) as error:
        explained(Net(_Inner(UNSUPPORTED[name])))
    assert name in str(error.value)
    assert "middle.odd" in str(error.value)
    assert 'unknown="gradient"' in str(error.value)


@pytest.mark.parametrize("name", sorted(UNSUPPORTED.keys() - {"fft2"}))
def test_the_plain_gradient_lets_an_operation_pass_and_the_ledger_shows_its_leak(name: str) -> None:
    net = Net(_Inner(UNSUPPORTED[name]))
    assert explained(net, unknown="gradient").isfinite().all()
    assert unexplained(net, unknown="gradient") < 1e-10
    ledger = ierf.check_conservation(net, picture(), layer="back", unknown="gradient")
    leaks = [leak for entry in ledger.entries for leak in entry.leaks if "plain gradient" in leak.operation]
    assert any(leak.module == "middle.odd" for leak in leaks)
    assert abs(sum(leak.amount for leak in leaks)) > 1e-4 * abs(ledger.relevance_in)


def test_the_plain_gradient_of_a_linear_operation_without_a_rule_conserves() -> None:
    net = Net(UNSUPPORTED["fft2"])
    assert ierf.check_conservation(net, picture(), layer="back", unknown="gradient").conserved(1e-10)


def test_an_operation_without_a_rule_in_the_class_head_is_no_matter() -> None:
    class Headed(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.tanh(self.back(self.middle(self.front(x))))
            logits: Tensor = self.head(torch.exp(-y.mean((2, 3))) ** 2)
            return logits

    assert loss(Headed(nn.Tanh())) < 1e-10


def test_a_chain_of_one_dimensional_convolutions_conserves() -> None:
    net = nn.Sequential(
        nn.Conv1d(2, 6, 3, padding=1),
        nn.BatchNorm1d(6),
        nn.Tanh(),
        nn.Conv1d(6, 5, 4, stride=2, groups=1),
        nn.SiLU(),
        nn.AvgPool1d(2),
        nn.Conv1d(5, 4, 2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()
    x = torch.randn(2, 2, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ledger = ierf.check_conservation(net, x, layer="6")
    assert ledger.conserved(1e-10)
    fields = ierf.effective_receptive_fields(net, x, "4")
    torch.testing.assert_close(fields.sum(2), torch.ones(2, 9, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_one_dimensional_channel_shuffle_keeps_the_channel_axis() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front, self.back = nn.Conv1d(2, 6, 3, padding=1), nn.Conv1d(6, 4, 3)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.tanh(self.front(x))
            n, c, length = y.shape
            y = torch.sigmoid(y.view(n, 2, c // 2, length).transpose(1, 2).reshape(n, c, length))
            logits: Tensor = self.head(self.back(y).mean(-1))
            return logits

    class Permuted(Shuffled):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.sigmoid(torch.tanh(self.front(x))[:, [0, 3, 1, 4, 2, 5]])
            logits: Tensor = self.head(self.back(y).mean(-1))
            return logits

    x = torch.randn(2, 2, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    nets = [kind().double() for kind in (Shuffled, Permuted)]
    nets[1].load_state_dict(nets[0].state_dict())
    torch.testing.assert_close(nets[0](x), nets[1](x))
    one, other = (ierf.effective_receptive_fields(net, x, "back") for net in nets)
    torch.testing.assert_close(one, other)


def test_three_dimensional_convolutions_conserve() -> None:
    net = nn.Sequential(
        nn.Conv3d(2, 5, 3, padding=1),
        nn.BatchNorm3d(5),
        nn.Tanh(),
        nn.MaxPool3d(2),
        nn.Conv3d(5, 4, (1, 2, 2), padding=(0, 1, 1)),
        nn.Tanh(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()
    randomise(net[1])
    net.eval()
    x = torch.randn(2, 2, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = ierf.attribute(net, x, 1, resolution="low", head="raw")
    pixels = ierf.attribute(net, x, 1, head="raw")
    assert pixels.shape == (2, 4, 5, 6)
    torch.testing.assert_close(pixels.sum((1, 2, 3)), start.sum((1, 2, 3)), rtol=1e-10, atol=1e-12)


def test_a_linear_layer_written_as_addmm_or_matmul_is_a_linear_layer() -> None:
    class Pointwise(nn.Module):
        def __init__(self, form: str) -> None:
            super().__init__()
            self.weight, self.bias, self.form = nn.Parameter(torch.randn(C, C)), nn.Parameter(torch.randn(C)), form

        def forward(self, x: Tensor) -> Tensor:
            t = torch.tanh(x).permute(0, 2, 3, 1)
            n, h, w, c = t.shape
            if self.form == "linear":
                y = F.linear(t, self.weight.t(), self.bias)
            elif self.form == "addmm":
                y = torch.addmm(self.bias, t.reshape(-1, c), self.weight).view(n, h, w, c)
            elif self.form == "matmul":
                y = t @ self.weight + self.bias
            else:
                y = torch.einsum("nhwc,cd->nhwd", t, self.weight) + self.bias
            return torch.tanh(y).permute(0, 3, 1, 2)

    first, *others = (explained(Net(Pointwise(form))) for form in ("linear", "addmm", "matmul", "einsum"))
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("bias", ["norm", "uniform", "drop"])
def test_a_convolution_and_its_batch_norm_are_one_layer_in_every_bias_mode(bias: str) -> None:
    """The map at the convolution is the map at the pair."""
    net = Net(nn.Sequential(nn.Tanh(), nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.Tanh()))
    randomise(net.middle[2])
    at_conv = explained(net, resolution="middle.1", bias=bias)
    at_norm = explained(net, resolution="middle.2", bias=bias)
    torch.testing.assert_close(at_conv, at_norm, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bias", ["norm", "uniform", "drop"])
def test_one_and_three_dimensional_convolutions_are_thin_two_dimensional_ones(bias: str) -> None:
    """The same weights on a picture of height 1 and on a block of depth 1."""

    def nets(n: int) -> nn.Module:
        kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d), (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        convolution, norm = (kind[n - 1] for kind in kinds)

        def sides(last: int, other: int) -> tuple[int, ...]:
            return (*(other,) * (n - 1), last)

        return nn.Sequential(
            convolution(3, 6, sides(3, 1), padding=sides(1, 0)),
            norm(6),
            nn.SiLU(),
            convolution(6, 8, sides(3, 1), stride=sides(2, 1), padding=sides(1, 0), dilation=sides(2, 1)),
            nn.Tanh(),
            convolution(8, 4, sides(2, 1), groups=4),
            nn.ReLU(),
        )

    x = torch.randn(2, 3, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    maps = []
    for n in (1, 2, 3):
        torch.manual_seed(0)
        net = nn.Sequential(nets(n), nn.Flatten(2)).double()
        for module in net.modules():
            randomise(module)
        net.eval()
        shaped = x.view(2, 3, *(1,) * (n - 1), 15)
        maps.append(ierf.effective_receptive_fields(net, shaped, "0", bias=bias).reshape(2, -1, 15))
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(maps[2], maps[1], rtol=1e-11, atol=1e-13)
