"""iERFs of many positions at once are the iERFs of each: passes that are shared, windows, order, portions."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import ierf
from ierf.attribution.receptive_fields import groups_without_overlap, pixel_windows
from ierf.attribution.srd import SRDPass
from ierf.attribution.targets import PFV, Relevance
from ierf.model import VisionModel
from ierf.rules import SRDRules
from ierf.rules.fields import Field

SIZE = (19, 22)


class Trunk(nn.Module):
    """Layers to look at, then a mean and a linear layer."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.head = nn.LazyLinear(4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(x).flatten(2).mean(2))
        return logits


class Block(nn.Module):
    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(channels, channels, 3, stride, 1), nn.BatchNorm2d(channels)
        self.two, self.stride = nn.Conv2d(channels, channels, 3, padding=1), stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(F.silu(self.norm(self.one(x))))
        return F.silu(y + x) if self.stride == 1 else F.silu(y + x[:, :, :: self.stride, :: self.stride])


class Lines(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x)
        return y


def conv(n_in: int, n_out: int, kernel: Any = 3, *args: Any, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel, *args, **options)


NETS: dict[str, Any] = {
    "plain": lambda: [conv(3, 4, padding=1), nn.SiLU(), conv(4, 5), nn.Tanh()],
    "strides": lambda: [conv(3, 4, 3, 2, 1), nn.SiLU(), conv(4, 5, 2, 2), nn.Tanh()],
    "gaps": lambda: [conv(3, 4, 2, 3), nn.SiLU()],
    "dilation": lambda: [
        conv(3, 4, dilation=2),
        nn.SiLU(),
        conv(4, 4, (1, 3), dilation=(1, 3), padding=(0, 2)),
        nn.Tanh(),
    ],
    "max-pool": lambda: [conv(3, 4), nn.BatchNorm2d(4), nn.SiLU(), nn.MaxPool2d(3, 2, 1), conv(4, 4), nn.Tanh()],
    "max-pool with ceil and dilation": lambda: [
        conv(3, 4),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.SiLU(),
        nn.MaxPool2d(2, 1, dilation=2),
    ],
    "average pool": lambda: [conv(3, 4), nn.AvgPool2d(2, ceil_mode=True), nn.SiLU(), nn.AvgPool2d(3, 1, 1)],
    "residual": lambda: [conv(3, 4, padding=1), Block(4), Block(4)],
    "strided residual with a sliced shortcut": lambda: [conv(3, 4, padding=1), Block(4, 2), Block(4)],
    "asymmetric padding": lambda: [nn.ZeroPad2d((0, 1, 0, 1)), conv(3, 4, 3, 2), nn.SiLU()],
    "padding same": lambda: [conv(3, 4, 4, padding="same"), nn.SiLU()],
    "slicing": lambda: [conv(3, 4, padding=1), Lines(lambda x: F.silu(x[:, :, 3:, 1::2]))],
    "flip and roll": lambda: [conv(3, 4, padding=1), Lines(lambda x: F.silu(torch.roll(x.flip(3), 2, 2)))],
    "cat of two depths": lambda: [
        conv(3, 4, padding=1),
        Lines(lambda x: torch.cat([F.silu(x), F.avg_pool2d(x, 5, 1, 2)], 1)),
    ],
    "gate from everywhere": lambda: [
        conv(3, 4, padding=1),
        Lines(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid()),
    ],
    "sum with its mean": lambda: [conv(3, 4, padding=1), Lines(lambda x: F.silu(x + x.mean((2, 3), keepdim=True)))],
    "layer-norm over everything": lambda: [conv(3, 4, padding=1), nn.LayerNorm([4, *SIZE]), nn.SiLU()],
    "layer-norm over a row": lambda: [conv(3, 4, padding=1), nn.LayerNorm(SIZE[1]), nn.SiLU()],
    "layer-norm of channels": lambda: [
        conv(3, 4, padding=1),
        Lines(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), [4]).permute(0, 3, 1, 2)),
        nn.SiLU(),
    ],
    "group-norm": lambda: [conv(3, 4, padding=1), nn.GroupNorm(2, 4), nn.SiLU()],
    "instance-norm": lambda: [conv(3, 4, padding=1), nn.InstanceNorm2d(4), nn.SiLU()],
    "upsampling": lambda: [conv(3, 4, 3, 2), nn.SiLU(), nn.Upsample(scale_factor=2), conv(4, 4)],
    "adaptive pool": lambda: [conv(3, 4), nn.AdaptiveAvgPool2d((5, 7)), nn.SiLU()],
    "kernel as large as the picture, added to a map": lambda: [
        conv(3, 4, SIZE),
        nn.SiLU(),
        Lines(lambda x: x + torch.linspace(-1, 1, 24, dtype=x.dtype).view(4, 6)),
    ],
    "clamp by a tensor": lambda: [
        conv(3, 4, padding=1),
        nn.SiLU(),
        conv(4, 4, padding=1),
        Lines(lambda x: torch.clamp(x, torch.tensor(-9, dtype=x.dtype))),
        conv(4, 4, padding=1),
        nn.Tanh(),
    ],
    "dead PFVs": lambda: [conv(3, 2, padding=1), nn.SiLU(), conv(2, 2, padding=1), nn.ReLU(), conv(2, 3), nn.Tanh()],
    "in-place steps": lambda: [conv(3, 4, padding=1), nn.SiLU(inplace=True), Lines(lambda x: x.mul_(2).add_(1))],
}


def build(name: str) -> Trunk:
    torch.manual_seed(0)
    net = Trunk(*NETS[name]()).double()
    net(pictures(1))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.bias)
    return net.eval()


def pictures(n: int = 2) -> Tensor:
    return torch.randn(n, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def map_size(net: Trunk, x: Tensor, layer: str = "layers") -> tuple[int, int]:
    height, width = ierf.attribute(net, x, 0, resolution=layer, encoder=layer).shape[1:]
    return height, width


def some_positions(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Corners, neighbours and a spread of others, without order and with a duplicate."""
    h, w = size
    every = [(i, j) for i in range(0, h, 2) for j in range(0, w, 3)]
    return [(h - 1, w - 1), (0, 0), *every[::-1], (h // 2, w // 2), (0, w - 1), (h - 1, 0), (0, 0)]


def one_at_a_time(net: Trunk, x: Tensor, positions: list[tuple[int, int]], layer: str = "layers") -> Tensor:
    """The definition: the map of relevance 1 at one position."""
    h, w = map_size(net, x, layer)
    maps = []
    for i, j in positions:
        hot = torch.zeros(len(x), h, w, dtype=x.dtype)
        hot[:, i, j] = 1
        maps.append(ierf.attribute(net, x, Relevance(layer, hot)))
    return torch.stack(maps, 1)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", NETS)
def test_positions_that_share_a_pass_get_what_each_gets_alone(name: str) -> None:
    net, x = build(name), pictures(1)
    positions = some_positions(map_size(net, x))[:40]
    same(ierf.effective_receptive_fields(net, x, "layers", positions), one_at_a_time(net, x, positions))


@pytest.mark.parametrize("name", NETS)
def test_all_positions_at_once_get_what_each_gets_alone(name: str) -> None:
    net, x = build(name), pictures(2)
    h, w = map_size(net, x)
    found = ierf.effective_receptive_fields(net, x, "layers")
    assert found.shape[1] == h * w
    chosen = [(0, 0), (h - 1, w - 1), (h // 2, w // 2), (0, w - 1), (h - 1, w // 3), (h // 4, 1 % w)]
    same(found[:, [i * w + j for i, j in chosen]], one_at_a_time(net, x, chosen))


@pytest.mark.parametrize("bias", ["norm", "uniform", "drop"])
@pytest.mark.parametrize("name", ["strides", "residual", "max-pool", "average pool", "clamp by a tensor"])
def test_all_positions_at_once_in_every_bias_mode(name: str, bias: Any) -> None:
    net, x = build(name), pictures(1)
    h, w = map_size(net, x)
    chosen = [(0, 0), (h - 1, w - 1), (h // 2, w // 3)]
    hot = torch.zeros(3, 1, h, w).double()
    for k, (i, j) in enumerate(chosen):
        hot[k, 0, i, j] = 1
    wanted = torch.stack([ierf.attribute(net, x, Relevance("layers", one), bias=bias) for one in hot], 1)
    found = ierf.effective_receptive_fields(net, x, "layers", bias=bias)
    same(found[:, [i * w + j for i, j in chosen]], wanted)


@pytest.mark.parametrize("name", NETS)
def test_an_ierf_sums_to_one(name: str) -> None:
    if name == "dead PFVs":
        pytest.skip("a bias whose inputs are all zero has nobody to go to")
    net, x = build(name), pictures(1)
    positions = some_positions(map_size(net, x))[:6]
    sums = ierf.effective_receptive_fields(net, x, "layers", positions).sum((2, 3))
    same(sums, torch.ones_like(sums))


@pytest.mark.parametrize("name", NETS)
def test_no_pixel_outside_the_window_has_a_gradient(name: str) -> None:
    """Theoretical windows against autograd: every pixel that a position depends on lies inside."""
    net, x = build(name), pictures(1)
    with SRDPass.of(VisionModel(net), x, SRDRules()) as run:
        node = run.layer("layers")
        size = run.tape.nodes[node].map_shape
        wanted = torch.tensor([p for p in some_positions(size) if p[0] < size[0] and p[1] < size[1]][:24])
        windows = pixel_windows(wanted, run.tape.fields(node), SIZE)
    if name == "gate from everywhere":
        pytest.skip("a gate is a constant: its gradient is not relevance")
    for position, ((top, bottom), (left, right)) in zip(wanted.tolist(), windows.tolist(), strict=True):
        point = x.clone().requires_grad_()
        out = net.layers(point)[:, :, position[0], position[1]]
        (slope,) = torch.autograd.grad((out * torch.randn_like(out)).sum(), point)
        slope[:, :, top:bottom, left:right] = 0
        assert float(slope.abs().max()) == 0


def test_early_layers_have_windows_smaller_than_the_picture() -> None:
    """Without this the two tests above would hold for any network trivially."""
    for name in ("plain", "strides", "dilation", "max-pool", "average pool", "residual"):
        net = build(name)
        with SRDPass.of(VisionModel(net), pictures(1), SRDRules()) as run:
            fields = run.tape.fields(run.layer("layers"))
        (window,) = pixel_windows(torch.tensor([[2, 2]]), fields, SIZE)
        assert (window[:, 1] - window[:, 0]).prod() < SIZE[0] * SIZE[1]


def test_the_plain_gradient_of_an_operation_that_mixes_positions_is_not_cut_off() -> None:
    torch.manual_seed(0)
    net = Trunk(conv(3, 4, padding=1), Lines(lambda x: torch.softmax(x, 3)), conv(4, 4)).double()
    x, positions = pictures(1), [(0, 0), (0, 10), (5, 15), (16, 0)]
    net(x)
    net.eval()
    hot = torch.zeros(4, 1, 17, 20).double()
    for k, (i, j) in enumerate(positions):
        hot[k, 0, i, j] = 1
    wanted = [ierf.attribute(net, x, Relevance("layers", one), unknown="gradient") for one in hot]
    found = ierf.effective_receptive_fields(net, x, "layers", positions, unknown="gradient")
    same(found, torch.stack(wanted, 1))


@pytest.mark.parametrize("batch", [1, 2, 5, 1000])
def test_the_number_of_passes_at_once_changes_nothing(batch: int) -> None:
    net, x = build("strided residual with a sliced shortcut"), pictures()
    wanted = ierf.effective_receptive_fields(net, x, "layers.1")
    same(ierf.effective_receptive_fields(net, x, "layers.1", batch=batch), wanted)


def test_without_positions_all_come_in_row_major_order() -> None:
    net, x = build("strides"), pictures()
    h, w = map_size(net, x)
    every = [(i, j) for i in range(h) for j in range(w)]
    same(ierf.effective_receptive_fields(net, x, "layers"), ierf.effective_receptive_fields(net, x, "layers", every))
    same(ierf.effective_receptive_fields(net, x, "layers")[:, w + 2], ierf.attribute(net, x, PFV("layers", (1, 2))))


def test_order_and_duplicates_of_positions_are_kept() -> None:
    net, x = build("max-pool"), pictures()
    wanted = ierf.effective_receptive_fields(net, x, "layers", [(0, 0), (3, 4), (1, 1)])
    found = ierf.effective_receptive_fields(net, x, "layers", [(1, 1), (0, 0), (1, 1), (3, 4), (0, 0)])
    same(found, wanted[:, [2, 0, 2, 1, 0]])


def test_no_positions_give_no_fields() -> None:
    net, x = build("plain"), pictures()
    assert ierf.effective_receptive_fields(net, x, "layers", []).shape == (2, 0, *SIZE)


def test_a_single_picture_needs_no_batch_axis() -> None:
    net, x = build("plain"), pictures(1)
    found = ierf.effective_receptive_fields(net, x[0], "layers", [(2, 3)])
    same(found.reshape(SIZE), ierf.effective_receptive_fields(net, x, "layers", [(2, 3)]).reshape(SIZE))


def test_samples_do_not_mix() -> None:
    net, x = build("residual"), pictures(3)
    positions = [(0, 0), (10, 10), (18, 21)]
    together = ierf.effective_receptive_fields(net, x, "layers", positions)
    alone = [ierf.effective_receptive_fields(net, x[i : i + 1], "layers", positions) for i in range(3)]
    same(together, torch.cat(alone))


def test_the_ierf_of_a_convolution_is_its_sharing_ratio() -> None:
    """One convolution without bias on one position, by Eq. 3: `μ_ij = ⟨W_ij x_i, v_j⟩ / ‖v_j‖²`."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3, bias=False).double()
    net, x = Trunk(layer).double(), pictures(1)
    net(x)
    v = layer(x)[0, :, 4, 7].detach()
    wanted = torch.zeros(SIZE).double()
    for i in range(3):
        for j in range(3):
            part = layer.weight[:, :, i, j].detach() @ x[0, :, 4 + i, 7 + j]
            wanted[4 + i, 7 + j] = part @ v / (v @ v)
    same(ierf.effective_receptive_fields(net, x, "layers.0", [(4, 7)])[0, 0], wanted)


def test_an_ierf_lies_inside_the_kernel() -> None:
    net, x = build("strides"), pictures(1)
    found = ierf.effective_receptive_fields(net, x, "layers.0", [(3, 4)])[0, 0]
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[5:8, 7:10] = True
    assert (found[~inside] == 0).all()
    assert (found[inside] != 0).all()


@pytest.mark.parametrize("positions", [[(0, 99)], [(-1, 0)], [(1, 2, 3)], [3, 4]])
def test_wrong_positions_are_answered(positions: Any) -> None:
    with pytest.raises(ierf.IerfError, match="layers"):
        ierf.effective_receptive_fields(build("plain"), pictures(1), "layers", positions)


@given(
    positions=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 11)), min_size=1, max_size=90),
    field=st.tuples(st.integers(1, 3), st.integers(-4, 0), st.integers(0, 6)),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_groups_hold_everyone_once_and_never_overlap(
    positions: list[tuple[int, int]], field: tuple[int, int, int]
) -> None:
    stride, low, high = field
    groups = groups_without_overlap(torch.tensor(positions), (Field(*field),) * 2, (10, 12))
    assert sorted(p for group in groups for p in group) == list(range(len(positions)))
    for group in groups:
        painted = torch.zeros(60, 60)
        for p in group:
            top, left = (10 + stride * i + low for i in positions[p])
            painted[top : top + high - low + 1, left : left + high - low + 1] += 1
        assert float(painted.max()) <= 1


def test_groups_are_few_where_windows_are_small() -> None:
    everywhere = torch.cartesian_prod(torch.arange(20), torch.arange(20))
    assert len(groups_without_overlap(everywhere, (Field(2, -3, 3),) * 2, (20, 20))) == 16


layers_of_a_net = st.lists(
    st.tuples(
        st.sampled_from(["conv", "max", "avg", "norm"]),
        st.integers(1, 3),
        st.integers(1, 3),
        st.integers(0, 2),
        st.integers(1, 2),
    ),
    min_size=1,
    max_size=4,
)


@given(spec=layers_of_a_net, size=st.tuples(st.integers(9, 15), st.integers(9, 15)), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_random_nets_conserve_and_share_passes(
    spec: list[tuple[str, int, int, int, int]], size: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3, padding=1), nn.Tanh()]
    for kind, kernel, stride, padding, dilation in spec:
        padding = min(padding, kernel // 2)
        if kind == "conv":
            layers += [nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups=1 + seed % 2), nn.Tanh()]
        elif kind == "max":
            layers.append(nn.MaxPool2d(kernel, stride, padding))
        elif kind == "avg":
            layers.append(nn.AvgPool2d(kernel, stride, padding))
        else:
            layers.append(nn.BatchNorm2d(4))
    net = Trunk(*layers).double().eval()
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    try:
        h, w = net.layers(x).shape[2:]
    except RuntimeError:
        return
    net(x)
    positions = [(h - 1, w - 1), (0, 0), (h // 2, w // 2), (0, w - 1), (h // 3, w // 3)]
    found = ierf.effective_receptive_fields(net, x, "layers", positions)
    same(found, one_at_a_time(net, x, positions))
    sums = found.sum((2, 3))
    same(sums, torch.ones_like(sums))
