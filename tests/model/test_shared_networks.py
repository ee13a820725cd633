"""Networks whose accuracy is known, on a sample of the development data: code, weights and preprocessing fit."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.networks import cifar_resnet, mobilenet_v1
from torch import Tensor, nn

from ierf.model import Preprocess, load

pytestmark = pytest.mark.shared_data


def _accuracy(net: Callable[[Tensor], Tensor], preprocess: Preprocess, parquet: Path, n: int) -> float:
    rows = pytest.importorskip("pyarrow.parquet").read_table(parquet).slice(0, n).to_pylist()
    x = torch.stack([preprocess(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in rows])
    with torch.no_grad():
        right = net(x).argmax(1) == torch.tensor([row["label"] for row in rows])
    return right.double().mean().item()


def test_mobilenet(shared: Path) -> None:
    half = (0.5, 0.5, 0.5)
    photos = shared / "data" / "imagenet_photos.parquet"
    assert _accuracy(mobilenet_v1(shared), Preprocess(mean=half, std=half), photos, 60) > 0.7


@pytest.mark.parametrize("depth", [20, 56])
def test_cifar_resnets(shared: Path, depth: int) -> None:
    net: nn.Module = cifar_resnet(shared, depth)
    assert _accuracy(net, Preprocess((32, 32), 32), shared / "data" / "cifar10_test.parquet", 300) > 0.74


def test_bundled_checkpoint(shared: Path) -> None:
    model = load("bundled:resnet18-tiny")
    assert _accuracy(model, model.preprocess, shared / "data" / "tiny_imagenet100_val.parquet", 500) > 0.54
