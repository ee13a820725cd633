"""Maps of transformers: where the patches are among the tokens, and what every method makes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.transformers import TinyTransformer
from torch import Tensor, nn
from torch.nn import functional as F

import ierf
from ierf.attribution.fullgrad import full_gradients
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.targets import PFV, Channel, Direction, Relevance
from ierf.attribution.token_grid import TokenGrid
from ierf.errors import IerfError
from ierf.model.preprocess import Preprocess
from ierf.rules import Backward, record
from ierf.rules.call import Call

SIZE, ROWS, COLUMNS, PATCH = (16, 24), 4, 6, 4
CLASSES = [3, 4]
BY_RULES = ("srd", "attnlrp", "cp_lrp", "lrp_zplus")
CAMS = ("gradcam", "gradcam_pp", "xgradcam", "layercam", "scorecam", "ablationcam")
ON_PIXELS = (
    "gradient",
    "gradient_x_input",
    "guided_backprop",
    "integrated_gradients",
    "smoothgrad",
    "fullgrad",
    "kernel_shap",
)
RULES: dict[str, dict[str, Any]] = {method: {"unknown": "gradient"} for method in BY_RULES}
RULES["srd"]["head"] = "raw"
QUICKLY: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 8},
    "smoothgrad": {"samples": 2, "noise": 0.0},
    "kernel_shap": {"samples": 64},
}


def tiny(**options: Any) -> TinyTransformer:
    """With features and class weights mostly positive, so that rectified maps are not all zero."""
    net = TinyTransformer(**options).double().eval().requires_grad_(False)
    net.norm.bias += 2
    net.classes.weight[2:].abs_()
    return net


def pictures(n: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(n, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def recorded(net: nn.Module, x: Tensor) -> RecordedPass:
    backward = Backward()
    return RecordedPass(record(net, x.clone().requires_grad_(), {}, Call.run, backward), backward)


def grid_at(net: nn.Module, layer: str, size: tuple[int, int] = SIZE) -> TokenGrid | None:
    x = pictures(1, size).to(next(net.parameters()))
    run = recorded(net, x)
    return run.grid(run.layer(layer))


def same(one: Tensor, other: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


# --- where the patches are ------------------------------------------------------------------------------------------


def test_a_grid_by_hand() -> None:
    grid = TokenGrid(prefix=2, rows=2, columns=3)
    values = torch.tensor([[10, 11, 0, 1, 2, 3, 4, 5, 12]])
    assert grid.to_map(values).tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert grid.to_tokens(grid.to_map(values), 9).tolist() == [[0, 0, 0, 1, 2, 3, 4, 5, 0]]
    assert grid.index(torch.tensor([[0, 0], [1, 2]])).tolist() == [[2], [7]]
    assert [grid.cell(i) for i in (1, 2, 7, 8)] == [None, (0, 0), (1, 2), None]
    with pytest.raises(IerfError, match=r"no patch at \(2, 0\); the patches are 2 × 3"):
        grid.index(torch.tensor([[0, 0], [2, 0]]))


@pytest.mark.parametrize("embedding", ["convolution", "unfold", "reshape"])
@pytest.mark.parametrize(("prefix", "suffix"), [(0, 0), (1, 0), (5, 0), (1, 3), (0, 2)])
def test_a_patch_has_the_token_that_changes_with_its_pixels(prefix: int, suffix: int, embedding: Any) -> None:
    net, x = tiny(prefix=prefix, suffix=suffix, embedding=embedding, head="mean", grid=(ROWS, COLUMNS)), pictures(1)
    run = recorded(net, x)
    for layer in ("blocks.0", "blocks.1.attention.qkv", "blocks.1.attention.out", "blocks.0.widen", "norm"):
        assert run.grid(run.layer(layer)) == TokenGrid(prefix, ROWS, COLUMNS)
    grid, before = run.grid(run.encoder), net.tokens(x)
    assert grid is not None
    for row in range(ROWS):
        for column in range(COLUMNS):
            changed = x.clone()
            changed[:, :, row * PATCH, column * PATCH] += 1
            (index,) = (net.tokens(changed) != before).any(-1)[0].nonzero()
            assert grid.cell(int(index)) == (row, column)
            assert grid.index(torch.tensor([[row, column]])).tolist() == [index.tolist()]


class Dropping(TinyTransformer):
    """Two of its prefix tokens end after the blocks, and three new ones join in front."""

    def classify(self, tokens: Tensor) -> Tensor:
        new = torch.ones_like(tokens[:, :3])
        logits: Tensor = self.classes(torch.cat([new, self.norm(tokens[:, 2:])], 1).mean(1))
        return logits


def test_the_prefix_follows_tokens_that_leave_and_join() -> None:
    net = Dropping(prefix=4).eval()
    run = recorded(net, pictures(1).float())
    grids = [run.grid(run.layer("blocks.1")), run.grid(run.layer("norm")), run.grid(run.encoder)]
    assert [grid and grid.prefix for grid in grids] == [4, 2, 5]


class Queries(TinyTransformer):
    """Learned queries, more than there are patches, take the place of the patches."""

    def classify(self, tokens: Tensor) -> Tensor:
        queries = torch.linspace(-1, 1, 30 * 8).view(30, 8).to(tokens)
        read = (queries @ tokens.mT).softmax(-1) @ tokens
        logits: Tensor = self.classes(self.norm(self.blocks[0].attention.out(read)).mean(1))
        return logits


def test_tokens_that_are_no_patches_have_no_grid_and_stay_a_sequence() -> None:
    net = Queries(prefix=1).double().eval()
    assert grid_at(net, "norm") is None
    assert grid_at(net, "blocks.1") == TokenGrid(1, ROWS, COLUMNS)
    assert ierf.attribute(net, pictures(), 1, "cp_lrp", "norm").shape == (2, 30)
    with pytest.raises(IerfError, match="cannot be scaled up to pixels"):
        ierf.attribute(net, pictures(), 1, "gradcam", encoder="norm")


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    small = {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5} | options

    def build() -> nn.Module:
        timm = pytest.importorskip("timm")
        torch.manual_seed(0)
        net: nn.Module = timm.create_model(name, pretrained=False, **small)
        return net.double().eval().requires_grad_(False)

    return build


def _torchvision() -> nn.Module:
    vision_transformer = pytest.importorskip("torchvision.models.vision_transformer")
    torch.manual_seed(0)
    net: nn.Module = vision_transformer.VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=5)
    nn.init.normal_(net.heads.head.weight)
    return net.double().eval().requires_grad_(False)


def _squarely(name: str, **options: Any) -> tuple[Callable[[], nn.Module], str, tuple[int, int]]:
    return _timm(name, img_size=32, patch_size=8, **options), "blocks.0", (32, 32)


LIBRARIES: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, int], TokenGrid | None]] = {
    "vit": (*_squarely("vit_tiny_patch16_224"), TokenGrid(1, 4, 4)),
    "vit, not square": (
        _timm("vit_tiny_patch16_224", img_size=(16, 40), patch_size=8),
        "blocks.0",
        (16, 40),
        TokenGrid(1, 2, 5),
    ),
    "deit3": (*_squarely("deit3_small_patch16_224"), TokenGrid(1, 4, 4)),
    "distilled deit": (*_squarely("deit_tiny_distilled_patch16_224"), TokenGrid(2, 4, 4)),
    "eva02": (*_squarely("eva02_tiny_patch14_224"), TokenGrid(1, 4, 4)),
    "dinov2 with registers": (
        _timm("vit_small_patch14_reg4_dinov2", img_size=(21, 35), patch_size=7),
        "blocks.0",
        (21, 35),
        TokenGrid(5, 3, 5),
    ),
    "siglip": (*_squarely("vit_base_patch16_siglip_224"), TokenGrid(0, 4, 4)),
    "swin": (
        _timm("swin_tiny_patch4_window7_224", img_size=32, depths=(1, 1), num_heads=(1, 2), window_size=2, depth=None),
        "layers.1",
        (32, 32),
        None,
    ),
    "torchvision": (_torchvision, "encoder.layers.encoder_layer_0", (16, 16), TokenGrid(1, 4, 4)),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_grid_of_networks_of_libraries(library: str) -> None:
    build, layer, size, grid = LIBRARIES[library]
    assert grid_at(build(), layer, size) == grid


@pytest.mark.parametrize("method", [*BY_RULES, *CAMS])
@pytest.mark.parametrize("library", LIBRARIES)
def test_low_and_high_maps_of_libraries_have_rows_and_columns(library: str, method: str) -> None:
    build, layer, size, grid = LIBRARIES[library]
    net, x = build(), pictures(1, size)
    options = RULES.get(method, {})
    shape = (4, 4) if grid is None else (grid.rows, grid.columns)
    for resolution in ("low", "high"):
        found = ierf.attribute(net, x, 1, method, resolution, **options)
        assert found.shape == (1, *shape)
        assert bool(found.isfinite().all())
        assert bool(found.any())
    assert ierf.attribute(net, x, 1, method, layer, **options).shape == (1, *shape)


# --- class activation maps by hand ----------------------------------------------------------------------------------


def low_map(net: TinyTransformer, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The tokens of the map that the CAMs take, and the network from there."""
    if net.read == "class":
        return net.entering(x), lambda tokens: net.classify(net.blocks[1](tokens))
    return net.norm(net.blocks[1](net.entering(x))), lambda tokens: net.classes(tokens.mean(1))


def patches_of(net: TinyTransformer, tokens: Tensor) -> Tensor:
    """(N, T, C) -> (N, rows, columns, C)."""
    first = net.prefix.shape[1]
    return tokens[:, first : first + ROWS * COLUMNS].reshape(len(tokens), ROWS, COLUMNS, -1)


KINDS = [
    {"prefix": 1, "head": "class"},
    {"prefix": 5, "head": "class"},
    {"prefix": 0, "head": "mean"},
    {"prefix": 5, "suffix": 2, "head": "mean"},
]


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_cams_by_hand(kind: dict[str, Any]) -> None:
    net, x = tiny(**kind), pictures()
    tokens, rest = low_map(net, x)
    tokens.requires_grad_()
    (slope,) = torch.autograd.grad(rest(tokens)[[0, 1], CLASSES].sum(), tokens)
    a, g = patches_of(net, tokens.detach()), patches_of(net, slope)
    total = a.sum((1, 2), keepdim=True)
    weights = {
        "gradcam": g.mean((1, 2), keepdim=True),
        "gradcam_pp": (g**2 / (2 * g**2 + total * g**3) * g.relu()).sum((1, 2), keepdim=True),
        "xgradcam": (a * g / total).sum((1, 2), keepdim=True),
        "layercam": g.relu(),
    }
    for method, weight in weights.items():
        wanted = (weight * a).sum(-1).relu()
        assert bool(wanted.any())
        same(ierf.attribute(net, x, CLASSES, method, "low"), wanted)
        large = F.interpolate(wanted[:, None], SIZE, mode="bilinear")[:, 0]
        same(ierf.attribute(net, x, CLASSES, method), large)


@pytest.mark.parametrize("kind", KINDS)
def test_score_cam_and_ablation_cam_by_loops_over_channels(kind: dict[str, Any]) -> None:
    net, x = tiny(**kind), pictures()
    tokens, rest = low_map(net, x)
    a, rows = patches_of(net, tokens), [0, 1]
    scores, ablated = torch.zeros(2, 8).double(), torch.zeros(2, 8).double()
    for k in range(8):
        mask = F.interpolate(a[:, None, :, :, k], SIZE, mode="bilinear")
        low, high = mask.amin((2, 3), keepdim=True), mask.amax((2, 3), keepdim=True)
        scores[:, k] = net(x * (mask - low) / (high - low))[rows, CLASSES]
        without = tokens.clone()
        first = net.prefix.shape[1]
        without[:, first : first + ROWS * COLUMNS, k] = 0
        ablated[:, k] = rest(without)[rows, CLASSES]
    y = net(x)[rows, CLASSES]
    weights = {"scorecam": scores.softmax(1), "ablationcam": (y[:, None] - ablated) / y[:, None].abs()}
    for method, weight in weights.items():
        wanted = (weight[:, None, None] * a).sum(-1).relu()
        assert bool(wanted.any())
        same(ierf.attribute(net, x, CLASSES, method, "low"), wanted)


def test_a_cam_takes_the_norm_that_a_user_names() -> None:
    net, x = tiny(prefix=1), pictures()
    entering = net.entering(x)
    normed = net.blocks[1].norm1(entering).requires_grad_()
    after = entering + net.blocks[1].attention(normed)
    after = after + net.blocks[1].narrow(F.gelu(net.blocks[1].widen(net.blocks[1].norm2(after))))
    (slope,) = torch.autograd.grad(net.classify(after)[:, 2].sum(), normed)
    wanted = (patches_of(net, slope).mean((1, 2), keepdim=True) * patches_of(net, normed.detach())).sum(-1).relu()
    same(ierf.attribute(net, x, 2, "gradcam", "blocks.1.norm1"), wanted)


@pytest.mark.parametrize("method", ["gradcam", "gradcam_pp", "xgradcam", "layercam"])
def test_a_layer_whose_patches_do_not_matter_is_refused(method: str) -> None:
    with pytest.raises(IerfError, match="depend on no patch of 'norm', only on its class or register tokens") as caught:
        ierf.attribute(tiny(prefix=1), pictures(), 2, method, "norm")
    assert "'blocks.0'" in str(caught.value)


# --- every method ---------------------------------------------------------------------------------------------------


def test_every_method_is_tested_here() -> None:
    assert {*BY_RULES, *CAMS, *ON_PIXELS, "random"} == set(ierf.attribution.METHODS)


def in_patches(x: Tensor, order: Tensor) -> Tensor:
    """Pictures or maps of pixels (..., H, W) with their patches in another order."""
    cells = x.unflatten(-1, (COLUMNS, PATCH)).unflatten(-3, (ROWS, PATCH)).movedim(-2, -3).flatten(-4, -3)
    return cells[..., order, :, :].unflatten(-3, (ROWS, COLUMNS)).movedim(-3, -2).flatten(-2).flatten(-3, -2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [*BY_RULES, *CAMS, *ON_PIXELS])
def test_a_map_moves_with_the_patches_of_the_picture(method: str, kind: dict[str, Any]) -> None:
    net, x = tiny(**kind), pictures()
    order = torch.randperm(ROWS * COLUMNS, generator=torch.Generator().manual_seed(1))
    options = QUICKLY.get(method, {}) | RULES.get(method, {})

    def maps(pixels: Tensor, resolution: str) -> Tensor:
        return ierf.attribute(net, pixels, CLASSES, method, resolution, **options)

    if method not in ON_PIXELS:
        before, after = maps(x, "low"), maps(in_patches(x, order), "low")
        assert bool(before.any())
        assert before.shape == (2, ROWS, COLUMNS)
        if method != "scorecam":  # its masks are blurred from patch to patch
            same(after, before.flatten(1)[:, order].view_as(before))
    if method in (*BY_RULES, *ON_PIXELS) and method not in ("kernel_shap", "fullgrad"):
        before, after = maps(x, "input"), maps(in_patches(x, order), "input")
        assert bool(before.any())
        same(after, in_patches(before, order))


@pytest.mark.parametrize("patch", [4, 16])
def test_high_is_the_tokens_if_patches_are_small_and_else_the_pixels(patch: int) -> None:
    net, x = tiny(patch=patch), pictures(1, (32, 48))
    shape = (8, 12) if patch == 4 else (32, 48)
    assert ierf.attribute(net, x, 1, "attnlrp", "high").shape == (1, *shape)


@pytest.mark.parametrize("method", ["srd", "attnlrp", "cp_lrp"])
def test_a_map_of_tokens_is_the_relevance_of_the_patches(method: str) -> None:
    net, x = tiny(prefix=5), pictures()
    found = ierf.attribute(net, x, Channel("blocks.0", 2), method, "blocks.0")
    same(found, patches_of(net, net.entering(x))[..., 2])


def test_kernel_shap_takes_the_networks_own_patches() -> None:
    net, x = tiny(prefix=1), pictures(1)
    found = ierf.attribute(net, x, 1, "kernel_shap", samples=100)
    same(found, ierf.attribute(net, x, 1, "kernel_shap", samples=100, patch=PATCH))
    indivisible = pictures(1, (18, 24))
    a_14th = ierf.attribute(net, indivisible, 1, "kernel_shap", samples=300, patch=2)
    same(ierf.attribute(net, indivisible, 1, "kernel_shap", samples=300), a_14th)
    too_many = pictures(1, (8, 56))
    a_14th = ierf.attribute(tiny(patch=2), too_many, 1, "kernel_shap", samples=100, patch=4)
    same(ierf.attribute(tiny(patch=2), too_many, 1, "kernel_shap", samples=100), a_14th)


@pytest.mark.parametrize("kind", KINDS)
def test_full_gradients_of_tokens_sum_to_the_logit_and_so_does_their_map(kind: dict[str, Any]) -> None:
    net, x = tiny(grid=(ROWS, COLUMNS), **kind), pictures()
    logits = net(x)[[0, 1], CLASSES]
    same(full_gradients(net, x, CLASSES).total, logits)
    same(ierf.attribute(net, x, CLASSES, "fullgrad", psi="signed").sum((1, 2)), logits)


@pytest.mark.parametrize("library", ["vit", "deit3", "eva02", "dinov2 with registers", "siglip", "torchvision"])
def test_full_gradients_of_libraries_sum_to_the_logit(library: str) -> None:
    build, _, size, _ = LIBRARIES[library]
    net, x = build(), pictures(1, size)
    for parameter in net.parameters():
        parameter.add_(torch.linspace(-0.2, 0.2, parameter.numel()).view_as(parameter))
    same(full_gradients(net, x, 1).total, net(x)[:, 1])
    same(ierf.attribute(net, x, 1, "fullgrad", psi="signed").sum((1, 2)), net(x)[:, 1])


def test_fullgrad_of_tokens_is_the_papers_sum_over_patches() -> None:
    net, x = tiny(prefix=5), pictures()
    parts = full_gradients(net, x, CLASSES)
    total = torch.zeros(2, *SIZE).double()
    for part in [parts.pixels, *parts.biases.values()]:
        if part.ndim == 2:
            continue
        cells = part.abs() if part.ndim == 4 else patches_of(net, part.mT).movedim(-1, 1).abs()
        for i, cell in enumerate(cells):
            unit = ((cell - cell.min()) / (cell.max() - cell.min())).nan_to_num()
            total[i] += F.interpolate(unit[None], SIZE, mode="bilinear")[0].sum(0)
    same(ierf.attribute(net, x, CLASSES, "fullgrad"), total)
    attention = [name for name in parts.biases if "softmax" in name]
    assert len(attention) == 2
    assert all(parts.grids[name] == TokenGrid(5, ROWS, COLUMNS) for name in attention)


def test_fullgrad_tells_samples_apart_or_says_that_it_cannot() -> None:
    build, _, size, _ = LIBRARIES["torchvision"]
    net, x = build(), pictures(2, size)
    for parameter in net.parameters():
        parameter.add_(0.1)
    with pytest.raises(IerfError, match=r"batch=1"):
        ierf.attribute(net, x, 1, "fullgrad")
    alone = torch.cat([ierf.attribute(net, x[i : i + 1], 1, "fullgrad") for i in range(2)])
    same(ierf.attribute(net, x, 1, "fullgrad", batch=1), alone)
    build, _, size, _ = LIBRARIES["swin"]
    with pytest.raises(IerfError, match="not rows and columns"):
        ierf.attribute(build(), pictures(1, size), 1, "fullgrad")


# --- positions and relevance maps of tokens -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["srd", "attnlrp"])
def test_a_token_has_an_index_and_a_patch_a_row_and_a_column(method: str) -> None:
    net, x = tiny(prefix=5), pictures()

    def map_of(target: Any) -> Tensor:
        return ierf.attribute(net, x, target, method)

    wanted = map_of(PFV("blocks.0", (5 + 2 * COLUMNS + 3,)))
    same(map_of(PFV("blocks.0", 5 + 2 * COLUMNS + 3)), wanted)
    same(map_of(PFV("blocks.0", (2, 3))), wanted)
    same(map_of(PFV("blocks.0", [(2, 3), (0, 1)]))[:1], wanted[:1])
    same(map_of(PFV("blocks.0", [(2, 3), (0, 1)]))[1:], map_of(PFV("blocks.0", 6))[1:])
    same(map_of(PFV("blocks.0", [(20,), (6,)])), map_of(PFV("blocks.0", [(2, 3), (0, 1)])))
    along = torch.linspace(-1, 1, 8)
    same(map_of(Direction("blocks.0", along, (2, 3))), map_of(Direction("blocks.0", along, 20)))
    assert float((map_of(PFV("blocks.0", 0)) - wanted).abs().max()) > 1e-3
    for position, message in [((4, 0), "no patch at"), (29, "outside"), ((1, 2, 3), "is \\(row, column\\)")]:
        with pytest.raises(IerfError, match=message):
            map_of(PFV("blocks.0", position))


@pytest.mark.parametrize("method", ["srd", "attnlrp"])
def test_ierfs_take_tokens_by_index_and_patches_by_row_and_column(method: str) -> None:
    net, x = tiny(prefix=5), pictures(1)

    def fields(positions: Any) -> Tensor:
        return ierf.effective_receptive_fields(net, x, "blocks.0", positions, method=method)

    wanted = fields([(20,), (6,)])
    same(fields([20, 6]), wanted)
    same(fields([(2, 3), (0, 1)]), wanted)
    same(fields(None)[:, [20, 6]], wanted)
    with pytest.raises(IerfError, match="no patch at"):
        fields([(0, 6)])


@pytest.mark.parametrize("method", ["srd", "attnlrp"])
def test_relevance_may_be_given_for_the_patches_alone(method: str) -> None:
    net, x = tiny(prefix=5), pictures()
    given = torch.randn(2, ROWS, COLUMNS, dtype=torch.float64)
    tokens = torch.cat([torch.zeros(2, 5), given.flatten(1)], 1)
    found = ierf.attribute(net, x, Relevance("blocks.0", given), method)
    same(found, ierf.attribute(net, x, Relevance("blocks.0", tokens), method))
    same(ierf.attribute(net, x, Relevance("blocks.0", given), method, "blocks.0"), given)
    with pytest.raises(IerfError, match="must be"):
        ierf.attribute(net, x, Relevance("blocks.0", given.mT), method)


def test_gradients_follow_a_direction_at_a_patch() -> None:
    net, x = tiny(prefix=5), pictures().requires_grad_()
    along = torch.linspace(-1, 1, 8).double()
    (slope,) = torch.autograd.grad((net.entering(x)[:, 20] @ along).sum(), x)
    found = ierf.attribute(net, x, Direction("blocks.0", along, (2, 3)), "gradient_x_input")
    same(found, (x * slope).sum(1).detach())


@pytest.mark.parametrize("method", ["attnlrp", "gradcam"])
def test_a_report_shows_the_maps_of_tokens_as_pictures(tmp_path: Path, chelsea: Image.Image, method: str) -> None:
    model = ierf.VisionModel(tiny(prefix=5).float(), Preprocess(size=SIZE, resize=None))
    explanation = ierf.explain(model, chelsea, [3], method=method)
    low = explanation.maps[3]["low"]
    assert low.shape == (ROWS, COLUMNS)
    same(low, ierf.attribute(model, model.prepare(chelsea), 3, method, "low")[0], 1e-5)
    explanation.save(tmp_path / "report.html")
    assert "4 × 6" in (tmp_path / "report.html").read_text()
