"""μ_BN in the store: what a network's own batch-norm says, kept, checked, and missed without harm."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

import ierf
from ierf.store import PFVStore, Settings, collect, problems

Photos = Callable[..., Path]

LAYERS = ["act1", "act2"]


@pytest.fixture
def lively(model: ierf.VisionModel) -> ierf.VisionModel:
    """The small network with a batch-norm that does something."""
    norm = model.net.norm2
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        torch.nn.init.normal_(tensor, generator=torch.Generator().manual_seed(1))
    norm.running_var.copy_(torch.linspace(0.5, 2, len(norm.running_var)))
    return model


def without_shifts(folder: Path) -> None:
    """The store as it was written before there were shifts."""
    for path in [folder / "collection" / "plan.json", folder / "zarr.json", *folder.glob("layers/*/zarr.json")]:
        text = json.loads(path.read_text())
        for layer in [
            text,
            text.get("attributes", {}),
            *text.get("layers", text.get("attributes", {}).get("layers", [])),
        ]:
            layer.pop("shift", None)
        path.write_text(json.dumps(text, indent=2, ensure_ascii=False) + "\n")
    for array in folder.glob("layers/*/shift"):
        (array / "c" / "0").unlink()
        (array / "c").rmdir()
        (array / "zarr.json").unlink()
        array.rmdir()


def test_each_layer_keeps_the_shift_of_its_own_pfvs(lively: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    store = PFVStore.collect(lively, photos(3), LAYERS, tmp_path / "s")
    norm = lively.net.norm2
    expected = norm.bias - norm.weight * norm.running_mean / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(store.layer("act2").shift, expected.detach())
    torch.testing.assert_close(store.layer("act1").shift, lively.net.conv1.bias.detach())
    raw = zarr.open_group(str(tmp_path / "s"), mode="r")["layers/act2/shift"]
    assert np.array_equal(raw[:], store.layer("act2").shift)
    assert not list(problems(tmp_path / "s"))


def test_pfvs_behind_the_activation_have_none(lively: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    store = PFVStore.collect(lively, photos(3), ["act2", "norm2"], tmp_path / "s", values="output")
    assert store.layer("act2").shift is None
    assert store.layer("norm2").shift is not None
    assert not (tmp_path / "s" / "layers" / "act2" / "shift").exists()


def test_a_damaged_shift_is_noticed(lively: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    collect(lively, photos(3), LAYERS, tmp_path / "s")
    chunk = tmp_path / "s" / "layers" / "act2" / "shift" / "c" / "0"
    chunk.write_bytes(b"\0" + chunk.read_bytes()[1:])
    assert list(problems(tmp_path / "s")) == ["layers/act2/shift/c/0 was changed"]
    chunk.unlink()
    assert list(problems(tmp_path / "s")) == ["layers/act2/shift/c/0 is missing"]


def test_a_store_from_before_opens_goes_on_and_grows(lively: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    settings, folder = Settings(block=2, batch=2), tmp_path / "s"
    collect(lively, photos(6), LAYERS, folder, settings)
    without_shifts(folder)
    assert PFVStore(folder).layer("act2").shift is None
    assert not list(problems(folder))
    (folder / "zarr.json").unlink()
    (folder / "collection" / "blocks" / "00000001.json").unlink()
    assert collect(lively, tmp_path / "photos", LAYERS, folder, settings).images == 2
    collect(lively, photos(3, "more"), LAYERS, folder, settings, append=True)
    assert len(PFVStore(folder)) == 9
    assert PFVStore(folder).layer("act1").shift is None
    assert not list(problems(folder))


def test_appending_keeps_the_shift(lively: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    collect(lively, photos(3), LAYERS, tmp_path / "s")
    before = PFVStore(tmp_path / "s").layer("act2").shift
    collect(lively, photos(2, "more"), LAYERS, tmp_path / "s", append=True)
    assert torch.equal(before, PFVStore(tmp_path / "s").layer("act2").shift)
    assert not list(problems(tmp_path / "s"))
