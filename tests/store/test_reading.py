"""Reading parts of a store, batches for training, nearest neighbours, pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from torch.nn import functional as F

import ierf
from ierf.errors import IerfError, UnknownNameError
from ierf.store import PFVStore, problems
from ierf.store.pictures import lit, part, window

Photos = Callable[..., Path]


@pytest.fixture
def store(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> PFVStore:
    """18 images of 23 in blocks of 4, three PFVs each; block 2 has no image."""
    folder = photos(23, bad=(2, 8, 9, 10, 11))
    return PFVStore.collect(model, folder, ["act1", "act2"], tmp_path / "s", per_image=3, block=4, batch=3)


def test_any_rows_without_the_rest(store: PFVStore) -> None:
    pfvs = store.layer("act2").pfvs
    everything = np.stack([pfvs[i] for i in range(len(pfvs))])
    assert everything.shape == pfvs.shape == (54, 8)
    random = np.random.default_rng(0)
    for rows in (slice(None), slice(5, 31, 3), slice(None, None, -1), -1, [7, 0, 53, 7], random.permutation(54)):
        np.testing.assert_array_equal(pfvs[rows], everything[rows])
        assert torch.equal(pfvs.torch(rows), torch.from_numpy(np.array(everything[rows])))
    np.testing.assert_array_equal(pfvs[everything[:, 0] > 0], everything[everything[:, 0] > 0])
    assert pfvs[[]].shape == (0, 8)
    ierfs = store.layer("act2").ierfs
    np.testing.assert_array_equal(ierfs[[40, 3]], np.stack([ierfs[40], ierfs[3]]))
    kept = [i for i in range(23) if i not in (2, 8, 9, 10, 11)]
    assert store.layer("act2").images.tolist() == [i for i in kept for _ in range(3)]


def test_only_the_chunks_of_the_rows_are_read(store: PFVStore, monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[str] = []
    get = zarr.storage.LocalStore.get

    async def noted(self: object, key: str, *arguments: object, **options: object) -> object:
        touched.append(key)
        return await get(self, key, *arguments, **options)

    pfvs = store.layer("act2").pfvs
    monkeypatch.setattr(zarr.storage.LocalStore, "get", noted)
    _ = pfvs[[0, 53]]
    assert sorted({key.rsplit("pfvs/")[1] for key in touched}) == ["c/0/0", "c/5/0"]


def test_zarr_alone_reads_it(store: PFVStore) -> None:
    group = zarr.open_group(str(store.path), mode="r")
    assert group.attrs["format"] == "pfv-ierf-store"
    raw = group["layers/act2"]
    assert raw["pfvs"].shape == (69, 8)
    kept = np.repeat(group["images/predictions"][:] >= 0, 3)
    np.testing.assert_array_equal(raw["pfvs"][:][kept], store.layer("act2").pfvs[:])
    values = (raw["ierfs"][:].astype(np.float32) - 128) * raw["ierf_scales"][:][:, None, None]
    np.testing.assert_array_equal(values[kept], store.layer("act2").ierfs[:])
    assert bool((raw["positions"][:][~kept] == -1).all())


@pytest.mark.parametrize("at_once", [1, 1000, 1 << 26])
def test_batches_hold_every_row_once(store: PFVStore, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("ierf.store.store._SHUFFLED", at_once)
    pfvs = store.layer("act2")

    def rows(seed: int, epoch: int = 0) -> torch.Tensor:
        batches = list(pfvs.batches(10, seed, epoch))
        assert [len(batch) for batch in batches] == [10, 10, 10, 10, 10, 4]
        return torch.cat(batches)

    def in_order(values: torch.Tensor) -> list[list[float]]:
        return sorted(values.float().tolist())

    one = rows(0)
    assert in_order(one) == in_order(pfvs.pfvs.torch())
    assert torch.equal(one, rows(0))
    assert not torch.equal(one, pfvs.pfvs.torch())
    for other in (rows(1), rows(0, 1)):
        assert in_order(other) == in_order(one)
        assert not torch.equal(other, one)


def test_nearest_by_brute_force(store: PFVStore) -> None:
    pfvs = store.layer("act2").pfvs.torch().float()
    vectors = torch.cat([torch.randn(4, 8), pfvs[[17]], torch.zeros(1, 8)])
    found = store.layer("act2").nearest(vectors, 6)
    cosines = F.cosine_similarity(vectors[:, None], pfvs[None], dim=2)
    torch.testing.assert_close(found.cosines, cosines.sort(1, descending=True).values[:, :6])
    torch.testing.assert_close(cosines.gather(1, found.rows), found.cosines)
    assert found.rows[4, 0] == 17
    assert found.cosines[4, 0] == pytest.approx(1, abs=1e-5)
    assert store.layer("act2").nearest(vectors[0].numpy(), 100).rows[0].sort().values.tolist() == list(range(54))


def test_an_incomplete_or_missing_store(store: PFVStore, tmp_path: Path) -> None:
    with pytest.raises(IerfError, match="ierf collect"):
        PFVStore(tmp_path / "nothing")
    with pytest.raises(UnknownNameError, match="act1"):
        store.layer("act")
    (store.path / "zarr.json").unlink()
    with pytest.raises(IerfError, match="not complete"):
        PFVStore(store.path)


def test_damage_is_found(store: PFVStore) -> None:
    assert list(problems(store.path)) == []
    chunk = store.path / "layers/act1/pfvs/c/3/0"
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(content)
    (store.path / "images/labels/c/1").unlink()
    (store.path / "layers/act2/norms/zarr.json").write_text("{")
    (store.path / "collection/blocks/00000004.json").unlink()
    names = store.path / "collection/images.jsonl"
    names.write_text(names.read_text().replace("005", "500"))
    found = list(problems(store.path))
    expected = [
        "images.jsonl",
        "act2/norms/zarr.json",
        "images/labels/c/1 is missing",
        "act1/pfvs/c/3/0 was",
        "block 4",
    ]
    assert len(found) == 5
    assert all(words in problem for words, problem in zip(expected, found, strict=True))


def test_photographs_may_have_moved(store: PFVStore, photos: Photos, tmp_path: Path) -> None:
    folder = Path(store.plan.sources[0].address)
    before = np.asarray(store.photo(22))
    folder.rename(tmp_path / "elsewhere")
    moved = PFVStore(store.path, images=tmp_path / "elsewhere")
    np.testing.assert_array_equal(np.asarray(moved.photo(22)), before)
    with pytest.raises(IerfError, match="there is no file"):
        PFVStore(store.path).photo(0)
    with pytest.raises(IerfError, match=r"number 22 is not '022\.png'"):
        PFVStore(store.path, images=photos(5, "fewer")).photo(22)


def test_pictures_from_memory(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    pictures = [np.asarray(Image.open(path)) for path in sorted(photos(2).iterdir())]
    store = PFVStore.collect(model, pictures, ["act1"], tmp_path / "s")
    assert store.view(1).size == (20, 16)
    with pytest.raises(IerfError, match="images="):
        PFVStore(tmp_path / "s").photo(0)
    for whole, covered in (store.layer("act1").pictures(1), store.layer("act1").pictures(1, model)):
        assert whole.size == (224, 179)
        assert covered.size == (224, 224)


def test_an_ierf_lights_its_pixels() -> None:
    photo = Image.new("RGB", (80, 40), (200, 100, 50))
    ierf_map = np.zeros((40, 80), np.float32)
    ierf_map[10:16, 60:66] = 1
    ierf_map[30, 5] = -9
    pixels = np.asarray(lit(photo, ierf_map)).astype(int)
    assert pixels[12, 62].tolist() == [200, 100, 50]
    assert pixels[30, 5].tolist() == pixels[35, 30].tolist() == [60, 30, 15]
    left, top, right, bottom = window(ierf_map, (80, 40))
    assert left <= 60.2
    assert right >= 65.8
    assert top <= 10.2
    assert bottom >= 15.8
    assert right - left == pytest.approx(bottom - top)
    assert right - left <= 12
    assert window(np.ones((4, 8), np.float32), (80, 40))[1::2] == (0, 40)


def test_the_cell_is_where_it_is_in_the_part() -> None:
    black = Image.new("RGB", (80, 40))
    whole = np.asarray(part(black, (0, 0, 80, 40), 160, (1, 6), (4, 8)))
    white = np.argwhere(whole[..., 0] == 255)
    assert (white.min(0).tolist(), white.max(0).tolist()) == ([20, 120], [39, 139])
    enlarged = np.asarray(part(black, (50, 0, 80, 30), 300, (1, 6), (4, 8)))
    white = np.argwhere(enlarged[..., 0] == 255)
    assert (white.min(0).tolist(), white.max(0).tolist()) == ([100, 100], [199, 199])
