"""Attacked photographs: inside of ε, saved without loss, the network untouched."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.graph import attack
from ierf.model import Preprocess, VisionModel, read_image


class Small(nn.Module):
    """Two convolutions with batch-norm, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 4, bias=False)
        self.head.weight.data *= 40

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).mean((2, 3)))
        return logits


def _model(resize: int | None = 20) -> VisionModel:
    return VisionModel(Small().eval(), Preprocess((16, 18), resize), labels=["a", "b", "c", "d"])


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((61, 43), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
@pytest.mark.parametrize("resize", [20, None, 12])
@pytest.mark.parametrize("epsilon", [1.0, 6.9])
def test_no_pixel_leaves_the_cube(photo: Image.Image, method: str, resize: int | None, epsilon: float) -> None:
    found = attack(_model(resize), photo, "c", method, epsilon)
    moved = np.asarray(found.picture).astype(int) - np.asarray(found.clean).astype(int)
    assert np.abs(moved).max() <= epsilon
    assert np.abs(moved).max() == int(epsilon)


@pytest.mark.parametrize("resize", [20, None, 12])
def test_the_saved_file_is_read_as_it_was_attacked(photo: Image.Image, resize: int | None, tmp_path: Path) -> None:
    model = _model(resize)
    found = attack(model, photo, "c", "pgd", 30)
    again = model.prepare(read_image(found.save(tmp_path / "new" / "attacked.png")))
    with torch.no_grad():
        assert torch.equal(model(again)[0], found.after)
        assert torch.equal(model(model.prepare(found.clean))[0], found.before)
    assert found.fooled
    assert int(found.after.argmax()) == 2


def test_more_steps_find_more(photo: Image.Image) -> None:
    losses = {}
    for method in ("fgsm", "pgd"):
        found = attack(_model(), photo, "d", method, 8)
        losses[method] = float(-found.after.log_softmax(0)[3])
        losses["clean"] = float(-found.before.log_softmax(0)[3])
    assert losses["pgd"] <= losses["fgsm"] < losses["clean"]


def test_without_a_target_the_named_class_falls(photo: Image.Image) -> None:
    found = attack(_model(), photo, None, "pgd", 8)
    named = int(found.before.argmax())
    assert found.after.softmax(0)[named] < found.before.softmax(0)[named]
    assert found.fooled == (int(found.after.argmax()) != named)


def test_the_network_is_as_it_was(photo: Image.Image) -> None:
    model = _model()
    model.net.train()
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    attack(model, photo, "b", "pgd", 4, steps=3)
    assert all(torch.equal(value, before[name]) for name, value in model.net.state_dict().items())
    assert all(module.training for module in model.net.modules())
    assert all(p.grad is None and p.requires_grad for p in model.net.parameters())


def test_what_cannot_be_attacked_is_refused(photo: Image.Image, tmp_path: Path) -> None:
    for wrong, message in (
        ({"method": "cw"}, "attack"),
        ({"epsilon": 0.5}, "epsilon cannot be 0.5"),
        ({"steps": 0}, "at least one step"),
        ({"target": "zebra"}, "zebra"),
    ):
        with pytest.raises(IerfError, match=message):
            attack(_model(), photo, **wrong)  # type: ignore[arg-type]
    with pytest.raises(IerfError, match="PNG"):
        attack(_model(), photo, "b").save(tmp_path / "attacked.jpg")
