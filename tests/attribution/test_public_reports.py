"""Networks as people write them, after public bug reports: the right map, or one sentence that says why there is none.

Where a network computes what another, plainer one does, the plainer one's map is the right value.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import ierf
from ierf.attribution.attribute import relevance_pass

METHODS = ("srd", "attnlrp", "lrp_zplus")


def seeded(net: type[nn.Module], *args: Any) -> nn.Module:
    torch.manual_seed(0)
    return net(*args).double().eval()


def picture(*size: int) -> Tensor:
    return torch.randn(size or (2, 3, 16, 12), dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Through(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.c1, self.c2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(F.relu(self.c2(self.function(self.c1(x)))).mean((2, 3)))
        return logits


def off(one: nn.Module, other: nn.Module, method: str, x: Tensor | None = None) -> float:
    """The largest difference of their maps over the largest value."""
    x = picture() if x is None else x
    maps = [ierf.attribute(net, x, target=1, method=method) for net in (one, other)]
    return float((maps[0] - maps[1]).abs().max() / maps[1].abs().max())


# What a program writes in place


def relu_behind_a_slice(y: Tensor) -> Tensor:
    first = y[:, :4]
    y.relu_()
    return torch.cat([first, y[:, 4:]], 1)


def relu_behind_a_flat_view(y: Tensor) -> Tensor:
    z = y.flatten(2)
    F.relu(y, inplace=True)
    return z.reshape(y.shape)


def relu_of_an_overlapping_view(y: Tensor) -> Tensor:
    a, b = y[:, :6], y[:, 2:]
    a.relu_()
    return torch.cat([a[:, :2], b], 1)


def copied_through_a_view_of_a_buffer(y: Tensor) -> Tensor:
    buffer = torch.zeros_like(y)
    part = buffer[:, :4]
    part.copy_(y[:, :4])
    buffer[:, 4:] += y[:, 4:]
    return buffer.relu()


def changed_twice_by_two_names(y: Tensor) -> Tensor:
    z = y
    z += 1
    z.mul_(2).relu_()
    return y


def written_by_out(y: Tensor) -> Tensor:
    z = torch.empty_like(y)
    torch.add(y, y.flip(2), out=z)
    return z.relu_()


WRITTEN = {
    relu_behind_a_slice: F.relu,
    relu_behind_a_flat_view: F.relu,
    relu_of_an_overlapping_view: lambda y: torch.cat([F.relu(y[:, :6]), y[:, 6:]], 1),
    copied_through_a_view_of_a_buffer: F.relu,
    changed_twice_by_two_names: lambda y: F.relu((y + 1) * 2),
    written_by_out: lambda y: F.relu(y + y.flip(2)),
}


@pytest.mark.parametrize("method", ["srd", "attnlrp"])
@pytest.mark.parametrize("function", WRITTEN, ids=lambda f: f.__name__)
def test_what_is_written_in_place_is_seen_by_all_its_views(function: Callable[[Tensor], Tensor], method: str) -> None:
    assert off(seeded(Through, function), seeded(Through, WRITTEN[function]), method) < 1e-12


def test_the_recorded_pass_is_the_network_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that computes something else is found, and named with its module."""
    monkeypatch.setattr("ierf.rules.srd_activations._call_first", lambda func, rest, kwargs, v: 1.01 * func(v, *rest))
    net = seeded(Through, F.relu)
    with pytest.raises(ierf.IerfError, match=r"differ by .*first behind the operation 'relu'"):
        ierf.attribute(net, picture())
    assert ierf.attribute(ierf.VisionModel(net, verify=False), picture()).isfinite().all()


def test_a_comparison_costs_one_pass_once() -> None:
    calls: list[int] = []
    net = seeded(Through, lambda y: (calls.append(1), F.relu(y))[1])
    counts = []
    for _ in range(3):
        calls.clear()
        ierf.attribute(net, picture(), target=0)
        counts.append(len(calls))
    assert counts == [2, 1, 1]


def test_batch_statistics_in_evaluation() -> None:
    class Trained(Through):
        def __init__(self) -> None:
            super().__init__(lambda y: F.batch_norm(y, self.mean, self.var, training=True).relu())
            self.mean, self.var = torch.zeros(8).double(), torch.ones(8).double()

    net, x = seeded(Trained), picture()

    def standardised(y: Tensor) -> Tensor:
        mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
        return ((y - mean) / (var + 1e-5).sqrt()).relu()

    plain = seeded(Through, standardised)
    with relevance_pass(ierf.VisionModel(net), x, "srd", {}) as run:
        torch.testing.assert_close(run.logits, plain(x), rtol=1e-9, atol=1e-9)


# What only looks, and what computes out of sight


@pytest.mark.parametrize("method", [*METHODS, "gradient"])
def test_backward_hooks_that_only_look_change_nothing(method: str) -> None:
    net = seeded(Through, nn.ReLU(inplace=False))
    looked = copy.deepcopy(net)
    for module in (looked.c2, looked.function):
        module.register_full_backward_hook(lambda module, into, out: None)
    assert off(looked, net, method) < 1e-12


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.sigmoid() * (1 + x * (1 - x.sigmoid()))


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) * 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (Swish.apply, "custom autograd function 'Swish'"),
        (lambda y: y + Swish.apply(y), "custom autograd function 'Swish'"),
        (torch.jit.script(Branch()), "scripted, traced or compiled part in the module 'function'"),
        (torch.jit.trace(Branch(), torch.ones(1, 8, 4, 4)), "scripted, traced or compiled part"),
    ],
)
def test_what_computes_out_of_sight_is_refused_by_name(function: Any, name: str, method: str) -> None:
    with pytest.raises(ierf.IerfError, match=name):
        ierf.attribute(seeded(Through, function), picture(), target=1, method=method)


def test_weights_computed_from_weights_are_no_hidden_path() -> None:
    class Normalised(Through):
        def __init__(self) -> None:
            super().__init__(F.relu)
            self.c1 = nn.utils.parametrizations.weight_norm(self.c1)

    assert ierf.check_conservation(seeded(Normalised), picture()).conserved(1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks_run_open(reentrant: bool, method: str) -> None:
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True)).double()
    net = seeded(Through, lambda y: checkpoint(block, y.relu(), use_reentrant=reentrant))
    assert off(net, seeded(Through, lambda y: block(y.relu())), method) < 1e-12


# Heads


class Head(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).mean((2, 3)))
        return logits


@pytest.mark.parametrize("target", [None, 0, lambda y: y[:, 0]])
def test_one_output_has_no_classes_to_be_centred_on(target: Any) -> None:
    """The map sums to the output less its bias: with one linear layer behind the average, all of Φ."""
    net, x = seeded(Head, 1), picture()
    expected = net(x)[:, 0] - net.head.bias
    torch.testing.assert_close(ierf.attribute(net, x, target).sum((1, 2)), expected, rtol=1e-9, atol=1e-9)


def test_functions_of_an_embedding_are_told_apart() -> None:
    net, x, t = seeded(Head, 6), picture(), picture(6)
    for text in (t, t + 5):
        expected = net(x) @ text - net.head.bias @ text
        found = ierf.attribute(net, x, lambda z, text=text: z @ text).sum((1, 2))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


class Segmenting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down(x)
        logits: Tensor = self.out(torch.cat([a, self.up(self.deep(a)).relu()], 1))
        return logits


def test_a_pixel_of_a_dense_output_is_explained_by_what_it_sees() -> None:
    class Picking(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)[:, 1, 6, 6]

    net, x = seeded(Segmenting), picture(1, 3, 32, 32)
    here, there = (ierf.attribute(net, x, lambda y, i=i: y[:, 1, i, i]) for i in (6, 26))
    assert float(here[0, 16:, 16:].abs().sum()) == 0 == float(there[0, :16, :16].abs().sum())
    expected = float(net(x)[0, 1, 6, 6] - net.out.bias[1])
    assert float(here.sum()) == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(ierf.attribute(Picking(net).eval(), x), here, rtol=1e-9, atol=1e-12)


def test_an_encoder_that_runs_twice_is_refused() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            d = (self.head(self.body(x[:, :3])) - self.head(self.body(x[:, 3:]))).square().sum(1)
            return torch.stack([-d, d], 1)

    with pytest.raises(ierf.IerfError, match="runs 2 times"):
        ierf.attribute(seeded(Siamese), picture(2, 6, 16, 16), 0, encoder="body.1")


def test_an_embedding_is_explained_by_its_norm_and_says_so() -> None:
    net, x = seeded(Head, 6), picture()
    model = ierf.VisionModel(net, outputs="features")
    with pytest.warns(UserWarning, match="embedding, not classes: the map explains its norm"):
        found = ierf.attribute(model, x)
    torch.testing.assert_close(found, ierf.attribute(net, x, lambda z: z.norm(dim=1)), rtol=1e-9, atol=1e-12)


def test_a_target_without_a_gradient_is_one_sentence() -> None:
    with pytest.raises(ierf.IerfError, match="does not depend on the network's output"):
        ierf.attribute(seeded(Head, 3), picture(), lambda y: y.detach()[:, 0])


def test_a_map_of_zeros_is_not_silent() -> None:
    net = seeded(Head, 2)
    nn.init.zeros_(net.head.weight)
    with pytest.warns(UserWarning, match="the map of sample 0, 1 is zero"):
        ierf.attribute(net, picture(), 0)


# Axes


@pytest.mark.parametrize("method", ["srd", "attnlrp", "gradient", "gradcam", "integrated_gradients", "kernel_shap"])
def test_channels_last_and_frames_first_give_maps_over_positions(method: str) -> None:
    class Last(Head):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.permute(0, 3, 1, 2))

    options = {"samples": 40, "patch": 6} if method == "kernel_shap" else {}
    x = picture()
    maps = ierf.attribute(seeded(Last, 5), x.permute(0, 2, 3, 1), 1, method, **options)
    torch.testing.assert_close(maps, ierf.attribute(seeded(Head, 5), x, 1, method, **options), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["srd", "attnlrp", "gradient_x_input"])
def test_frames_before_channels(method: str) -> None:
    class Video(Head):
        def forward(self, x: Tensor) -> Tensor:
            frames = super().forward(x.flatten(0, 1))
            return frames.view(*x.shape[:2], -1).mean(1)

    net, x = seeded(Video, 5), picture(2, 4, 3, 16, 12)
    maps = ierf.attribute(net, x, 1, method, **({"encoder": "body.3", "head": "raw"} if method == "srd" else {}))
    options = {"head": "raw"} if method == "srd" else {}
    alone = torch.stack([ierf.attribute(seeded(Head, 5), x[:, i], 1, method, **options) for i in range(4)], 1)
    torch.testing.assert_close(maps, alone / 4, rtol=1e-9, atol=1e-12)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "loop": lambda y: torch.stack([F.elu(z) for z in y]),
    "index": lambda y: torch.stack([F.elu(y[i]) for i in range(len(y))]),
    "einsum to the end": lambda y: F.elu(torch.einsum("nchw->nhwc", y)).permute(0, 3, 1, 2),
    "merged with samples": lambda y: F.elu(y.reshape(-1, *y.shape[2:])).reshape(y.shape),
    "heads": lambda y: F.elu(y.unflatten(1, (2, 4)).transpose(1, 2)).transpose(1, 2).flatten(1, 2),
    "flat": lambda y: F.elu(y.flatten(2)).view(y.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sharing_is_over_channels_whatever_their_layout(layout: str) -> None:
    assert off(seeded(Through, LAYOUTS[layout]), seeded(Through, F.elu), "srd") < 1e-12


class Positioned(Through):
    """Adds a constant that is shaped after the map."""

    def __init__(self, how: str) -> None:
        super().__init__(lambda y: y.relu() + self.placed(y))
        self.how, self.p = how, nn.Parameter(torch.randn(1, 8, 1, 1))

    def placed(self, y: Tensor) -> Tensor:
        return {
            "plain": lambda: self.p,
            "type_as": lambda: self.p.type_as(y),
            "expand_as": lambda: self.p.expand_as(y),
            "view_as": lambda: self.p.expand(y.shape).contiguous().view_as(y),
            "to": lambda: self.p.to(y),
        }[self.how]()


@pytest.mark.parametrize("method", [*METHODS, "gradcam", "fullgrad"])
@pytest.mark.parametrize("how", ["type_as", "expand_as", "view_as", "to"])
def test_a_constant_shaped_after_a_map_stays_a_constant(how: str, method: str) -> None:
    assert off(seeded(Positioned, how), seeded(Positioned, "plain"), method) < 1e-9


def test_coordinates_joined_to_a_map_leave_their_relevance_on_their_positions() -> None:
    class Coordinates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(10, 8, 3, padding=1)
            self.fc = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.c1(x))
            rows = torch.linspace(-1, 1, y.shape[2]).to(y)[:, None].expand(len(y), 2, *y.shape[2:])
            logits: Tensor = self.fc(F.relu(self.c2(torch.cat([y, rows], 1))).mean((2, 3)))
            return logits

    assert ierf.check_conservation(seeded(Coordinates), picture(), target=1).conserved(1e-9)


def test_what_steers_is_a_constant() -> None:
    """A grid computed from the picture, and the same numbers as a constant."""

    class Steered(Through):
        def __init__(self, constant: bool) -> None:
            super().__init__(self.sampled)
            self.constant, self.where = constant, nn.Linear(8, 6)

        def sampled(self, y: Tensor) -> Tensor:
            theta = self.where(y.mean((2, 3))).view(-1, 2, 3)
            grid = F.affine_grid(theta.detach() if self.constant else theta, y.shape, align_corners=False)
            return F.grid_sample(y, grid, align_corners=False).relu()

    for method in ("srd", "attnlrp"):
        assert off(seeded(Steered, False), seeded(Steered, True), method) < 1e-12


SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "max with zeros": (lambda y: torch.max(y, torch.zeros_like(y)), lambda y: torch.maximum(y, torch.zeros_like(y))),
    "x sigmoid(x)": (lambda y: y * torch.sigmoid(y), F.silu),
    "x / (1 + exp(-x))": (lambda y: y / (1 + torch.exp(-y)), F.silu),
    "x (x > 0)": (lambda y: y * (y > 0), F.relu),
    "where": (lambda y: torch.where(y > 0, y, 0.1 * y), lambda y: F.leaky_relu(y, 0.1)),
    "masked_fill": (lambda y: y.masked_fill(y < 0, 0), F.relu),
    "max(x, 0.1 x)": (lambda y: torch.max(y, 0.1 * y), lambda y: F.leaky_relu(y, 0.1)),
}


@pytest.mark.parametrize("method", ["srd", "attnlrp"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_function_has_one_rule(spelling: str, method: str) -> None:
    one, other = SPELLINGS[spelling]
    assert off(seeded(Through, one), seeded(Through, other), method) < 1e-9


LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "cpu": lambda y: y.cpu(),
    "t": lambda y: y.flatten(1).t().t().view_as(y),
    "index_add": lambda y: torch.zeros_like(y).index_add(1, torch.arange(8), y),
    "scatter_add": lambda y: torch.zeros_like(y).scatter_add(1, torch.arange(8).view(1, 8, 1, 1).expand(y.shape), y),
    "broadcast_tensors": lambda y: torch.broadcast_tensors(y, torch.zeros(1, 8, 1, 1))[0],
    "copy_": lambda y: torch.empty_like(y).copy_(y),
    "tensordot": lambda y: torch.tensordot(y, torch.eye(8).double(), ([1], [0])).permute(0, 3, 1, 2),
    "requires_grad_": lambda y: y.requires_grad_(),
}


@pytest.mark.parametrize("name", LINEAR)
def test_identities_by_linear_operations(name: str) -> None:
    net = seeded(Through, lambda y: LINEAR[name](F.relu(y)))
    assert off(net, seeded(Through, F.relu), "srd") < 1e-12


def test_unpooling_leads_back_to_the_winners() -> None:
    net = seeded(Through, lambda y: F.max_unpool2d(*F.max_pool2d(y.relu(), 2, return_indices=True), 2))
    assert ierf.check_conservation(net, picture(), target=1).conserved(1e-9)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("norm", [False, True])
def test_the_bias_of_a_transposed_convolution_by_its_definition(norm: bool, stride: int) -> None:
    """`e_j ‖v̂_ij‖ / Σ_i' ‖v̂_i'j‖` for each output position, with `v̂_ij` from one input position at a time."""
    torch.manual_seed(2)
    up = nn.ConvTranspose2d(4, 3, 3, stride, padding=1).double()
    after = nn.BatchNorm2d(3).double().eval()
    nn.init.normal_(after.bias), nn.init.uniform_(after.weight)
    body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()).double()
    tail = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)).double()
    net = nn.Sequential(*body, up, *([after] if norm else []), *tail).eval()
    x = picture(1, 2, 4, 5)
    net(x)
    layer = "4" if norm else "3"
    with torch.no_grad():
        a = body(x)
        whole = nn.Sequential(up, after) if norm else up
        shift = whole(torch.zeros_like(a))
        v = whole(a)
        expected = torch.zeros(4, 5).double()
        relevance = v.relu().square().sum(1)[0]
        parts = {}
        for i in range(4):
            for j in range(5):
                alone = torch.zeros_like(a)
                alone[0, :, i, j] = a[0, :, i, j]
                parts[i, j] = (whole(alone) - shift)[0]
        total = sum(part.norm(dim=0) for part in parts.values())
        size = v[0].square().sum(0)
        for (i, j), part in parts.items():
            share = part.norm(dim=0) / total.masked_fill(total == 0, torch.inf)
            ratio = ((part * v[0]).sum(0) + share * (shift[0] * v[0]).sum(0)) / size.masked_fill(size == 0, torch.inf)
            expected[i, j] = (ratio * relevance).sum()
    start = ierf.targets.Relevance(layer, relevance[None])
    found = ierf.attribute(net, x, start, resolution="1")[0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


# Gates


@pytest.mark.parametrize("method", ["attnlrp", "cp_lrp"])
def test_a_gate_that_does_not_carry_the_map_is_a_constant(method: str) -> None:
    """Squeeze and excite: all relevance goes to the map, as with the gate's numbers given."""

    class Excited(Through):
        def __init__(self, constant: bool) -> None:
            super().__init__(self.gated)
            self.constant, self.gate = constant, nn.Conv2d(8, 8, 1)

        def gated(self, y: Tensor) -> Tensor:
            g = torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
            return y.relu() * (g.detach() if self.constant else g)

    assert off(seeded(Excited, False), seeded(Excited, True), method) < 1e-12


@pytest.mark.parametrize("method", ["srd", "attnlrp"])
def test_a_root_as_a_feature_carries_relevance(method: str) -> None:
    """Generalised-mean pooling: without a bias behind it, all that arrives leaves."""

    class Generalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c2 = (nn.Conv2d(c, 8, 3, padding=1, bias=False) for c in (3, 8))
            self.fc = nn.Linear(8, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.c2(F.relu(self.c1(x)))).clamp(min=1e-6)
            logits: Tensor = self.fc(y.pow(3).mean((2, 3)).pow(1 / 3))
            return logits

    ledger = ierf.check_conservation(seeded(Generalised), picture(), method, target=1)
    assert abs(ledger.relevance_in) > 1e-3
    assert ledger.conserved(1e-4)


def test_a_convolution_without_batch_norm_leaks_nothing_under_the_gamma_rule() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c2 = (nn.Conv2d(c, 8, 3, padding=1, bias=False) for c in (3, 8))
            self.fc = nn.Linear(8, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(F.relu(self.c2(F.relu(self.c1(x)))).mean((2, 3)))
            return logits

    ledger = ierf.check_conservation(seeded(Plain), picture(), "attnlrp", target=1)
    assert ledger.conserved(1e-9)
    for entry in ledger.entries:
        assert abs(entry.unexplained) < 1e-9 * abs(ledger.relevance_in)
        assert all(abs(leak.amount) < 1e-9 * abs(ledger.relevance_in) for leak in entry.leaks)


# Words


class Probe(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.body, self.head = how, nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "detach":
            y = self.body(x).detach()
        else:
            with torch.no_grad():
                y = self.body(x)
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits


@pytest.mark.parametrize("method", ["srd", "attnlrp", "gradient", "gradcam", "integrated_gradients"])
@pytest.mark.parametrize("how", ["no_grad", "detach"])
def test_a_backbone_without_gradients_is_named(how: str, method: str) -> None:
    with pytest.raises(ierf.IerfError, match=r"no_grad|detach"):
        ierf.attribute(seeded(Probe, how), picture(), target=1, method=method)


class Lowered(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.net = how, Through(F.relu)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.net(x).float()  # type: ignore[no-any-return]
        return self.net(x.half() if self.how == "half" else x.to(torch.bfloat16))  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["srd", "attnlrp", "gradient"])
@pytest.mark.parametrize("how", ["autocast", "half", "to"])
def test_casts_inside_a_forward_do_not_lower_the_precision(how: str, method: str) -> None:
    torch.manual_seed(0)
    net, x = Lowered(how).eval(), picture().float()
    net = net if how == "autocast" else net.half()
    expected = ierf.attribute(copy.deepcopy(net.net).float(), x, 1, method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ierf.attribute(net, x, 1, method)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_network_that_normalises_its_input_in_place_leaves_it_alone() -> None:
    class Normalising(Through):
        def __init__(self) -> None:
            super().__init__(F.relu)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5).div_(2.0))

    net, plain, x = seeded(Normalising), seeded(Through, F.relu), picture()
    before = x.clone()
    for method in ("gradient", "srd", "integrated_gradients"):
        ierf.attribute(net, x, 1, method)
    assert torch.equal(x, before)
    expected = ierf.attribute(plain, (x - 0.5) / 2, 1, "gradient") / 2
    torch.testing.assert_close(ierf.attribute(net, x, 1, "gradient"), expected, rtol=1e-9, atol=1e-12)


def test_one_prediction_for_a_bag_of_patches_is_named() -> None:
    class Bag(Head):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).mean(0, keepdim=True)

    with pytest.raises(ierf.IerfError, match=r"\(1, 3\) for 2 pictures.*bag"):
        ierf.attribute(seeded(Bag, 3), picture())


@pytest.mark.parametrize("method", ["srd", "attnlrp", "gradient", "gradcam"])
def test_a_network_that_yields_nan_says_where(method: str) -> None:
    net = seeded(Head, 3)
    net.body[2].weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ierf.IerfError, match=r"NaN or infinity, first in the module 'body\.2'"):
        ierf.attribute(net, picture(), method=method)


def test_integer_and_lazy_networks_are_named() -> None:
    quantised = torch.ao.quantization.quantize_dynamic(Head(3).eval(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(ierf.IerfError, match="quantised"):
        ierf.attribute(quantised, picture().float())
    lazy = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5))
    with pytest.raises(ierf.IerfError, match="lazy"):
        ierf.attribute(lazy, picture().float())


def test_a_network_out_of_torch_export_is_explained_as_it_was() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    ).eval()
    x = picture().float()
    exported = torch.export.export(net, (x,)).module()
    for method in ("srd", "attnlrp"):
        assert off(exported, net, method, x) < 1e-4


def test_four_threads_on_one_network_in_training_mode() -> None:
    from concurrent.futures import ThreadPoolExecutor

    class Dropped(Through):
        def __init__(self) -> None:
            super().__init__(nn.Sequential(nn.ReLU(), nn.Dropout(0.5)))

    net = seeded(Dropped).train()
    xs = [picture(2, 3, 16, 12) * (i + 1) for i in range(12)]
    expected = [ierf.attribute(net, x, 1) for x in xs]

    def explained(i: int) -> Tensor:
        with [torch.no_grad, torch.inference_mode, torch.enable_grad][i % 3]():
            return ierf.attribute(net, xs[i], 1)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(explained, range(12)))
    assert net.training
    assert net.function[1].training
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.clone(), other, rtol=1e-9, atol=1e-12)
