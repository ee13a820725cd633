"""Concepts of a transformer whose store keeps the tokens in front of the patches."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.transformers import TinyTransformer

import ierf
from ierf.concepts.bank import SIDE
from ierf.model import Preprocess
from ierf.store import PFVStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PFVStore:
    """Two prefix tokens and one patch of each of twelve photographs; and one store without the tokens beside it."""
    folder, random = tmp_path_factory.mktemp("tokens"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(12):
        pixels = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 32), Image.Resampling.BICUBIC).save(folder / "photos" / f"{i:02d}.png")
    model = ierf.VisionModel(TinyTransformer(2, grid=(4, 5)).eval(), Preprocess((16, 20), None), name="tokens")
    PFVStore.collect(model, folder / "photos", ["blocks.0"], folder / "patches")
    return PFVStore.collect(model, folder / "photos", ["blocks.0"], folder / "all", prefix_tokens=True)


def test_concepts_are_made_of_both(store: PFVStore, tmp_path: Path) -> None:
    layer = store.layer("blocks.0")
    bank = ierf.ConceptBank.fit(store, n_concepts=36, path=tmp_path / "bank", l0_ratio=0.95)
    found = ierf.ConceptBank.load(tmp_path / "bank", store).layer("blocks.0")
    assert (found.rows, found.prefix_tokens, found.shift_from) == (36, 2, "mean")
    np.testing.assert_allclose(found.shift.numpy(), layer.pfvs[:].astype(np.float32).mean(0), atol=1e-4)
    nearest = found.exemplars[:, 0].tolist()
    assert {layer.exemplar(row).position for row in nearest} >= {(0,), (1,)}
    concept = next(k for k, row in enumerate(nearest) if layer.exemplar(row).position == (0,))
    (picture,) = bank.exemplar_pictures("blocks.0", concept, n=1)
    _, whole = layer.pictures(nearest[concept], side=SIDE)
    assert picture.size == (96, 77)
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(whole))


def test_a_store_of_the_patches_alone_is_another_one(store: PFVStore, tmp_path: Path) -> None:
    """Its rows are numbered otherwise, so that exemplars would be others."""
    ierf.ConceptBank.fit(store, n_concepts=3, path=tmp_path / "bank", l0_ratio=0.5)
    with pytest.raises(ierf.IerfError, match=r"sampling\.prefix_tokens is True there, None here"):
        ierf.ConceptBank.load(tmp_path / "bank", store.path.parent / "patches")
