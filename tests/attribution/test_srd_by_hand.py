"""SRD against an implementation that shares nothing with it: explicit contributions, loops, no gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.srd_by_hand import BruteForce, Step, Wired
from torch import Tensor, nn

import ierf
from ierf.attribution.targets import PFV, Channel, Direction, Logit, Relevance

BIASES = ("norm", "uniform", "drop")
SIZE = (7, 6)


def conv(n_in: int, n_out: int, kernel: Any = 3, **options: Any) -> nn.Conv2d:
    options.setdefault("padding", 1 if kernel == 3 else 0)
    return nn.Conv2d(n_in, n_out, kernel, **options)


def chain(*modules: nn.Module) -> list[Step]:
    """Steps one after another, named s0, s1, …"""
    return [Step(f"s{k}", m, (f"s{k - 1}" if k else "x",)) for k, m in enumerate(modules)]


def plain() -> Sequence[Step]:
    return chain(conv(3, 4), nn.ReLU(), conv(4, 5), nn.ReLU())


def normed() -> Sequence[Step]:
    return chain(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 5, bias=False), nn.BatchNorm2d(5), nn.SiLU())


def strided_dilated_grouped() -> Sequence[Step]:
    return chain(
        conv(3, 4, stride=2), nn.LeakyReLU(), conv(4, 6, groups=2, dilation=2, padding=2), nn.ELU(), conv(6, 4, (1, 3))
    )


def depthwise() -> Sequence[Step]:
    return chain(
        conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 6, groups=6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 4, 1)
    )


def linear_bottleneck() -> Sequence[Step]:
    """Convolutions with no activation between them."""
    return chain(conv(3, 4), nn.ReLU(), conv(4, 3, 1), conv(3, 5), nn.BatchNorm2d(5), conv(5, 4, 2), nn.Tanh())


def pooled() -> Sequence[Step]:
    return chain(
        conv(3, 4),
        nn.MaxPool2d(3, 2, 1),
        nn.ReLU(),
        conv(4, 5),
        nn.ReLU(),
        nn.AvgPool2d(2, 1),
        conv(5, 4, 1),
        nn.ReLU(),
    )


def norm_first() -> Sequence[Step]:
    """Batch-norm of its own, as in pre-activation networks."""
    return chain(
        nn.BatchNorm2d(3), conv(3, 4), nn.ReLU(), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.BatchNorm2d(4), nn.ReLU()
    )


def residual() -> Sequence[Step]:
    return [
        Step("c0", conv(3, 4), ("x",)),
        Step("b0", nn.BatchNorm2d(4), ("c0",)),
        Step("a0", nn.ReLU(), ("b0",)),
        Step("c1", conv(4, 4, stride=2), ("a0",)),
        Step("b1", nn.BatchNorm2d(4), ("c1",)),
        Step("a1", nn.ReLU(), ("b1",)),
        Step("c2", conv(4, 4), ("a1",)),
        Step("b2", nn.BatchNorm2d(4), ("c2",)),
        Step("short", conv(4, 4, 1, stride=2), ("a0",)),
        Step("bs", nn.BatchNorm2d(4), ("short",)),
        Step("sum", "add", ("b2", "bs")),
        Step("a2", nn.ReLU(), ("sum",)),
    ]


def inverted_residual() -> Sequence[Step]:
    """A linear bottleneck whose sum has no activation: the same PFV is reached over one and over two stretches."""
    return [
        Step("c0", conv(3, 4), ("x",)),
        Step("c1", conv(4, 6, 1), ("c0",)),
        Step("a1", nn.ReLU(), ("c1",)),
        Step("c2", conv(6, 4, 1), ("a1",)),
        Step("b2", nn.BatchNorm2d(4), ("c2",)),
        Step("sum", "add", ("b2", "c0")),
        Step("c3", conv(4, 5), ("sum",)),
        Step("a3", nn.ReLU(), ("c3",)),
    ]


def dense() -> Sequence[Step]:
    """Concatenation, and a convolution's output that a batch-norm and something else use."""
    return [
        Step("c0", conv(3, 4), ("x",)),
        Step("b0", nn.BatchNorm2d(4), ("c0",)),
        Step("a0", nn.ReLU(), ("b0",)),
        Step("c1", conv(4, 3), ("a0",)),
        Step("cat", "cat", ("c0", "c1")),
        Step("b1", nn.BatchNorm2d(7), ("cat",)),
        Step("a1", nn.ReLU(), ("b1",)),
        Step("c2", conv(7, 4, 1), ("a1",)),
        Step("a2", nn.ReLU(), ("c2",)),
    ]


def smooth() -> Sequence[Step]:
    """No PFV of it is ever zero."""
    return chain(conv(3, 4), nn.BatchNorm2d(4), nn.SiLU(), conv(4, 5, stride=2), nn.Tanh(), conv(5, 4, 1), nn.ELU())


def linear_bottleneck_smooth() -> Sequence[Step]:
    return chain(conv(3, 4), nn.SiLU(), conv(4, 3, 1), conv(3, 5), nn.BatchNorm2d(5), conv(5, 4, 2), nn.Tanh())


def wide() -> Sequence[Step]:
    """More channels than a group of few."""
    return chain(
        conv(3, 6), nn.SiLU(), conv(6, 7, stride=2), nn.ReLU(), conv(7, 5, dilation=2, padding=2), nn.ELU(), conv(5, 4)
    )


def wide_groups() -> Sequence[Step]:
    return chain(
        conv(3, 10, stride=(1, 2)),
        nn.BatchNorm2d(10),
        nn.ReLU(),
        conv(10, 12, groups=2),
        nn.Tanh(),
        conv(12, 4, (2, 3), groups=2, stride=(2, 1), padding=(1, 0)),
        nn.BatchNorm2d(4),
        nn.SiLU(),
    )


NETS = (
    wide,
    wide_groups,
    smooth,
    plain,
    normed,
    strided_dilated_grouped,
    depthwise,
    linear_bottleneck,
    pooled,
    norm_first,
    residual,
    inverted_residual,
    dense,
)


def build(steps: Callable[[], Sequence[Step]], seed: int = 0) -> Wired:
    """A network in float64 with random weights, biases and batch-norm statistics."""
    torch.manual_seed(seed)
    made = steps()
    channels = next(s.what for s in reversed(made) if isinstance(s.what, nn.Conv2d)).out_channels
    net = Wired(made, nn.Linear(channels, 6)).double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.5)
    return net


def pictures(n: int = 1, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, *SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Tensor, wanted: Any, tolerance: float = 1e-10) -> None:
    wanted = torch.as_tensor(np.asarray(wanted))
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * max(1.0, float(wanted.abs().max())))


@pytest.fixture(params=NETS, ids=lambda f: f.__name__)
def net(request: pytest.FixtureRequest) -> Wired:
    return build(request.param)


@pytest.mark.parametrize(
    ("bias", "head"),
    [("norm", "clamped"), ("norm", "mean"), ("norm", "raw"), ("uniform", "raw"), ("drop", "clamped")],
)
def test_the_map_of_a_class(net: Wired, bias: str, head: str) -> None:
    x = pictures(2)
    found = ierf.attribute(net, x, [4, 1], bias=bias, head=head)
    for one, picture, index in zip(found, x, (4, 1), strict=True):
        by_hand = BruteForce(net, picture, bias)
        close(one, by_hand.carried(net.steps[-1].name, by_hand.final_ratio(index, head)))


def test_the_class_at_low_resolution_is_the_final_ratio_itself(net: Wired) -> None:
    x = pictures()
    for head in ("clamped", "mean", "raw"):
        close(
            ierf.attribute(net, x, Logit(2), resolution="low", head=head)[0], BruteForce(net, x[0]).final_ratio(2, head)
        )


@pytest.mark.parametrize("bias", BIASES)
def test_the_ierfs_of_every_layer_built_forwards(net: Wired, bias: str) -> None:
    x = pictures()
    by_hand = BruteForce(net, x[0], bias)
    folded = {s.sources[0] for s in net.steps if isinstance(s.what, nn.BatchNorm2d)}
    for layer in [s.name for s in net.steps if s.name not in folded]:
        close(ierf.effective_receptive_fields(net, x, layer, bias=bias)[0], by_hand.ierfs(layer))


@pytest.mark.parametrize("bias", BIASES)
def test_the_relevance_map_of_an_inner_layer(net: Wired, bias: str) -> None:
    x, last = pictures(), net.steps[-1].name
    by_hand = BruteForce(net, x[0], bias)
    start = np.random.default_rng(0).normal(size=by_hand.maps[last].values.shape[1:])
    activations = [s.name for s in net.steps if s.name in by_hand.maps[s.name].parts]
    for layer in activations:
        found = ierf.attribute(net, x, Relevance(last, torch.from_numpy(start)[None]), resolution=layer, bias=bias)
        close(found[0], by_hand.carried(last, start, layer))


def test_ierfs_weighted_by_relevance_sum_to_the_backward_map(net: Wired) -> None:
    x = pictures(2)
    for layer in {net.steps[-1].name, net.steps[len(net.steps) // 2].name}:
        fields = ierf.effective_receptive_fields(net, x, layer)
        by_hand = BruteForce(net, x[0])
        shape = by_hand.maps[layer].values.shape[1:]
        relevance = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        forwards = torch.einsum("np,nphw->nhw", relevance.flatten(1), fields)
        close(ierf.attribute(net, x, Relevance(layer, relevance)), forwards)


def test_the_target_of_a_channel(net: Wired) -> None:
    x, layer = pictures(), net.steps[-1].name
    by_hand = BruteForce(net, x[0])
    close(ierf.attribute(net, x, Channel(layer, 2))[0], by_hand.carried(layer, by_hand.maps[layer].values[2]))


def test_the_target_of_a_direction(net: Wired) -> None:
    x, layer = pictures(), net.steps[-1].name
    by_hand = BruteForce(net, x[0])
    pfvs = by_hand.maps[layer].values
    d = np.random.default_rng(1).normal(size=len(pfvs))
    along = np.einsum("c,chw->hw", d, pfvs)
    close(ierf.attribute(net, x, Direction(layer, torch.from_numpy(d)))[0], by_hand.carried(layer, along))
    only = np.zeros_like(along)
    only[1, 0] = along[1, 0]
    target = Direction(layer, torch.from_numpy(d), position=(1, 0))
    close(ierf.attribute(net, x, target)[0], by_hand.carried(layer, only))


def test_the_target_of_a_pfv(net: Wired) -> None:
    x, layer = pictures(), net.steps[-1].name
    by_hand = BruteForce(net, x[0])
    width = by_hand.maps[layer].values.shape[2]
    close(ierf.attribute(net, x, PFV(layer, (1, 0)))[0], by_hand.ierfs(layer)[width])


@pytest.mark.parametrize("steps", [smooth, linear_bottleneck_smooth], ids=lambda f: f.__name__)
def test_the_ratios_of_a_pfv_sum_to_one(steps: Callable[[], Sequence[Step]]) -> None:
    """Eq. 19, of the implementation by hand: what the comparison rests on."""
    made = build(steps)
    by_hand = BruteForce(made, pictures()[0])
    for step in made.steps:
        np.testing.assert_allclose(by_hand.sharing(step.name).sum(0), 1, atol=1e-9)


@given(
    spec=st.lists(
        st.tuples(
            st.sampled_from(
                [nn.Conv2d, nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d, nn.MaxPool2d, nn.ReLU, nn.Tanh, nn.ELU]
            ),
            st.tuples(st.integers(1, 3), st.integers(1, 3)),
            st.tuples(st.integers(1, 2), st.integers(1, 3)),
            st.integers(0, 1),
            st.integers(1, 2),
            st.sampled_from([1, 2, 6]),
        ),
        min_size=2,
        max_size=6,
    ),
    bias=st.sampled_from(BIASES),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_random_chains(spec: list[Any], bias: Any, seed: int) -> None:
    layers: list[nn.Module] = [conv(3, 6)]
    height, width = SIZE
    for kind, kernel, stride, padding, dilation, groups in spec:
        if kind is nn.Conv2d:
            spans = [side + 2 * padding - dilation * (k - 1) for side, k in zip((height, width), kernel, strict=True)]
            steps, layer = stride, conv(6, 6, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
        elif kind in (nn.AvgPool2d, nn.MaxPool2d):
            padding = min(padding, kernel[0] // 2)
            spans = [side + 2 * padding - (kernel[0] - 1) for side in (height, width)]
            steps, layer = (stride[0], stride[0]), kind(kernel[0], stride[0], padding)
        else:
            spans, steps, layer = [height, width], (1, 1), kind(6) if kind is nn.BatchNorm2d else kind()
        if min(spans) < 1:
            continue
        height, width = ((span - 1) // step + 1 for span, step in zip(spans, steps, strict=True))
        layers.append(layer)
    net = build(lambda: chain(*layers, nn.SiLU()), seed)
    by_hand = BruteForce(net, pictures()[0], bias)
    last = net.steps[-1].name
    close(ierf.effective_receptive_fields(net, pictures(), last, bias=bias)[0], by_hand.ierfs(last))
    found = ierf.attribute(net, pictures(), Channel(last, 1), bias=bias)[0]
    close(found, by_hand.carried(last, by_hand.maps[last].values[1]))


@pytest.mark.parametrize("index", range(6))
def test_mean_and_clamped_heads_against_a_gradient_for_every_class(index: int) -> None:
    """Eq. 5–6 by K backward passes, on a head of two layers."""
    net = _two_layer_head()
    x = pictures(2)
    features = net.features(x).detach().requires_grad_()
    logits = net.head(features)
    phi = []
    for c in range(logits.shape[1]):
        (slope,) = torch.autograd.grad(logits[:, c].sum(), features, retain_graph=True)
        phi.append((slope.mean((2, 3), keepdim=True) * features).sum(1).detach())
    centred = phi[index] - torch.stack(phi).mean(0)
    close(ierf.attribute(net, x, index, resolution="low", head="raw"), phi[index], 1e-12)
    close(ierf.attribute(net, x, index, resolution="low", head="mean"), centred, 1e-12)
    close(ierf.attribute(net, x, index, resolution="low", head="clamped"), centred.clamp_min(0), 1e-12)


class _TwoLayerHead(nn.Module):
    """As in VGG: the map is flattened and goes through two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(5 * 3 * 3, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def _two_layer_head() -> Any:
    torch.manual_seed(0)
    return _TwoLayerHead().double().eval()
