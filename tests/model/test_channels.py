"""Networks of one, three, four and more channels: what a photograph becomes, and what is asked for instead."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ierf
from ierf.errors import IerfError
from ierf.model import Preprocess


def net(channels: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).eval()


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 56, 3), dtype=np.uint8))


def test_a_network_of_one_channel_sees_grey(photo: Image.Image) -> None:
    """ITU-R 601: 0.299 R + 0.587 G + 0.114 B, to a rounded value; then one mean and one deviation."""
    model = ierf.VisionModel(net(1), Preprocess(size=(48, 56), resize=None, mean=(0.4,), std=(0.2,)))
    grey = (np.asarray(photo, float) @ [0.299, 0.587, 0.114]) / 255
    found = model.prepare(photo)
    assert found.shape == (1, 1, 48, 56)
    assert float((found[0, 0] - torch.from_numpy((grey - 0.4) / 0.2)).abs().max()) < 1.1 / 255 / 0.2
    assert torch.equal(model.prepare(photo.convert("L")), found)


def test_the_default_goes_by_the_first_convolution(photo: Image.Image) -> None:
    assert ierf.VisionModel(net(3)).preprocess == Preprocess()
    assert ierf.VisionModel(net(1)).preprocess == Preprocess(mean=(0.449,), std=(0.226,))
    assert ierf.VisionModel(net(5)).preprocess.shape == (5, 224, 224)
    assert ierf.VisionModel(nn.Linear(3, 2)).preprocess == Preprocess()
    decoder_first = nn.ModuleDict({"up": nn.Conv2d(8, 2, 1), "stem": nn.Conv2d(3, 8, 1)})
    assert ierf.VisionModel(decoder_first).preprocess == Preprocess()
    assert ierf.VisionModel(nn.Sequential(nn.LazyConv2d(4, 3))).preprocess == Preprocess()


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_an_input_is_taken_as_it_is(channels: int, tmp_path: Path) -> None:
    x = torch.randn(channels, 20, 24, generator=torch.Generator().manual_seed(1))
    model = ierf.VisionModel(net(channels))
    np.save(tmp_path / "x.npy", x.numpy())
    for given in (x, x[None], tmp_path / "x.npy", str(tmp_path / "x.npy")):
        assert torch.equal(model.prepare(given), x[None])
        found = ierf.explain(model, given, classes=[1])
        expected = ierf.attribute(model, x[None], 1)[0]
        torch.testing.assert_close(found.maps[1]["input"], expected.detach())
    found.save(tmp_path / "report.html")
    assert found.photo.size == (24, 20)


def test_an_input_becomes_a_picture_again(photo: Image.Image) -> None:
    for channels in (1, 3):
        preprocess = Preprocess.of_channels(channels)
        seen = preprocess.view(photo if channels == 3 else photo.convert("L"))
        assert preprocess.picture(preprocess.to_tensor(seen)).tobytes() == seen.tobytes()
    bands = torch.stack([torch.linspace(0, k, 6).view(2, 3) for k in range(1, 5)])
    grey = np.asarray(Preprocess.of_channels(4).picture(bands))[..., 0]
    assert grey.ravel().tolist() == [0, 51, 102, 153, 204, 255]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(3, 8, 8), "has 4 channels"),
        (torch.zeros(2, 4, 8, 8), "has the shape"),
        (torch.zeros(8, 8), "has the shape"),
        (torch.zeros(4, 8, 8, dtype=torch.uint8), "floating point"),
        (torch.full((4, 8, 8), torch.nan), "NaN"),
        (np.zeros((8, 8, 3), np.uint8), r"takes 4 channels .* a tensor \(4, height, width\)"),
        (np.zeros((8, 8, 7), np.uint16), "uint8 array"),
    ],
)
def test_what_is_no_input_of_four_channels(given: Any, said: str) -> None:
    for call in (ierf.VisionModel(net(4)).prepare, lambda x: ierf.explain(net(4), x)):
        with pytest.raises(IerfError, match=said):
            call(given)


def test_files_of_arrays_that_are_none(tmp_path: Path) -> None:
    model = ierf.VisionModel(net(4))
    with pytest.raises(IerfError, match=r"missing\.npy"):
        model.prepare(tmp_path / "missing.npy")
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "whole.npy", np.zeros((4, 8, 8), np.int32))
    for name, said in (("text", "cannot read"), ("objects", "cannot read"), ("whole", "floating point")):
        with pytest.raises(IerfError, match=said):
            model.prepare(tmp_path / f"{name}.npy")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mean": (0.5,)}, "mean has 1 channels and std 3"),
        ({"mean": (), "std": ()}, "one number per channel"),
        ({"mean": 0.5, "std": 0.5}, "one number per channel"),
        ({"mean": (0.5,), "std": (0.0,)}, "above 0"),
        ({"mean": (float("nan"),), "std": (1.0,)}, "finite"),
    ],
)
def test_statistics_that_do_not_fit(options: dict[str, Any], said: str) -> None:
    with pytest.raises(IerfError, match=said):
        Preprocess(**options)


def test_a_store_of_grey_photographs(photo: Image.Image, tmp_path: Path) -> None:
    model = ierf.VisionModel(net(1), Preprocess(size=(16, 16), resize=16, mean=(0.5,), std=(0.5,)))
    store = ierf.PFVStore.collect(model, [photo, photo.rotate(90)], layers=["0"], path=tmp_path / "s.zarr")
    assert len(store.layer("0").pfvs) > 0
    with pytest.raises(IerfError, match="an attack changes RGB pixels"):
        ierf.graph.attack(model, photo, epsilon=2)
