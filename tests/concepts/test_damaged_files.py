"""Damaged stores, banks and autoencoders: a sentence that says which, or the same result; nothing in between."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numcodecs.zstd import Zstd
from safetensors.torch import load_file, save_file
from support.banks import small_model, small_store
from support.damage import silent

from ierf.concepts import ConceptBank
from ierf.concepts.bank import read_pictures
from ierf.concepts.sae import SAE
from ierf.errors import IerfError
from ierf.store import PFVStore

LAYER = "act2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a bank with pictures, an autoencoder."""
    folder = tmp_path_factory.mktemp("whole")
    model = small_model()
    store = small_store(folder, model)
    bank = ConceptBank.fit(store, n_concepts=4, layers=[LAYER], l0_ratio=0.5, path=folder / "bank", model=model)
    bank.keep_pictures()
    SAE("topk", 8, 6, 2).save(folder / "sae")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def read_store(path: Path) -> list[Any]:
    store = PFVStore(path)
    layer = store.layer(LAYER)
    columns = (layer.pfvs, layer.ierfs, layer.positions, layer.norms, layer.relevances)
    shift = layer.shift
    assert shift is not None
    return [
        *(column[:].tolist() for column in columns),
        shift.tolist(),
        store.labels.tolist(),
        store.skipped,
        store.name(1),
    ]


def read_bank(path: Path) -> list[Any]:
    bank = ConceptBank.load(path)
    layer = bank.layer(LAYER)
    tensors = [getattr(layer, name).tolist() for name in ("atoms", "shift", "exemplars", "cosines", "frequencies")]
    shares = [layer.class_shares.of(concept) for concept in range(len(layer))]
    pictures = [picture.tobytes() for picture in read_pictures(path, LAYER, range(4))]
    return [tensors, shares, pictures, layer.encode(torch.ones(2, 8)).values.tolist(), repr(bank), repr(layer)]


def read_sae(path: Path) -> list[Any]:
    sae = SAE.load(path)
    return [sae.transform(torch.ones(3, 8)).tolist(), sae.components_.tolist(), repr(sae)]


def test_damaged_stores(folder: Path) -> None:
    parts = ("pfvs/c/0/0", "pfvs/zarr.json", "ierfs/c/1/0/0", "ierfs/zarr.json", "shift/c/0", "images.jsonl")

    def looked_at(path: Path) -> bool:
        name = path.relative_to(folder / "store").as_posix()
        return name in ("zarr.json", "images/predictions/c/0") or ("act1" not in name and name.endswith(parts))

    found, refused = silent(folder / "store", read_store, every=17, only=looked_at)
    assert not found, "\n".join(found)
    assert refused > 60


def test_damaged_banks(folder: Path) -> None:
    found, refused = silent(folder / "bank", read_bank, every=3)
    assert not [one for one in found if ".labels" not in one], "\n".join(found)
    assert refused > 100


def test_damaged_autoencoders(folder: Path) -> None:
    found, refused = silent(folder / "sae", read_sae)
    assert not found, "\n".join(found)
    assert refused > 100


@pytest.mark.parametrize("place", ["store/layers/act2/pfvs/c/0/0", "store/layers/act2/ierfs/c/0/0/0"])
def test_a_chunk_that_is_larger_than_it_may_be_is_not_unpacked(
    folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb: what a chunk says it holds is looked at before anything decodes it."""
    path = folder / place
    path.write_bytes(bytes(Zstd().encode(bytes(50_000_000))))
    assert path.stat().st_size < 5000
    monkeypatch.setattr(Zstd, "decode", lambda *_, **__: pytest.fail("it was unpacked"))
    layer = PFVStore(folder / "store").layer(LAYER)
    with pytest.raises(IerfError, match=rf"{path.name}' is damaged: it holds \d+ bytes, not \d+"):
        _ = (layer.pfvs if "pfvs" in place else layer.ierfs)[:2]


def test_pfvs_that_are_not_finite_are_refused(folder: Path) -> None:
    path = folder / "store" / "layers" / LAYER / "pfvs" / "c" / "0" / "0"
    values = np.frombuffer(path.read_bytes(), "<f2").copy()
    values[3] = np.nan
    path.write_bytes(values.tobytes())
    with pytest.raises(IerfError, match="pfvs' is damaged: it has values that are not finite"):
        _ = PFVStore(folder / "store").layer(LAYER).pfvs[:]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("atoms", lambda t: t * torch.nan, "atoms has values that are not finite"),
        ("exemplars", lambda t: t + 10**6, "exemplars points at what does not exist"),
        ("exemplars", lambda t: t.float(), "exemplars has the type float32"),
        ("cosines", lambda t: t[:, :1].contiguous(), "cosines is"),
        ("class_shares.starts", lambda t: t.flip(0), "class_shares.starts"),
        ("tree.parents", lambda t: torch.zeros_like(t), "tree.parents has a node before its parent"),
        ("tree.parents", lambda t: torch.where(t < 0, t, 0), "tree.parents splits a node into other than two"),
        ("tree.parents", lambda t: torch.full_like(t, -1), "tree.parents splits a node into other than two"),
        ("tree.leaves", lambda t: torch.zeros_like(t), "tree.leaves has a concept at a node that was split"),
    ],
)
def test_tensors_of_a_bank_that_do_not_fit_are_named(folder: Path, name: str, change: Any, said: str) -> None:
    from safetensors import safe_open

    path = folder / "bank" / "layers" / f"{LAYER}.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({**tensors, name: change(tensors[name])}, path, metadata)
    with pytest.raises(IerfError, match=said):
        ConceptBank.load(folder / "bank").layer(LAYER)


def test_weights_of_another_config_are_refused(folder: Path) -> None:
    """A number of active latents that is as good as any: the weights say which one they were trained with."""
    path = folder / "sae" / "config.json"
    path.write_text(path.read_text().replace('"k": 2', '"k": 3'))
    with pytest.raises(IerfError, match=r"does not fit its config\.json: kind, sizes or options"):
        SAE.load(folder / "sae")
