"""Interlayer concept attribution against one written out: differentiated by U, one target at a time, in float64."""

from math import log, sqrt

import pytest
import torch
from torch import Tensor, nn

import ierf
from ierf.errors import IerfError, UnknownNameError
from ierf.graph import METHODS, Alignment, Between, LayerObjective, Reconstruction, gig, icat, integrated_gradients
from ierf.graph.influence.integrated_gradients import graded
from ierf.model import Section, capture


class Small(nn.Module):
    """Two blocks with ReLUs, or smooth ones, and a head; `a` and `b` end with an activation function."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU, bias: bool = True) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=bias), activation())
        self.mid = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, bias=bias), activation())
        self.b = nn.Sequential(nn.Conv2d(6, 5, 3, stride=2, padding=1, bias=bias), activation())
        self.head = nn.Linear(5, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.b(self.mid(self.a(x))).mean((2, 3)))
        return logits

    def between(self, v: Tensor) -> Tensor:
        """Pre-activation PFVs of `a` (P, C) to those of `b`."""
        x = v.T.view(1, 4, 5, 6)
        return self.b[0](self.mid(self.a[1](x)))[0].flatten(1).T


@pytest.fixture
def net() -> Small:
    torch.manual_seed(3)
    return Small().double().eval()


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """A picture, atoms, codes and shifts that have nothing to do with each other."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    sparse = draw(30, 9) * (torch.rand(30, 9, generator=g) < 0.3)
    sparse[:, [2, 7]] = 0
    return {
        "x": draw(1, 3, 5, 6), "V": draw(9, 4), "W": draw(3, 5), "U": sparse, "u": draw(9, 3),
        "mu": draw(4), "nu": draw(5),
    }  # fmt: skip


def given(t: dict[str, Tensor], shifted: bool = True) -> dict[str, Tensor]:
    found = {"source_atoms": t["V"], "target_atoms": t["W"], "source_codes": t["U"], "target_codes": t["u"]}
    return found | ({"source_shift": t["mu"], "target_shift": t["nu"]} if shifted else {})


def alignment(net: Small, t: dict[str, Tensor], x_hat: Tensor, target: int, shifted: bool = True) -> Tensor:
    y = net.between(x_hat) - (t["nu"] if shifted else 0)
    return (t["u"][:, target] * torch.cosine_similarity(y, t["W"][target][None], dim=1)).sum()


@pytest.mark.parametrize("shifted", [True, False])
def test_integrated_gradients_are_those_by_the_coefficients(net: Small, shifted: bool) -> None:
    t, steps = tensors(), 20
    edges = icat(net, t["x"], "a", "b", **given(t, shifted), rule="midpoints", steps=steps, tolerance=torch.inf)
    expected = torch.zeros(9, 3, 30, dtype=torch.float64)
    for target in range(3):
        for step in range(steps):
            alpha = (step + 0.5) / steps
            codes = (alpha * t["U"]).requires_grad_()
            x_hat = codes @ t["V"] + (t["mu"] if shifted else 0)
            (slope,) = torch.autograd.grad(alignment(net, t, x_hat, target, shifted), codes)
            expected[:, target] += (t["U"] * slope).T / steps
    torch.testing.assert_close(edges.by_position, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(edges.values, expected.sum(2), rtol=0, atol=1e-10)
    assert edges.active.tolist() == [0, 1, 3, 4, 5, 6, 8]
    assert not edges.values[[2, 7]].any()


def test_gradient_x_input_is_that_by_the_coefficients(net: Small) -> None:
    t = tensors()
    edges = icat(net, t["x"], "a", "b", **given(t), method="gradient_x_input")
    for target in range(3):
        codes = t["U"].clone().requires_grad_()
        (slope,) = torch.autograd.grad(alignment(net, t, codes @ t["V"] + t["mu"], target), codes)
        torch.testing.assert_close(edges.by_position[:, target], (t["U"] * slope).T)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.SiLU])
def test_secants_tend_to_the_integral_with_the_square_of_the_step(activation: type[nn.Module]) -> None:
    torch.manual_seed(3)
    net, t = Small(activation).double().eval(), tensors()
    x = Reconstruction.of(t["U"], t["V"], t["mu"])
    question = LayerObjective(Section.of(net, t["x"], "a", "b"), Alignment(t["W"], t["u"], t["nu"]), batch=1000)
    exact = integrated_gradients(x, question, rule="midpoints", steps=8000, tolerance=torch.inf).values
    errors = []
    for steps in (16, 64):
        found = integrated_gradients(x, question, rule="secants", steps=steps)
        assert float(found.completeness_error.max()) < 1e-9
        errors.append(float((found.values - exact).norm() / exact.norm()))
    assert errors[0] < 2e-2
    assert errors[1] < errors[0] / 8


def test_default_steps_are_complete_and_the_error_is_what_it_says(net: Small) -> None:
    t = tensors()
    edges = icat(net, t["x"], "a", "b", **given(t))
    with torch.no_grad():
        full = torch.stack([alignment(net, t, t["U"] @ t["V"] + t["mu"], k) for k in range(3)])
        none = torch.stack([alignment(net, t, t["mu"].expand(30, -1), k) for k in range(3)])
    torch.testing.assert_close(edges.score, full)
    torch.testing.assert_close(edges.start, none)
    torch.testing.assert_close(edges.values.sum(0), full - none, rtol=1e-3, atol=0)
    coarse = icat(net, t["x"], "a", "b", **given(t), rule="midpoints", steps=2, tolerance=torch.inf)
    missed = (coarse.values.sum(0) - (full - none)).abs() / (full - none).abs()
    torch.testing.assert_close(coarse.completeness_error, missed)
    assert float(missed.max()) > 1e-3


def test_steps_are_raised_for_the_targets_that_need_them(net: Small) -> None:
    t = tensors()
    edges = icat(net, t["x"], "a", "b", **given(t), rule="midpoints", steps=4, tolerance=2e-3, most_steps=3000)
    assert float(edges.completeness_error.max()) <= 2e-3
    assert edges.steps is not None
    assert len(set(edges.steps.tolist())) > 1
    for k, steps in enumerate(edges.steps.tolist()):
        alone = icat(net, t["x"], "a", "b", **given(t), rule="midpoints", steps=steps, tolerance=torch.inf)
        torch.testing.assert_close(edges.values[:, k], alone.values[:, k])


@pytest.mark.parametrize("method", ["ig", "deeplift"])
def test_without_biases_and_shift_there_is_no_integral(method: str) -> None:
    torch.manual_seed(3)
    net, t = Small(bias=False).double().eval(), tensors()
    with pytest.raises(IerfError, match=r"no bias lies between.*source_shift.*gradient_x_input"):
        icat(net, t["x"], "a", "b", **given(t, shifted=False), method=method)
    slope = icat(net, t["x"], "a", "b", **given(t, shifted=False), method="gradient_x_input")
    torch.testing.assert_close(slope.start, slope.score)
    for shift in ("source_shift", "target_shift"):
        given_one = given(t, shifted=False) | {shift: given(t)[shift]}
        assert float(icat(net, t["x"], "a", "b", **given_one, method=method).completeness_error.max()) < 1e-3
    source = {name: value for name, value in given(t, shifted=False).items() if name.startswith("source")}
    for target in (None, "b"):
        atoms = {"target_atoms": t["W"]} if target else {"classes": [0, 1, 2]}
        by_length = (gig if target else icat)(net, t["x"], "a", target, **source, **atoms, method=method)
        assert float(by_length.completeness_error.max()) < 1e-3


def test_gradient_x_input_is_the_limit_of_the_order_where_biases_vanish() -> None:
    """Biases b → 0: integrals grow like log(1 / b), in the direction of gradient × input."""
    torch.manual_seed(3)
    net, t = Small(bias=False).double().eval(), tensors()
    limit = icat(net, t["x"], "a", "b", **given(t, shifted=False), method="gradient_x_input").values
    closeness = []
    for size in (1e-2, 1e-8):
        options = given(t, shifted=False) | {"source_shift": size * t["mu"]}
        found = icat(net, t["x"], "a", "b", **options, rule="graded", steps=400).values
        closeness.append(torch.cosine_similarity(found, limit, dim=0))
    assert float(closeness[1].min()) > 0.95
    assert bool((closeness[1] > closeness[0]).all())


def test_deeplift_and_kernel_shap_add_up_and_lrp_does_without_biases(net: Small) -> None:
    t = tensors()
    for method in ("deeplift", "kernel_shap"):
        edges = icat(net, t["x"], "a", "b", **given(t), method=method)
        torch.testing.assert_close(edges.values.sum(0), edges.score - edges.start, rtol=1e-6, atol=1e-9)
    torch.manual_seed(3)
    without = Small(bias=False).double().eval()
    edges = icat(without, t["x"], "a", "b", **given(t, shifted=False), method="lrp")
    torch.testing.assert_close(edges.values.sum(0), edges.score)


def test_lrp_is_the_gradient_with_the_length_held(net: Small) -> None:
    """With ReLUs and ε → 0 relevance is input × gradient (Ancona et al. 2018), also where there are biases."""
    t = tensors()
    edges = icat(net, t["x"], "a", "b", **given(t), method="lrp")
    codes = t["U"].clone().requires_grad_()
    y = net.between(codes @ t["V"] + t["mu"]) - t["nu"]
    score = (t["u"][:, 1] * (y @ t["W"][1]) / (y.detach().norm(dim=1) * t["W"][1].norm())).sum()
    (slope,) = torch.autograd.grad(score, codes)
    torch.testing.assert_close(edges.by_position[:, 1], (t["U"] * slope).T)


def test_kernel_shap_of_few_concepts_is_the_shapley_value(net: Small) -> None:
    t = tensors()
    codes = t["U"].clone()
    codes[:, 3:] = 0
    edges = icat(net, t["x"], "a", "b", **(given(t) | {"source_codes": codes}), method="kernel_shap")
    kept = {"": 0.0}
    with torch.no_grad():
        for group in ("", "0", "1", "01"):
            some = torch.zeros(9).double()
            some[[int(q) for q in group]] = 1
            kept[group] = float(alignment(net, t, (codes * some) @ t["V"] + t["mu"], 0))
    first = (kept["0"] - kept[""] + kept["01"] - kept["1"]) / 2
    assert float(edges.values[0, 0]) == pytest.approx(first, rel=1e-6)
    with pytest.raises(IerfError, match="whole concepts"):
        _ = edges.by_position


def test_controls(net: Small) -> None:
    t = tensors()
    one, same, other = (icat(net, t["x"], "a", "b", **given(t), method="random", seed=s).values for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    size = icat(net, t["x"], "a", "b", **given(t), method="coefficient_size").values
    torch.testing.assert_close(size[:, 2], t["U"].abs().sum(0) * t["V"].norm(dim=1))


def test_edges_do_not_depend_on_other_targets(net: Small) -> None:
    t = tensors()
    together = icat(net, t["x"], "a", "b", **given(t)).values
    alone = given(t) | {"target_atoms": t["W"][[1]], "target_codes": t["u"][:, [1]]}
    torch.testing.assert_close(icat(net, t["x"], "a", "b", **alone).values, together[:, [1]])


def test_a_longer_concept_with_smaller_coefficients_is_the_same(net: Small) -> None:
    t = tensors()
    scaled = given(t) | {"source_atoms": 4 * t["V"], "source_codes": t["U"] / 4, "target_atoms": 7 * t["W"]}
    for method in set(METHODS) - {"random"}:
        torch.testing.assert_close(
            icat(net, t["x"], "a", "b", **scaled, method=method).values,
            icat(net, t["x"], "a", "b", **given(t), method=method).values,
        )


def test_classes_by_logit_and_by_probability(net: Small) -> None:
    t = tensors()
    source = {"source_atoms": t["V"], "source_codes": t["U"], "source_shift": t["mu"]}

    def logits(x_hat: Tensor) -> Tensor:
        return net.head(net.b[1](net.between(x_hat)).mean(0))

    with torch.no_grad():
        full, none = logits(t["U"] @ t["V"] + t["mu"]), logits(t["mu"].expand(30, -1))
    edges = icat(net, t["x"], "a", "logits", **source, classes=[2, 0])
    torch.testing.assert_close(edges.values.sum(0), (full - none)[[2, 0]], rtol=1e-3, atol=0)
    change = full.softmax(0) - none.softmax(0)
    torch.testing.assert_close(gig(net, t["x"], "a", **source, classes=[1]).values.sum(), change[1], rtol=1e-3, atol=0)
    predicted = int(net(t["x"]).argmax())
    torch.testing.assert_close(
        icat(net, t["x"], "a", **source).values, icat(net, t["x"], "a", **source, classes=[predicted]).values
    )


def test_gig_projects_and_weighs_no_position(net: Small) -> None:
    t = tensors()
    options = {"source_atoms": t["V"], "target_atoms": t["W"], "source_codes": t["U"], "source_shift": t["mu"]}
    edges = gig(net, t["x"], "a", "b", **options, rule="midpoints", steps=10, tolerance=torch.inf)
    expected = torch.zeros(9, dtype=torch.float64)
    for step in range(10):
        codes = ((step + 0.5) / 10 * t["U"]).requires_grad_()
        score = (net.between(codes @ t["V"] + t["mu"]) @ t["W"][1] / t["W"][1].norm()).sum()
        expected += (t["U"] * torch.autograd.grad(score, codes)[0]).sum(0) / 10
    torch.testing.assert_close(edges.values[:, 1], expected)


def test_codes_default_to_the_lasso(net: Small) -> None:
    t = tensors()
    found = capture(net, t["x"], ["a", "b"])
    options = given(t) | {"lam": 0.2}
    del options["source_codes"], options["target_codes"]
    edges = icat(net, t["x"], "a", "b", **options)
    codes = {
        "source_codes": ierf.concepts.lasso(found["a"].pfvs[0].detach() - t["mu"], t["V"], 0.2).codes,
        "target_codes": ierf.concepts.lasso(found["b"].pfvs[0].detach() - t["nu"], t["W"], 0.2).codes,
    }
    torch.testing.assert_close(edges.values, icat(net, t["x"], "a", "b", **given(t) | codes).values)


def test_sparse_codes_are_the_same_as_dense_ones() -> None:
    t = tensors()
    dense = Reconstruction.of(t["U"], t["V"], t["mu"])
    sparse = Reconstruction.of(ierf.concepts.Codes.of(t["U"]), t["V"], t["mu"])
    torch.testing.assert_close(dense.full, t["U"] @ t["V"] + t["mu"])
    torch.testing.assert_close(sparse.codes, dense.codes)
    assert torch.equal(sparse.active, dense.active)
    nothing = Reconstruction.of(ierf.concepts.Codes.of(torch.zeros(30, 9).double()), t["V"], t["mu"])
    torch.testing.assert_close(nothing.full, t["mu"].expand(30, -1))


def test_an_image_without_concepts_has_no_edges(net: Small) -> None:
    t = tensors()
    edges = icat(net, t["x"], "a", "b", **(given(t) | {"source_codes": torch.zeros(30, 9).double()}))
    assert not edges.values.any()
    assert not edges.completeness_error.any()


def test_a_pfv_without_length_is_no_nan() -> None:
    atoms = torch.eye(3)
    score = Alignment(atoms, torch.ones(2, 3))
    y = torch.tensor([[[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]]], requires_grad=True)
    torch.testing.assert_close(score(y), torch.tensor([[0.6, 0.8, 0.0]]))
    (gradient,) = torch.autograd.grad(score(y).sum(), y)
    assert bool(gradient.isfinite().all())
    assert not gradient[0, 0].any()


def test_the_secant_of_an_alignment_is_exact() -> None:
    t = tensors()
    score = Alignment(t["W"], t["u"], t["nu"])
    y, before = torch.randn(2, 4, 9, 5, dtype=torch.float64)
    products = (score.slope(y, before) * (y - before)).flatten(2).sum(2)
    torch.testing.assert_close(products.T, score(y) - score(before))
    torch.testing.assert_close((score.slope(y, None) * (y - t["nu"])).flatten(2).sum(2).T, score(y))


def test_graded_points_are_gauss_legendre_in_what_is_graded() -> None:
    """Exact for polynomials of degree 2 n − 1 in s, with α = (1000^s − 1) / 999; weights sum to 1."""
    for n in (1, 3, 8):
        alphas, weights = graded(n)
        assert float(weights.sum()) == pytest.approx(1)
        assert bool(((alphas > 0) & (alphas < 1)).all())
        s = (999 * alphas + 1).log() / log(1000)
        plain = weights / 1000**s
        for degree in range(2 * n):
            assert float((plain * s**degree).sum() / plain.sum()) == pytest.approx(1 / (degree + 1))


@pytest.mark.parametrize(("width", "steps"), [(1e-1, 16), (1e-2, 16), (1e-3, 16), (1e-4, 48)])
def test_graded_points_see_a_layer_norm_leave_zero(width: float, steps: int) -> None:
    """`∫₀¹ d/dα α / √(α² + w²) dα = 1 / √(1 + w²)`."""
    alphas, weights = graded(steps)
    slope = width**2 / (alphas**2 + width**2) ** 1.5
    assert float((weights * slope).sum()) == pytest.approx(1 / sqrt(1 + width**2), rel=1e-4)


def test_a_transformer_takes_graded_steps_and_is_complete() -> None:
    model = ierf.load("bundled:vit-tiny")
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, *model.preprocess.size, generator=g)
    atoms = [torch.randn(6, 192, generator=g) for _ in range(2)]
    codes = [torch.randn(65, 6, generator=g).relu() for _ in range(2)]
    edges = icat(
        model, x, "blocks.2", "blocks.3", source_atoms=atoms[0], target_atoms=atoms[1][:2],
        source_codes=codes[0], target_codes=codes[1][:, :2],
    )  # fmt: skip
    assert float(edges.completeness_error.max()) <= 1e-3
    assert edges.by_position.shape == (6, 2, 65)
    with torch.no_grad():
        again = icat(
            model, x, "blocks.2", "blocks.3", source_atoms=atoms[0], target_atoms=atoms[1][:2],
            source_codes=codes[0], target_codes=codes[1][:, :2],
        )  # fmt: skip
    assert torch.equal(again.values, edges.values)


def test_sixteen_steps_are_enough_between_blocks_of_a_transformer() -> None:
    """All of a block's tokens are scaled from their mean on, as in graphs of groups."""
    model = ierf.load("bundled:vit-tiny")
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, *model.preprocess.size, generator=g)
    tokens = {name: found.pfvs[0] for name, found in capture(model, x, ["blocks.2", "blocks.3"]).items()}
    shifts = {name: pfvs.mean(0) for name, pfvs in tokens.items()}
    edges = icat(
        model, x, "blocks.2", "blocks.3", source_atoms=torch.eye(192), target_atoms=torch.eye(192)[:8],
        source_codes=tokens["blocks.2"] - shifts["blocks.2"], source_shift=shifts["blocks.2"],
        target_codes=(tokens["blocks.3"] - shifts["blocks.3"])[:, :8], target_shift=shifts["blocks.3"],
    )  # fmt: skip
    assert edges.steps is not None
    assert edges.steps.tolist() == [16] * 8
    assert float(edges.completeness_error.detach().max()) <= 1e-3


def test_mistakes_are_named(net: Small) -> None:
    t = tensors()
    with pytest.raises(UnknownNameError, match="attribution of concepts 'shap'; did you mean kernel_shap"):
        icat(net, t["x"], "a", "b", **given(t), method="shap")
    with pytest.raises(UnknownNameError, match="option of 'lrp' 'steps'"):
        icat(net, t["x"], "a", "b", **given(t), method="lrp", steps=3)
    with pytest.raises(IerfError, match="at least one step"):
        icat(net, t["x"], "a", "b", **given(t), steps=0)
    with pytest.raises(IerfError, match=r"concept vectors of 'b' are \(number, 5\); got none"):
        icat(net, t["x"], "a", "b", source_atoms=t["V"])
    with pytest.raises(IerfError, match=r"codes of one image over 9 concepts"):
        icat(net, t["x"], "a", "b", **(given(t) | {"source_codes": t["U"][:, 1:]}))
    with pytest.raises(IerfError, match=r"the target's codes are \(positions, targets\) = \(9, 3\)"):
        icat(net, t["x"], "a", "b", **(given(t) | {"target_codes": t["u"][1:]}))
    with pytest.raises(IerfError, match="one image"):
        icat(net, t["x"].expand(2, -1, -1, -1), "a", "b", **given(t))
    with pytest.raises(IerfError, match="classes 0 to 2"):
        icat(net, t["x"], "a", source_atoms=t["V"], source_codes=t["U"], classes=[3])
    with pytest.raises(UnknownNameError, match="score 'cosine'"):
        icat(net, t["x"], "a", "b", **given(t), score="cosine")
    with pytest.raises(IerfError, match="leave target_codes out"):
        icat(net, t["x"], "a", "b", **given(t), score="projection")


def test_the_old_name_of_the_objective_says_the_new_one() -> None:
    with pytest.warns(DeprecationWarning, match="LayerObjective"):
        assert ierf.graph.Question is LayerObjective


def test_memory_follows_the_active_concepts(net: Small) -> None:
    """A dictionary of a hundred thousand concepts, nearly all idle, is not gone through at each step."""
    t = tensors()
    many = torch.cat([t["V"], torch.randn(100_000, 4, dtype=torch.float64)])
    codes = ierf.concepts.Codes.of(t["U"])
    sparse = ierf.concepts.Codes(codes.indices, codes.values, len(many))
    between = Between.of(net, t["x"], "a", "b", many, sparse, t["mu"], 0.1, "pre-activation")
    assert between.x.atoms.shape == (7, 4)
    found = METHODS["ig"](between.x, LayerObjective(between.section, Alignment(t["W"], t["u"], t["nu"])))
    torch.testing.assert_close(between.x.spread(found.values.T)[:9], icat(net, t["x"], "a", "b", **given(t)).values)
