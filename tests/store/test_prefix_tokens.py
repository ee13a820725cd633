"""Tokens in front of the patches: kept on request, each in its own row, and shown without a place."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.transformers import TinyTransformer

import ierf
from ierf.attribution.attribute import relevance_pass
from ierf.errors import IerfError
from ierf.model import Preprocess, capture
from ierf.store import PFVStore, problems
from ierf.store.pictures import part
from ierf.store.plan import draw, position_of, stored_positions, token_name

Photos = Callable[..., Path]


def tokens(prefix: int, suffix: int = 0) -> ierf.VisionModel:
    net = TinyTransformer(prefix, suffix, grid=(4, 5), head="mean").eval()
    return ierf.VisionModel(net, Preprocess((16, 20), None), name="tokens")


@pytest.mark.parametrize(("prefix", "suffix", "method"), [(1, 0, None), (3, 2, "cp_lrp"), (2, 0, "srd")])
def test_rows_of_prefix_tokens(photos: Photos, tmp_path: Path, prefix: int, suffix: int, method: str | None) -> None:
    """PFV, relevance and iERF of each are those of the token; the patches' rows are those of a store without them."""
    model, folder = tokens(prefix, suffix), photos(3)
    settings = {"per_image": 2, "pfv_type": "float32", "method": method, "batch": 2}
    with_tokens = PFVStore.collect(model, folder, ["blocks.0"], tmp_path / "a", prefix_tokens=True, **settings)
    without = PFVStore.collect(model, folder, ["blocks.0"], tmp_path / "b", **settings).layer("blocks.0")
    layer, n = with_tokens.layer("blocks.0"), prefix + 2
    assert len(layer) == 3 * n
    assert (layer.plan.rows_per_image, layer.plan.prefix_rows, layer.plan.map) == (n, prefix, (4, 5))
    carried = with_tokens.plan.method
    for image in range(3):
        x = model.prepare(folder / f"{image:03d}.png")
        pfvs = capture(model, x, ["blocks.0"])["blocks.0"].pfvs[0]
        with relevance_pass(model, x, carried, {}) as run:
            node = run.layer("blocks.0")
            (gradient,) = run.back(*run.start(None), [node])
            shares = (run.pfvs(node) * gradient)[0].detach()
        for t in range(prefix):
            exemplar = layer.exemplar(image * n + t)
            assert exemplar.position == (t,)
            assert exemplar.image == image
            torch.testing.assert_close(layer.pfvs.torch(exemplar.row), pfvs[t])
            expected = float(shares[t].sum() if carried == "srd" else shares[t].norm())
            assert exemplar.relevance == pytest.approx(expected, rel=1e-4, abs=1e-6)
            options = {"method": carried, "resolution": "input" if carried == "srd" else "patch"}
            full = ierf.effective_receptive_fields(model, x, "blocks.0", [(t,)], **options)[0, 0]
            kept = torch.from_numpy(layer.ierfs[exemplar.row])
            assert float((kept - full).abs().max()) <= 0.51 * float(full.abs().max()) / 127
        rest = range(image * n + prefix, (image + 1) * n)
        of_patches = (shares.sum(1) if carried == "srd" else shares.norm(dim=1))[prefix : prefix + 20]
        drawn = draw(of_patches.double().numpy(), 2, f"0/blocks.0/{image:03d}.png")
        assert [layer.exemplar(row).position for row in rest] == [divmod(int(place), 5) for place in drawn]
        for row, other in zip(rest, range(2 * image, 2 * image + 2), strict=True):
            for name in ("pfvs", "positions", "relevances", "norms", "ierfs"):
                np.testing.assert_array_equal(getattr(layer, name)[row], getattr(without, name)[other])


def test_the_whole_sequence(photos: Photos, tmp_path: Path) -> None:
    model, folder = tokens(2), photos(2)
    settings = {"sampling": "all", "ierf": False, "pfv_type": "float32", "prefix_tokens": True}
    layer = PFVStore.collect(model, folder, ["blocks.1"], tmp_path / "s", **settings).layer("blocks.1")
    x = torch.cat([model.prepare(folder / f"{i:03d}.png") for i in range(2)])
    torch.testing.assert_close(layer.pfvs.torch(), capture(model, x, ["blocks.1"])["blocks.1"].pfvs.flatten(0, 1))
    patches = [(i, j) for i in range(4) for j in range(5)]
    assert [layer.exemplar(row).position for row in range(22, 44)] == [(0,), (1,), *patches]


def test_full_resolution_and_pictures(photos: Photos, tmp_path: Path) -> None:
    """A token's pictures are the whole photograph with its name, and no cell is framed."""
    model, folder = tokens(2), photos(1)
    layer = PFVStore.collect(model, folder, ["blocks.0"], tmp_path / "s", prefix_tokens=True).layer("blocks.0")
    x = model.prepare(folder / "000.png")
    torch.testing.assert_close(
        layer.ierf(1, model), ierf.effective_receptive_fields(model, x, "blocks.0", [(1,)])[0, 0].detach()
    )
    for row in range(2):
        whole, some = (np.asarray(picture) for picture in layer.pictures(row, side=120))
        assert whole.shape == (96, 120, 3)
        np.testing.assert_array_equal(whole, some)
    assert not np.array_equal(*(np.asarray(layer.pictures(row, side=120)[0])[-20:, :60] for row in range(2)))


def test_a_name_where_a_cell_would_be() -> None:
    grey, box = Image.new("RGB", (80, 40), "#808080"), (0.0, 0.0, 80.0, 40.0)
    named, framed, plain = (
        np.asarray(part(grey, box, 160, position, cells)).astype(int)
        for position, cells in (((0,), (4, 8)), ((1, 2), (4, 8)), ((5,), (32,)))
    )
    assert (plain == 128).all()
    assert not (named[-22:, :100] == 128).all()
    assert (named[:-22] == 128).all()
    assert not (named == 255).all(1).any()
    assert (framed[20, 40:60] == 255).all()
    assert (token_name(0), token_name(3)) == ("class token", "prefix token 3")


def test_places_and_back() -> None:
    stored = stored_positions(np.arange(8).reshape(2, 4), (2, 3), 2)
    assert stored.tolist() == [[[-1, 0], [-1, 1], [0, 0], [0, 1]], [[0, 2], [1, 0], [1, 1], [1, 2]]]
    assert [position_of(each) for each in stored.reshape(-1, 2)[1:3]] == [(1,), (0, 0)]
    assert stored_positions(np.array([0, 4]), (7,), 0).tolist() == [[0], [4]]
    assert position_of(np.array([0])) == (0,)


def test_a_store_without_them_is_one_of_version_1(photos: Photos, tmp_path: Path) -> None:
    """Byte for byte as before there were any: the manifest knows neither setting nor rows."""
    model, folder = tokens(1), photos(2)
    plain = PFVStore.collect(model, folder, ["blocks.0"], tmp_path / "a")
    manifest = json.loads((plain.path / "zarr.json").read_text())["attributes"]
    assert manifest["version"] == 1
    assert list(manifest["sampling"]) == ["kind", "per_image", "seed"]
    assert "prefix_rows" not in manifest["layers"][0]
    kept = PFVStore.collect(model, folder, ["blocks.0"], tmp_path / "b", prefix_tokens=True)
    manifest = json.loads((kept.path / "zarr.json").read_text())["attributes"]
    assert manifest["version"] == 2
    assert manifest["sampling"]["prefix_tokens"] is True
    assert manifest["layers"][0]["prefix_rows"] == 1
    assert [*problems(plain.path), *problems(kept.path)] == []
    with pytest.raises(IerfError, match=r"sampling\.prefix_tokens is None there, True here"):
        PFVStore.collect(model, folder, ["blocks.0"], plain.path, prefix_tokens=True)
    manifest_path = kept.path / "zarr.json"
    manifest_path.write_text(manifest_path.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(IerfError, match="version 3 of the format, this ierf reads 1 and 2"):
        PFVStore(kept.path)


def test_where_there_are_none(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    folder = photos(1)
    for net, layer in ((model, "act2"), (tokens(0), "blocks.0")):
        with pytest.raises(IerfError, match="leave prefix_tokens"):
            PFVStore.collect(net, folder, [layer], tmp_path / "s", prefix_tokens=True)
    assert not (tmp_path / "s").exists()
