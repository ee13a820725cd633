"""The baseline explainers against loops, closed forms and explicit matrices that share nothing with them."""

from itertools import combinations
from math import factorial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ierf
from ierf.attribution.fullgrad import full_gradients
from ierf.attribution.integrated_gradients import completeness_error
from ierf.attribution.kernel_shap import coalitions, shapley_values
from ierf.attribution.targets import PFV, Channel, Direction, Logit, Relevance
from ierf.errors import IerfError, UnknownNameError, UnsupportedOperationError


class Encoder(nn.Module):
    """Convolutions with batch-norm and a shortcut, functional ReLUs, a head of two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.body, self.body_norm = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 8, 3, stride=2)
        self.hidden, self.head = nn.Linear(8, 9), nn.Linear(9, 5)
        for norm in (self.norm, self.body_norm):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def features(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        x = F.relu(self.body_norm(self.body(x)) + x)
        return F.relu(self.last(x))

    def classify(self, a: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.hidden(a.mean((2, 3)))))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))


@pytest.fixture
def net() -> Encoder:
    return Encoder().double().eval().requires_grad_(False)


def pictures(n: int = 3, size: tuple[int, int] = (16, 13)) -> Tensor:
    return torch.randn(n, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(11))


def same(one: Tensor, other: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


def slope_at_features(net: Encoder, x: Tensor, classes: list[int]) -> tuple[Tensor, Tensor]:
    a = net.features(x).requires_grad_()
    (slope,) = torch.autograd.grad(net.classify(a)[range(len(x)), classes].sum(), a)
    return a.detach(), slope


CLASSES = [1, 4, 0]


# --- integrated gradients -------------------------------------------------------------------------------------------


class Quadratic(nn.Module):
    """y_k = xᵀ Q_k x + ⟨c_k, x⟩, whose integrated gradients from 0 are x ⊙ (Q_k x + c_k) with symmetric Q_k."""

    def __init__(self, n: int) -> None:
        super().__init__()
        q = torch.randn(5, n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.q, self.c = nn.Parameter(q + q.mT), nn.Parameter(q[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.einsum("ni,kij,nj->nk", flat, self.q, flat) + flat @ self.c.T


@pytest.mark.parametrize("steps", [1, 5])
def test_integrated_gradients_of_a_quadratic_are_its_closed_form(steps: int) -> None:
    x, quadratic = pictures(3, (3, 2)), Quadratic(18)
    flat = x.flatten(1)
    wanted = flat * (torch.einsum("nij,nj->ni", quadratic.q[CLASSES], flat) + quadratic.c[CLASSES])
    found = ierf.attribute(quadratic, x, CLASSES, "integrated_gradients", steps=steps)
    same(found, wanted.view_as(x).sum(1).detach())
    assert float(completeness_error(quadratic, x, CLASSES, steps=steps).abs().max()) < 1e-11


@pytest.mark.parametrize("baseline", [0.3, torch.full((3, 1, 1), -0.2), torch.randn(3, 3, 16, 13)])
def test_integrated_gradients_are_a_loop_over_the_way(net: Encoder, baseline: Any) -> None:
    x = pictures()
    start = torch.as_tensor(baseline).double().expand_as(x)
    alphas = [0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5]  # Gauss-Legendre with three points on [0, 1]
    total = torch.zeros_like(x)
    for alpha, weight in zip(alphas, (5 / 18, 8 / 18, 5 / 18), strict=True):
        point = (start + alpha * (x - start)).requires_grad_()
        total += weight * torch.autograd.grad(net(point)[range(3), CLASSES].sum(), point)[0]
    found = ierf.attribute(net, x, CLASSES, "integrated_gradients", baseline=baseline, steps=3, batch=2)
    same(found, (total * (x - start)).sum(1), 1e-7 if isinstance(baseline, float) else 1e-12)


def test_completeness_error_is_what_the_map_lacks_and_vanishes_with_the_steps(net: Encoder) -> None:
    x = pictures()
    lost = [completeness_error(net, x, CLASSES, steps=steps) for steps in (4, 512)]
    rows = range(3)
    gained = net(x)[rows, CLASSES] - net(torch.zeros_like(x))[rows, CLASSES]
    same(ierf.attribute(net, x, CLASSES, "integrated_gradients", steps=4).sum((1, 2)) - gained, lost[0], 1e-10)
    assert float(lost[1].abs().max()) < 1e-3 < float(lost[0].abs().max())


# --- noise and rectifiers -------------------------------------------------------------------------------------------


def test_smoothgrad_averages_gradients_of_noisy_copies(net: Encoder) -> None:
    x = pictures()
    found = ierf.attribute(net, x, CLASSES, "smoothgrad", samples=4000, batch=1000)
    generator = torch.Generator().manual_seed(99)
    sigma = 0.15 * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))
    total = torch.zeros_like(x)
    for _ in range(40):
        noise = torch.randn(100, *x.shape, generator=generator, dtype=torch.float64) * sigma.view(-1, 1, 1, 1)
        point = (x + noise).flatten(0, 1).requires_grad_()
        y = net(point).view(100, 3, -1)[:, range(3), CLASSES].sum()
        total += torch.autograd.grad(y, point)[0].view(100, *x.shape).sum(0) / 4000
    deviation = (found - total.abs().amax(1)).norm() / found.norm()
    assert deviation < 0.1


def test_smoothgrad_without_noise_is_the_gradient_and_its_seed_matters(net: Encoder) -> None:
    x = pictures()
    same(ierf.attribute(net, x, 2, "smoothgrad", noise=0.0, samples=3), ierf.attribute(net, x, 2, "gradient"))
    noisy = [ierf.attribute(net, x, 2, "smoothgrad", samples=3, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.allclose(noisy[0], noisy[2])


@pytest.mark.parametrize("form", ["module", "functional", "in place"])
def test_guided_backpropagation_by_hand(form: str) -> None:
    torch.manual_seed(0)
    first, second, third = nn.Linear(12, 9), nn.Linear(9, 7), nn.Linear(7, 3)

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third, self.relu = first, second, third, nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            relu: Any = {"module": self.relu, "functional": F.relu, "in place": torch.relu_}[form]
            logits: Tensor = self.third(relu(self.second(relu(self.first(x.flatten(1))))))
            return logits

    layers, x = Layers().double(), pictures(2, (2, 2))
    z1 = first(x.flatten(1))
    z2 = second(z1.relu())
    g2 = third.weight[1].expand(2, -1).clamp_min(0) * (z2 > 0)
    g1 = (g2 @ second.weight).clamp_min(0) * (z1 > 0)
    same(ierf.attribute(layers, x, 1, "guided_backprop"), (g1 @ first.weight).view_as(x).abs().amax(1).detach())


@pytest.mark.parametrize("guided", [nn.ReLU6(), nn.Hardtanh(0, 3), nn.Hardtanh(-3, 3)])
def test_a_clamp_that_cuts_off_at_zero_is_a_rectifier(guided: nn.Hardtanh) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 7), guided, nn.Linear(7, 3)).double()
    x = pictures(4, (2, 2))
    z1 = net[1](x.flatten(1))
    z2 = net[3](z1.relu())
    g2 = net[5].weight[1].expand(4, -1)
    g2 = (g2.clamp_min(0) if guided.min_val == 0 else g2) * ((z2 > guided.min_val) & (z2 < guided.max_val))
    g1 = (g2 @ net[3].weight).clamp_min(0) * (z1 > 0)
    same(ierf.attribute(net, x, 1, "guided_backprop"), (g1 @ net[1].weight).view_as(x).abs().amax(1).detach())


def test_guided_backpropagation_needs_a_rectifier() -> None:
    with pytest.raises(IerfError, match="has none"):
        ierf.attribute(Quadratic(18), pictures(1, (3, 2)), 0, "guided_backprop")


# --- targets at a layer ---------------------------------------------------------------------------------------------

AT_A_LAYER = ["gradient", "gradient_x_input", "integrated_gradients", "smoothgrad", "guided_backprop", "kernel_shap"]
BY_RULES = ["attnlrp", "cp_lrp"]


@pytest.mark.parametrize("method", AT_A_LAYER + BY_RULES)
def test_a_channel_and_a_direction_are_logits_of_a_network_that_ends_there(net: Encoder, method: str) -> None:
    """Σ_i ⟨a_i, d⟩ as the one logit of a network made for it."""
    x = pictures()
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(1)).double()
    options = {"kernel_shap": {"patch": 8}, "smoothgrad": {"samples": 4}, "integrated_gradients": {"steps": 4}}

    class Cut(nn.Module):
        def __init__(self, vector: Tensor, position: tuple[int, int] | None = None) -> None:
            super().__init__()
            self.net, self.vector, self.position = net, vector, position

        def forward(self, x: Tensor) -> Tensor:
            y = F.max_pool2d(F.relu(net.norm(net.stem(x))), 2)
            y = net.last(F.relu(net.body_norm(net.body(y)) + y))
            read = torch.einsum("nkhw,k->nhw", y, self.vector)
            return read.sum((1, 2))[:, None] if self.position is None else read[(..., *self.position)][:, None]

    def explained(model: nn.Module, x: Tensor, target: Any) -> Tensor:
        return ierf.attribute(model, x, target, method, **options.get(method, {}))

    each = torch.cat([explained(Cut(vectors[i]), x[i : i + 1], 0) for i in range(3)])
    same(explained(net, x, Direction("last", vectors)), each, 1e-10)
    unit = torch.eye(8).double()
    same(explained(net, x, Channel("last", 5)), explained(Cut(unit[5]), x, 0), 1e-10)
    there = [(0, 1), (2, 0), (1, 1)]
    each = torch.cat([explained(Cut(unit[i], there[i]), x[i : i + 1], 0) for i in range(3)])
    same(explained(net, x, Direction("last", unit[:3], there)), each, 1e-10)
    together = explained(net, x[1:2], Direction("last", vectors[0], (2, 0)))
    same(together, explained(Cut(vectors[0], (2, 0)), x[1:2], 0), 1e-10)


# --- class activation maps ------------------------------------------------------------------------------------------


def test_grad_cam_plus_plus_by_loops(net: Encoder) -> None:
    x = pictures()
    a, g = slope_at_features(net, x, CLASSES)
    wanted = torch.zeros(3, *a.shape[2:]).double()
    for n in range(3):
        for k in range(8):
            total, w = float(a[n, k].sum()), 0.0
            for gij in g[n, k].flatten().tolist():
                denominator = 2 * gij**2 + total * gij**3
                w += (gij**2 / denominator if denominator else 0.0) * max(gij, 0.0)
            wanted[n] += w * a[n, k]
    same(ierf.attribute(net, x, CLASSES, "gradcam_pp", "low"), wanted.relu())


def test_grad_xgrad_and_layer_cam_by_loops(net: Encoder) -> None:
    x = pictures()
    a, g = slope_at_features(net, x, CLASSES)
    cams = {name: torch.zeros(3, *a.shape[2:]).double() for name in ("gradcam", "xgradcam", "layercam")}
    for n in range(3):
        for k in range(8):
            cams["gradcam"][n] += g[n, k].mean() * a[n, k]
            total = float(a[n, k].sum())
            if total:
                cams["xgradcam"][n] += sum((a[n, k] / total * g[n, k]).flatten().tolist()) * a[n, k]
            for i, j in torch.cartesian_prod(*map(torch.arange, a.shape[2:])).tolist():
                cams["layercam"][n, i, j] += max(float(g[n, k, i, j]), 0.0) * a[n, k, i, j]
    for name, wanted in cams.items():
        same(ierf.attribute(net, x, CLASSES, name, "low"), wanted.relu())


def test_score_cam_by_a_loop_over_channels(net: Encoder) -> None:
    x = pictures()
    a = net.features(x)
    for n, c in enumerate(CLASSES):
        scores = []
        for k in range(8):
            mask = F.interpolate(a[n : n + 1, k : k + 1], x.shape[2:], mode="bilinear")[0, 0]
            span = mask.max() - mask.min()
            mask = (mask - mask.min()) / span if span > 0 else torch.zeros_like(mask)
            scores.append(net((x[n] * mask)[None])[0, c] - net(torch.zeros_like(x[:1]))[0, c])
        wanted = torch.einsum("k,khw->hw", torch.stack(scores).softmax(0), a[n]).relu()
        same(ierf.attribute(net, x, CLASSES, "scorecam", "low", batch=3)[n], wanted)


@pytest.mark.parametrize("layer", ["low", "body_norm", "stem"])
def test_ablation_cam_by_a_loop_over_channels(net: Encoder, layer: str) -> None:
    x = pictures()

    def cut(n: int, k: int | None) -> tuple[Tensor, Tensor]:
        """The layer's map and the logits, with channel k set to zero."""
        kept: list[Tensor] = []

        def silence(y: Tensor) -> Tensor:
            kept.append(y.clone())
            return y if k is None else y * (torch.arange(y.shape[1]) != k).view(-1, 1, 1)

        if layer == "low":
            return net.features(x[n : n + 1])[0], net.classify(silence(net.features(x[n : n + 1])))[0]
        handle = net.get_submodule(layer).register_forward_hook(lambda module, args, y: silence(y))
        logits = net(x[n : n + 1])[0]
        handle.remove()
        return kept[0][0], logits

    found = ierf.attribute(net, x, CLASSES, "ablationcam", layer, batch=4)
    for n, c in enumerate(CLASSES):
        a, whole = cut(n, None)
        weights = torch.stack([(whole[c] - cut(n, k)[1][c]) / whole[c].abs() for k in range(len(a))])
        same(found[n], torch.einsum("k,khw->hw", weights, a).relu())


def test_a_cam_can_take_any_layer_as_the_encoder(net: Encoder) -> None:
    x = pictures()
    for method in ("gradcam", "gradcam_pp", "xgradcam", "layercam", "scorecam", "ablationcam"):
        small = ierf.attribute(net, x, CLASSES, method, "body_norm")
        wide = F.interpolate(small[:, None], x.shape[2:], mode="bilinear")[:, 0]
        same(ierf.attribute(net, x, CLASSES, method, encoder="body_norm"), wide)


# --- FullGrad -------------------------------------------------------------------------------------------------------


def test_full_gradients_are_the_explicit_gradients_of_all_biases(net: Encoder) -> None:
    """By parameters: the gradient by a bias, summed over positions, times the bias."""
    x = pictures(1)
    parts = full_gradients(net, x, 4)
    net.requires_grad_()
    logit = net(x)[0, 4]
    layers: dict[str, Any] = {name: net.get_submodule(name) for name in ("norm", "body", "body_norm", "last", "hidden")}
    assert {name.split(": ")[1] for name in parts.biases} == {*layers, "head"}
    for name, layer in layers.items():
        (slope,) = torch.autograd.grad(logit, layer.bias, retain_graph=True)
        bias = layer.bias
        if isinstance(layer, nn.BatchNorm2d):
            bias = bias - layer.weight * layer.running_mean / (layer.running_var + layer.eps).sqrt()
        (found,) = [part for key, part in parts.biases.items() if key.endswith(f": {name}")]
        same(found.view(1, len(bias), -1).sum((0, 2)), (bias * slope).detach())


def test_the_parts_of_full_gradients_sum_to_the_logit(net: Encoder) -> None:
    x = pictures()
    same(full_gradients(net, x, CLASSES).total, net(x)[range(3), CLASSES])


def test_the_parts_sum_to_the_logit_with_any_operations() -> None:
    class Curved(Encoder):
        def features(self, x: Tensor) -> Tensor:
            x = F.gelu(self.norm(self.stem((x - 0.3) / 0.5)))
            x = F.layer_norm(self.body(x), x.shape[1:]) * x.mean((2, 3), keepdim=True).sigmoid()
            return F.softplus(self.last(F.pad(x, (1, 1), value=0.2)))

    curved, x = Curved().double().eval(), pictures()
    same(full_gradients(curved, x, CLASSES).total, curved(x)[range(3), CLASSES].detach(), 1e-11)


def test_fullgrad_is_the_papers_sum_of_rescaled_maps(net: Encoder) -> None:
    x = pictures(3, (18, 18))  # maps of 18, 9 and 4 pixels
    parts = full_gradients(net, x, CLASSES)
    wanted = torch.zeros(3, 18, 18).double()
    for part in (parts.pixels, *parts.biases.values()):
        for n in range(3):
            if part.ndim == 4:
                strength = part[n].abs()
                strength = (strength - strength.min()) / (strength.max() - strength.min())
                wanted[n] += F.interpolate(strength[None], (18, 18), mode="bilinear")[0].sum(0)
    same(ierf.attribute(net, x, CLASSES, "fullgrad", batch=2), wanted)
    with pytest.raises(UnknownNameError, match="rescaled"):
        ierf.attribute(net, x, 1, "fullgrad", psi="rescald")


def test_fullgrad_signed_sums_exactly_where_sides_divide() -> None:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1), nn.ReLU())
    net = nn.Sequential(features, nn.Flatten(), nn.Linear(5 * 16, 3)).double()
    x = pictures(2, (16, 16))
    same(ierf.attribute(net, x, 2, "fullgrad", psi="signed").sum((1, 2)), net(x)[:, 2].detach())


# --- LRP ------------------------------------------------------------------------------------------------------------


def as_matrix(function: Any, shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear function of a picture of this shape, (outputs, inputs)."""
    n = torch.Size(shape).numel()
    return torch.stack([function(e.view(1, *shape)).flatten() for e in torch.eye(n).double()], 1)


def zplus(w: Tensor, a: Tensor, r: Tensor) -> Tensor:
    speaks = (w * a).clamp_min(0)
    return (speaks / speaks.sum(1, keepdim=True) * r[:, None]).nan_to_num().sum(0)


def test_lrp_zplus_by_explicit_matrices() -> None:
    """Two convolutions, the second folded with its batch-norm, and a linear head."""
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, 2), nn.BatchNorm2d(5), nn.ReLU(),
        nn.Flatten(), nn.Linear(20, 3),
    ).double().eval().requires_grad_(False)  # fmt: skip
    first, second, norm, head = net[0], net[2], net[3], net[6]
    nn.init.normal_(norm.weight)
    norm.running_mean.normal_()
    x = pictures(2, (5, 6))
    found = ierf.attribute(net, x, 1, "lrp_zplus")
    middle = ierf.attribute(net, x, 1, "lrp_zplus", "1")
    w1 = as_matrix(lambda e: F.conv2d(e, first.weight, padding=1), (3, 5, 6))
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    w2 = as_matrix(lambda e: F.conv2d(e, second.weight * scale.view(-1, 1, 1, 1), stride=2), (4, 5, 6))
    for n in range(2):
        a1 = net[:2](x[n : n + 1]).flatten()
        a2 = net[:5](x[n : n + 1]).flatten()
        logit = net(x[n : n + 1])[0, 1]
        r2 = zplus(head.weight[1:2], a2, logit[None])
        r1 = zplus(w2, a1, r2)
        shares = w1.square() / w1.square().sum(1, keepdim=True)
        same(middle[n], r1.view(4, 5, 6).sum(0))
        same(found[n], (shares * r1[:, None]).sum(0).view(3, 5, 6).sum(0))
        torch.testing.assert_close(found[n].sum(), logit, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("resolution", ["last", "norm", "input"])
def test_lrp_zplus_conserves_the_logit_through_shortcuts_and_batch_norms(net: Encoder, resolution: str) -> None:
    x = pictures()
    for layer in (net.norm, net.body_norm, net.last, net.hidden):
        layer.bias.copy_(-0.02 * layer.bias.abs())  # nothing is made by a bias alone
    for norm in (net.norm, net.body_norm):
        norm.running_mean.abs_().mul_(0.02 * norm.weight.sign())
    logits = net(x)[range(3), CLASSES]
    same(ierf.attribute(net, x, CLASSES, "lrp_zplus", resolution).sum((1, 2)), logits, 1e-10)


def test_lrp_zplus_is_positive_for_a_positive_logit(net: Encoder) -> None:
    x = pictures()
    c = net(x).argmax(1).tolist()
    assert (net(x).amax(1) > 0).all()
    assert (ierf.attribute(net, x, c, "lrp_zplus") >= 0).all()


def test_lrp_zplus_ignores_how_the_network_normalises_its_pixels(net: Encoder) -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net((x - 0.4) / torch.tensor([0.2, 0.3, 0.1]).double().view(3, 1, 1))
            return logits

    x = pictures()
    raw = x * torch.tensor([0.2, 0.3, 0.1]).double().view(3, 1, 1) + 0.4
    same(ierf.attribute(Normalised(), raw, 1, "lrp_zplus"), ierf.attribute(net, x, 1, "lrp_zplus"), 1e-10)


def test_lrp_zplus_names_the_operation_that_it_has_no_rule_for() -> None:
    class Odd(Encoder):
        def features(self, x: Tensor) -> Tensor:
            return torch.fft.ifft2(torch.fft.fft2(super().features(x))).real

    with pytest.raises(UnsupportedOperationError, match="fft2"):
        ierf.attribute(Odd().double(), pictures(), 1, "lrp_zplus")


# --- KernelSHAP -----------------------------------------------------------------------------------------------------


def shapley_by_enumeration(worth: dict[frozenset[int], float], m: int) -> list[float]:
    values = []
    for i in range(m):
        others = [j for j in range(m) if j != i]
        value = 0.0
        for size in range(m):
            weight = factorial(size) * factorial(m - size - 1) / factorial(m)
            for coalition in map(frozenset, combinations(others, size)):
                value += weight * (worth[coalition | {i}] - worth[coalition])
        values.append(value)
    return values


def test_kernel_shap_of_few_patches_are_the_exact_shapley_values(net: Encoder) -> None:
    x, side, m = pictures(), 6, 9
    found = ierf.attribute(net, x, CLASSES, "kernel_shap", patch=side, baseline=0.1, batch=50)
    labels = (torch.arange(16) // side)[:, None] * 3 + torch.arange(13) // side
    subsets = [frozenset(s) for size in range(m + 1) for s in combinations(range(m), size)]
    for n, c in enumerate(CLASSES):
        masks = torch.stack([torch.isin(labels, torch.tensor(sorted(s), dtype=torch.long)) for s in subsets])
        scores = net(torch.where(masks[:, None], x[n], 0.1))[:, c].tolist()
        phi = shapley_by_enumeration(dict(zip(subsets, scores, strict=True)), m)
        wanted = torch.stack([phi[j] / (labels == j).sum() * (labels == j).double() for j in range(m)]).sum(0)
        same(found[n], wanted, 1e-6)


def test_sampled_shapley_values_come_near_and_are_efficient(net: Encoder) -> None:
    x = pictures()
    exact = ierf.attribute(net, x, CLASSES, "kernel_shap", patch=6)
    sampled = ierf.attribute(net, x, CLASSES, "kernel_shap", patch=6, samples=400)
    rows = range(3)
    gained = net(x)[rows, CLASSES] - net(torch.zeros_like(x))[rows, CLASSES]
    same(sampled.sum((1, 2)), gained, 1e-9)
    assert (sampled - exact).norm() < 0.25 * exact.norm()
    assert not torch.equal(sampled, ierf.attribute(net, x, CLASSES, "kernel_shap", patch=6, samples=400, seed=1))


def test_shapley_values_of_an_additive_game_are_its_terms() -> None:
    m = 12
    phi = torch.randn(2, m, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z, weight = coalitions(m, 100, seed=0)
    same(shapley_values(z.double(), weight, phi @ z.double().T, phi.sum(1)), phi, 1e-10)


def test_coalitions_come_in_pairs_of_sizes_drawn_from_the_kernel() -> None:
    z, _ = coalitions(40, 20000, seed=0)
    half = len(z) // 2
    assert torch.equal(z[:half], ~z[half:])
    size = torch.arange(1, 40)
    wanted = 1 / (size * (40 - size)).double()
    found = torch.bincount(z.sum(1), minlength=40)[1:] / len(z)
    assert float((found - wanted / wanted.sum()).abs().max()) < 0.01


@pytest.mark.parametrize("shared", [True, False])
def test_superpixels_share_a_value(net: Encoder, shared: bool) -> None:
    x = pictures()
    labels = torch.randint(0, 5, (16, 13) if shared else (3, 16, 13), generator=torch.Generator().manual_seed(2))
    found = ierf.attribute(net, x, 1, "kernel_shap", patch=labels)
    for n in range(3):
        one = labels if shared else labels[n]
        for j in range(5):
            assert len(found[n][one == j].unique()) == 1
        same(found[n : n + 1], ierf.attribute(net, x[n : n + 1], 1, "kernel_shap", patch=one), 1e-9)


# --- all of them ----------------------------------------------------------------------------------------------------

QUICK: dict[str, dict[str, Any]] = {
    "gradient": {},
    "gradient_x_input": {},
    "guided_backprop": {},
    "integrated_gradients": {"steps": 5, "batch": 7},
    "smoothgrad": {"samples": 5, "batch": 7},
    "fullgrad": {"batch": 2},
    "lrp_zplus": {},
    "attnlrp": {},
    "cp_lrp": {"conv_gamma": 0.25},
    "gradcam": {},
    "gradcam_pp": {},
    "scorecam": {"batch": 7},
    "ablationcam": {"batch": 7},
    "xgradcam": {},
    "layercam": {},
    "kernel_shap": {"patch": 4, "samples": 40, "batch": 7},
    "random": {},
}
CAMS = ["gradcam", "gradcam_pp", "scorecam", "ablationcam", "xgradcam", "layercam"]


def test_every_method_is_tested_here() -> None:
    assert {*QUICK, "srd"} == set(ierf.attribution.METHODS)


@pytest.mark.parametrize("method", QUICK)
def test_batch_mates_do_not_matter(net: Encoder, method: str) -> None:
    x = pictures()
    x[1] *= 50
    for target in (CLASSES, None):
        together = ierf.attribute(net, x, target, method, **QUICK[method])
        assert together.shape == (3, 16, 13)
        assert not together.requires_grad
        for i in range(3):
            alone = ierf.attribute(net, x[i : i + 1], target and target[i : i + 1], method, **QUICK[method])
            same(together[i : i + 1], alone, 1e-9)


@pytest.mark.parametrize("method", QUICK)
def test_every_way_to_name_a_target(net: Encoder, method: str) -> None:
    x = pictures()
    if method == "lrp_zplus":  # its relevance starts as the logit
        wanted = ierf.attribute(net, x, Logit(2), method)
    else:
        wanted = ierf.attribute(net, x, lambda y: y[:, 2], method, **QUICK[method])
    for target in (2, [2, 2, 2], Logit(2), Logit([2, 2, 2]), torch.tensor([2, 2, 2])):
        same(ierf.attribute(net, x, target, method, **QUICK[method]), wanted)


@pytest.mark.parametrize("method", QUICK)
def test_the_network_comes_back_as_it_was_from_any_surroundings(net: Encoder, method: str) -> None:
    x = pictures()
    wanted = ierf.attribute(net, x, CLASSES, method, **QUICK[method])
    net.train().requires_grad_()
    net.norm.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            same(ierf.attribute(net, x.clone(), CLASSES, method, **QUICK[method]), wanted)
    assert [m.training for m in (net, net.norm, net.body_norm)] == [True, False, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in net.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", QUICK)
def test_a_network_in_half_precision_is_explained_in_single(net: Encoder, method: str, dtype: torch.dtype) -> None:
    net.to(dtype)
    x = pictures().to(dtype)
    found = ierf.attribute(net, x, CLASSES, method, **QUICK[method])
    assert found.dtype is torch.float32
    assert {p.dtype for p in net.parameters()} == {dtype}
    same(found, ierf.attribute(net.float(), x.float(), CLASSES, method, **QUICK[method]), 1e-5)


@pytest.mark.parametrize("kind", ["black", "constant", "huge"])
@pytest.mark.parametrize("method", QUICK)
def test_awkward_pictures_give_finite_maps(net: Encoder, method: str, kind: str) -> None:
    x = {"black": torch.zeros(2, 3, 16, 13), "constant": torch.ones(2, 3, 16, 13), "huge": pictures(2) * 1e6}[kind]
    assert ierf.attribute(net.float(), x.float(), 1, method, **QUICK[method]).isfinite().all()


@pytest.mark.parametrize("method", QUICK)
def test_a_dead_network_gives_finite_maps(net: Encoder, method: str) -> None:
    for parameter in net.parameters():
        parameter.zero_()
    assert ierf.attribute(net, pictures(), 1, method, **QUICK[method]).isfinite().all()


@pytest.mark.parametrize("method", [m for m in QUICK if m not in (*AT_A_LAYER, *BY_RULES, "random")])
def test_methods_of_logits_say_so(net: Encoder, method: str) -> None:
    with pytest.raises(IerfError, match="explains logits, not a Channel"):
        ierf.attribute(net, pictures(), Channel("last", 0), method, **QUICK[method])


@pytest.mark.parametrize("method", AT_A_LAYER)
def test_methods_of_numbers_say_so(net: Encoder, method: str) -> None:
    for target in (PFV("last", (0, 0)), Relevance("last", torch.zeros(3, 3, 2))):
        with pytest.raises(IerfError, match="explains a number"):
            ierf.attribute(net, pictures(), target, method, **QUICK[method])


@pytest.mark.parametrize("method", [m for m in QUICK if m not in (*CAMS, *BY_RULES, "lrp_zplus")])
def test_methods_of_pixels_say_so(net: Encoder, method: str) -> None:
    with pytest.raises(IerfError, match="resolution is 'input'"):
        ierf.attribute(net, pictures(), 1, method, "low", **QUICK[method])


MISTAKES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "too few targets": ("smoothgrad", "2 targets for 3 samples", {"target": [0, 1]}),
    "class out of range": ("integrated_gradients", "0 … 4", {"target": 5}),
    "a name": ("kernel_shap", "cat", {"target": "cat"}),
    "channel out of range": ("gradient", "0 … 7", {"target": Channel("last", 8)}),
    "unknown layer": ("gradient", "did you mean last", {"target": Channel("lasst", 0)}),
    "positions of others": ("gradient", "targets for 3", {"target": Direction("last", torch.ones(8), [(0, 0)] * 2)}),
    "function of the wrong shape": ("smoothgrad", r"\(N,\)", {"target": lambda y: y.sum()}),
    "baseline": ("integrated_gradients", "baseline", {"baseline": torch.zeros(3, 5, 5)}),
    "no steps": ("integrated_gradients", "at least one", {"steps": 0}),
    "no copies": ("smoothgrad", "at least one", {"samples": 0}),
    "nothing at once": ("smoothgrad", "batch", {"batch": 0}),
    "one patch": ("kernel_shap", "two patches", {"patch": 20}),
    "too few coalitions": ("kernel_shap", "samples=416", {"patch": 1, "samples": 100}),
    "superpixels of another size": ("kernel_shap", "superpixels", {"patch": torch.zeros(4, 4, dtype=torch.long)}),
    "no positions": ("gradcam", "positions", {"resolution": "hidden"}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_one_sentence(net: Encoder, mistake: str) -> None:
    method, message, arguments = MISTAKES[mistake]
    with pytest.raises(IerfError, match=message):
        ierf.attribute(net, pictures(), method=method, **arguments)


def test_random_maps_belong_to_the_picture(net: Encoder) -> None:
    x = pictures()
    maps = ierf.attribute(net, x, method="random")
    assert torch.equal(maps[[2, 0]], ierf.attribute(net, x[[2, 0]], method="random"))
    assert not torch.allclose(maps[0], maps[1])
    assert not torch.allclose(maps, ierf.attribute(net, x, method="random", seed=1))
