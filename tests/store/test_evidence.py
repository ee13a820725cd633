"""What stands in a row is what the library computes for that image, layer and position by other ways."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.networks import chi_square
from support.transformers import TinyTransformer
from torch import Tensor, nn
from torch.nn import functional as F

import ierf
from ierf.errors import IerfError
from ierf.model import Preprocess
from ierf.store import PFVStore
from ierf.store.plan import reduced

Photos = Callable[..., Path]


def seen(net: nn.Module, layer: str, x: Tensor, *, entering: bool = False) -> Tensor:
    """What enters or leaves a module."""
    kept: list[Tensor] = []
    module = net.get_submodule(layer)
    handle = (
        module.register_forward_pre_hook(lambda _, args: kept.append(args[0].detach().clone()))
        if entering
        else module.register_forward_hook(lambda _, args, out: kept.append(out.detach().clone()))
    )
    with torch.no_grad():
        net(x)
    handle.remove()
    return kept[0]


@pytest.fixture(scope="module")
def resnet() -> ierf.VisionModel:
    return ierf.load("bundled:resnet18-tiny")


@pytest.mark.parametrize(("per_image", "resolution"), [(1, 16), (3, None)])
def test_rows_of_a_cnn(
    resnet: ierf.VisionModel, photos: Photos, tmp_path: Path, per_image: int, resolution: int | None
) -> None:
    folder = photos(3)
    store = PFVStore.collect(
        resnet, folder, ["layer1.1", "layer3"], tmp_path / "s", per_image=per_image, resolution=resolution, batch=2
    )
    for name, last in (("layer1.1", "layer1.1.relu2"), ("layer3", "layer3.1.relu2")):
        layer = store.layer(name)
        assert len(layer) == 3 * per_image
        assert layer.plan.values == "pre-activation"
        for row in range(len(layer)):
            image = row // per_image
            x = resnet.prepare(folder / f"{image:03d}.png")
            exemplar = layer.exemplar(row)
            i, j = exemplar.position
            before = seen(resnet.net, last, x, entering=True)[0, :, i, j]
            np.testing.assert_allclose(layer.pfvs[row], before.numpy(), rtol=1e-3, atol=1e-3)
            assert (layer.pfvs[row] < 0).any()
            assert exemplar.norm == pytest.approx(float(before.norm()), rel=1e-4)
            assert exemplar.name == f"{image:03d}.png"
            assert exemplar.prediction == store.predictions[image] == int(resnet(x).argmax())
            relevance = ierf.attribute(resnet, x, resolution=name)[0]
            assert exemplar.relevance == pytest.approx(float(relevance[i, j]), rel=1e-3)
            assert exemplar.relevance > 0
            full = ierf.effective_receptive_fields(resnet, x, name, [(i, j)])[0, 0]
            kept = torch.from_numpy(layer.ierfs[row])
            assert kept.shape == ((16, 16) if resolution else (64, 64))
            step = float(kept.abs().max()) / 127
            assert float((kept - reduced(full, kept.shape)).abs().max()) <= 0.51 * step
            torch.testing.assert_close(layer.ierf(row, resnet), full)
        assert len({tuple(p) for p in layer.positions[:per_image].tolist()}) == per_image


def test_positions_follow_the_relevance(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    """One photograph 1500 times under different names: its draws must have the distribution of its relevance."""
    photo = Image.open(photos(1) / "000.png")
    images = [photo] * 1500
    store = PFVStore.collect(model, images, ["act2"], tmp_path / "s", ierf=False, batch=250)
    relevance = ierf.attribute(model, model.prepare(photo), resolution="act2")[0].clamp_min(0).flatten()
    rows, columns = store.layer("act2").positions[:].T
    counts = np.bincount(rows * 10 + columns, minlength=80)
    expected = 1500 * (relevance / relevance.sum()).double().numpy()
    likely = expected > 5
    pooled = [np.append(v[likely], v[~likely].sum()) for v in (counts, expected)]
    assert chi_square(pooled[0], np.maximum(pooled[1], 1e-9)) < 4
    assert chi_square(counts[likely], np.full(likely.sum(), 1500 / likely.sum())) > 8


def test_uniform_draws_ignore_relevance(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    images = [Image.open(photos(1) / "000.png")] * 1600
    store = PFVStore.collect(model, images, ["act2"], tmp_path / "s", ierf=False, batch=400, sampling="uniform")
    rows, columns = store.layer("act2").positions[:].T
    assert chi_square(np.bincount(rows * 10 + columns, minlength=80), np.full(80, 20.0)) < 4


def test_all_positions_and_outputs(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    folder = photos(3)
    store = PFVStore.collect(
        model, folder, ["act1", "act2"], tmp_path / "s", sampling="all", ierf=False, values="output", pfv_type="float32"
    )
    x = torch.cat([model.prepare(folder / f"{i:03d}.png") for i in range(3)])
    for name in ("act1", "act2"):
        layer, maps = store.layer(name), seen(model.net, name, x)
        torch.testing.assert_close(layer.pfvs.torch(), maps.movedim(1, -1).flatten(0, 2))
        relevance = torch.cat([ierf.attribute(model, x[i], resolution=name) for i in range(3)])
        torch.testing.assert_close(layer.relevances.torch(), relevance.flatten(), rtol=1e-4, atol=1e-6)
        assert layer.images.tolist() == [i for i in range(3) for _ in range(maps.shape[2] * maps.shape[3])]
    with pytest.raises(IerfError, match="keeps no iERFs"):
        _ = store.layer("act1").ierfs


def test_a_layer_that_ends_without_an_activation_gives_its_output(
    model: ierf.VisionModel, photos: Photos, tmp_path: Path
) -> None:
    folder = photos(2)
    store = PFVStore.collect(model, folder, ["conv1", "norm2"], tmp_path / "s", pfv_type="float32")
    for name in ("conv1", "norm2"):
        layer = store.layer(name)
        assert layer.plan.values == "output"
        for row in range(2):
            i, j = layer.positions[row]
            maps = seen(model.net, name, model.prepare(folder / f"{row:03d}.png"))
            torch.testing.assert_close(layer.pfvs.torch(row), maps[0, :, i, j])


@pytest.mark.parametrize("batch", [1, 5])
def test_batch_mates_do_not_matter(model: ierf.VisionModel, photos: Photos, tmp_path: Path, batch: int) -> None:
    folder = photos(5)
    one, other = (
        PFVStore.collect(model, folder, ["act2"], tmp_path / f"{size}", batch=size).layer("act2") for size in (3, batch)
    )
    np.testing.assert_array_equal(one.positions[:], other.positions[:])
    np.testing.assert_allclose(one.pfvs[:], other.pfvs[:], rtol=2e-3)
    np.testing.assert_allclose(one.ierfs[:], other.ierfs[:], atol=2 * float(one.ierfs[:].max()) / 127)


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_tokens_are_patches(photos: Photos, tmp_path: Path, prefix: int) -> None:
    net = TinyTransformer(prefix, grid=(4, 5), head="mean").eval()
    model = ierf.VisionModel(net, Preprocess((16, 20), None), name="tokens")
    folder = photos(2)
    store = PFVStore.collect(model, folder, ["blocks.0", "blocks.1"], tmp_path / "s", per_image=2, pfv_type="float32")
    assert store.plan.method == "attnlrp"
    for name in store.layers:
        layer = store.layer(name)
        assert (layer.plan.map, layer.plan.prefix_tokens) == ((4, 5), prefix)
        for row in range(4):
            x = model.prepare(folder / f"{row // 2:03d}.png")
            i, j = layer.exemplar(row).position
            tokens = seen(net, name, x)[0]
            torch.testing.assert_close(layer.pfvs.torch(row), tokens[prefix + 5 * i + j])
            full = ierf.effective_receptive_fields(model, x, name, [(i, j)], resolution="patch")[0, 0]
            kept = torch.from_numpy(layer.ierfs[row])
            assert kept.shape == (4, 5)
            assert float((kept - full).abs().max()) <= 0.51 * float(full.abs().max()) / 127


def test_tokens_are_weighed_by_the_norm_of_their_relevance(photos: Photos, tmp_path: Path) -> None:
    from ierf.attribution.attribute import relevance_pass

    model = ierf.VisionModel(TinyTransformer(1, grid=(4, 5)).eval(), Preprocess((16, 20), None))
    folder = photos(1)
    store = PFVStore.collect(model, folder, ["blocks.0"], tmp_path / "s", sampling="all", ierf=False)
    with relevance_pass(model, model.prepare(folder / "000.png"), "attnlrp", {}) as run:
        node = run.layer("blocks.0")
        (gradient,) = run.back(*run.start(None), [node])
        expected = [float(((run.pfvs(node) * gradient)[0, t] ** 2).sum().sqrt()) for t in range(1, 21)]
    np.testing.assert_allclose(store.layer("blocks.0").relevances[:], expected, rtol=1e-4)
    assert max(expected) > 0


def test_patches_behind_the_last_attention_have_no_relevance(photos: Photos, tmp_path: Path) -> None:
    model = ierf.VisionModel(TinyTransformer(1, grid=(4, 5), head="class").eval(), Preprocess((16, 20), None))
    folder = photos(2)
    with pytest.raises(IerfError, match=r"blocks\.1.*take an earlier layer"):
        PFVStore.collect(model, folder, ["blocks.0", "blocks.1"], tmp_path / "s")
    PFVStore.collect(model, folder, ["blocks.1"], tmp_path / "s", sampling="uniform")


def test_a_vision_transformer_of_timm(photos: Photos, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_vit", num_classes=7).eval()
    model = ierf.VisionModel(net, Preprocess((160, 160), None), name="test_vit")
    store = PFVStore.collect(model, photos(2), ["blocks.1"], tmp_path / "s")
    layer = store.layer("blocks.1")
    assert layer.plan.map == (10, 10)
    assert layer.plan.ierf == "patches"
    assert bool((layer.relevances[:] > 0).all())
    assert bool((layer.ierfs[:].reshape(2, -1).argmax(1) == layer.positions[:] @ np.array([10, 1])).all())


def test_half_precision_is_near(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    folder = photos(4)
    exact = PFVStore.collect(model, folder, ["act2"], tmp_path / "a", sampling="all", ierf=False)
    half = PFVStore.collect(model, folder, ["act2"], tmp_path / "b", sampling="all", ierf=False, dtype="bfloat16")
    one, other = (store.layer("act2").pfvs.torch().float() for store in (exact, half))
    assert not torch.equal(one, other)
    assert float(F.cosine_similarity(one, other).min()) > 0.99


def test_values_that_do_not_fit_are_refused(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    with torch.no_grad():
        model.net.get_parameter("norm2.weight").fill_(1e7)
    with pytest.raises(IerfError, match="float32"):
        PFVStore.collect(model, photos(2), ["act2"], tmp_path / "s")


@pytest.mark.parametrize(
    ("layers", "settings", "message"),
    [
        (["act3"], {}, "did you mean"),
        ([], {}, "name the layers"),
        (["act1", "act1"], {}, "each once"),
        (["head"], {}, "head"),
        (["act1"], {"sampling": "relevant"}, "relevance"),
        (["act1"], {"sampling": "all"}, "ierf=False"),
        (["act1"], {"per_image": 1000}, "320 positions"),
        (["act1"], {"per_image": 0}, "at least 1"),
        (["act1"], {"per_images": 2}, "per_image"),
        (["act1"], {"options": {"bios": 1}}, "bias"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    model: ierf.VisionModel,
    photos: Photos,
    tmp_path: Path,
    layers: list[str],
    settings: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(IerfError, match=message):
        PFVStore.collect(model, photos(2), layers, tmp_path / "s", **settings)
    assert not (tmp_path / "s").exists()
