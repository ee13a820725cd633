"""Where training data comes from: a model, a store."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import ierf
from ierf.concepts.sae import FromModel, FromStore, InMemory
from ierf.errors import IerfError
from ierf.model import Preprocess
from ierf.store import Shard


class Net(nn.Module):
    """Two layers with different numbers of positions; the first channel of both is the picture's own number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.AvgPool2d(1), nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)).mean((2, 3))


@pytest.fixture
def model() -> ierf.VisionModel:
    return ierf.VisionModel(Net().eval(), Preprocess((4, 4), None, mean=(0, 0, 0), std=(1, 1, 1)), name="net")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures of one colour each, two of which are none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(np.full((4, 4, 3), 20 * i, np.uint8)).save(folder / f"{i}.png")
    for i in (3, 7):
        (folder / f"{i}.png").write_bytes(b"nothing")
    return folder


def numbers(rows: Tensor) -> list[int]:
    return [round(255 * float(value) / 20) for value in rows[:, 0]]


def test_layers_come_from_one_pass_with_the_same_number_of_rows(model: ierf.VisionModel, photos: Path) -> None:
    source = FromModel(model, photos, ["a", "b"], batch=3, seed=1)
    assert source.channels == {"a": 3, "b": 3}
    stream = source.chunks(0)
    epoch = [next(stream) for _ in range(4)]
    for chunk in epoch:
        assert numbers(chunk["a"]) == numbers(chunk["b"])
    seen = [number for chunk in epoch for number in numbers(chunk["a"])]
    assert sorted(seen) == sorted([i for i in range(10) if i not in (3, 7)] * 4)
    assert sorted(source.skipped) == ["3.png", "7.png"]
    second = [numbers(next(stream)["a"]) for _ in range(4)]
    assert [number for some in second for number in some] != seen
    for start in (1, 3, 6):
        rest = FromModel(model, photos, ["a", "b"], batch=3, seed=1).chunks(start)
        expected = ([numbers(chunk["a"]) for chunk in epoch] + second)[start]
        assert numbers(next(rest)["a"]) == expected


def test_shards_share_the_photographs(model: ierf.VisionModel, photos: Path) -> None:
    found = []
    for i in range(2):
        stream = FromModel(model, photos, ["b"], batch=5, per_image=1, shard=Shard(i, 2)).chunks(0)
        found.append(set(numbers(next(stream)["b"])))
    assert found[0] | found[1] == {0, 1, 2, 4, 5, 6, 8, 9}
    assert not found[0] & found[1]


def test_mistakes_are_explained(model: ierf.VisionModel, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(IerfError, match="4 positions, so 5"):
        FromModel(model, photos, ["a", "b"], per_image=5)
    with pytest.raises(IerfError, match="each once"):
        FromModel(model, photos, ["a", "a"])
    with pytest.raises(IerfError, match="no layer 'c'"):
        FromModel(model, photos, ["c"])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.png").write_bytes(b"")
    with pytest.raises(IerfError, match="none of the 1 photographs can be read"):
        next(FromModel(model, tmp_path / "bad", ["b"]).chunks(0))


def test_a_store_gives_its_rows(tmp_path: Path, photos: Path) -> None:
    for i in (3, 7):
        (photos / f"{i}.png").unlink()
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    loaded = ierf.VisionModel(net.eval(), Preprocess((8, 8), None), name="small")
    store = ierf.PFVStore.collect(loaded, photos, ["1"], tmp_path / "s", sampling="all", ierf=False)
    source = FromStore(store, ["1"], seed=2)
    rows = store.layer("1").pfvs.torch().float()
    for start in (0, 1, 5):
        chunk = next(source.chunks(start))["1"]
        assert sorted(map(tuple, chunk.tolist())) == sorted(map(tuple, rows.tolist()))
    assert torch.equal(next(source.chunks(5))["1"], next(FromStore(store, ["1"], seed=2).chunks(5))["1"])
    assert not torch.equal(next(source.chunks(0))["1"], next(source.chunks(1))["1"])


def test_memory_gives_every_row_in_every_epoch() -> None:
    x = torch.arange(50_000.0)[:, None]
    stream = InMemory(x, 3).chunks(0)
    chunks = [next(stream)[""] for _ in range(8)]
    assert torch.equal(torch.cat(chunks[:4]).sort(0).values, x)
    assert torch.equal(torch.cat(chunks[4:]).sort(0).values, x)
    assert torch.equal(next(InMemory(x, 3).chunks(6))[""], chunks[6])


@pytest.mark.parametrize("n", [1, 3, 70])
def test_few_rows_come_many_at_once(n: int) -> None:
    """Whole epochs, each in an order of its own."""
    x = torch.arange(float(n))[:, None]
    chunk = next(InMemory(x, 3).chunks(4))[""]
    assert 128 < len(chunk) <= 256
    epochs = chunk.view(-1, n)
    assert torch.equal(epochs.sort(1).values, x[:, 0].expand_as(epochs))
    assert n == 1 or not torch.equal(epochs[0], epochs[1])
    assert torch.equal(next(islice(InMemory(x, 3).chunks(0), 4, None))[""], chunk)
