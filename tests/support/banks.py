"""A store that is quick to make, and a bank of concepts by hand whose pictures are plain colours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, manual_seed, nn

import ierf
from ierf.concepts import ClassShares, ConceptBank, ConceptTree, LayerConcepts
from ierf.concepts.bank_files import BankPlan, StoreRecord
from ierf.model import Preprocess
from ierf.store import PFVStore

LABELS = ("bee", "cup", "dog", "elm", "fox")


class TwoLayers(nn.Module):
    """Two convolutions, the second with a batch-norm whose shift is not 0; a mean, a linear layer."""

    def __init__(self, seed: int = 3) -> None:
        super().__init__()
        manual_seed(seed)
        self.conv1, self.act1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.ReLU()
        self.conv2, self.norm2, self.act2 = nn.Conv2d(6, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.head = nn.Linear(8, 5)
        nn.init.normal_(self.norm2.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.norm2(self.conv2(self.act1(self.conv1(x)))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def small_model(seed: int = 3) -> ierf.VisionModel:
    return ierf.VisionModel(TwoLayers(seed).eval(), Preprocess((16, 20), None), LABELS, "small")


def small_store(folder: Path, model: ierf.VisionModel, count: int = 30) -> PFVStore:
    """Two PFVs of each of `count` pictures of coarse random colours."""
    photos = folder / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        pixels = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 32), Image.Resampling.BICUBIC).save(photos / f"{i:03d}.png")
    return PFVStore.collect(model, photos, ["act1", "act2"], folder / "store", per_image=2, block=8)


def layer(name: str) -> LayerConcepts:
    """Six concepts of three channels."""
    torch.manual_seed(0)
    return LayerConcepts(
        name=name,
        atoms=torch.randn(6, 3),
        shift=torch.zeros(3),
        shift_from="zero",
        lam=0.25,
        positive=False,
        values="pre-activation",
        map=(4, 4),
        prefix_tokens=None,
        extractor={"name": "bisecting"},
        rows=90,
        encoded=80,
        l0_ratio=0.75,
        relative_error=0.5,
        frequencies=torch.tensor([0.1, 0.5, 0.3, 0.2, 0.4, 0.0]),
        strengths=torch.full((6,), 0.7),
        relevances=torch.tensor([0.5, 0.1, 0.1, 0.1, 0.15, 0.05]),
        exemplars=torch.arange(18).view(6, 3),
        cosines=torch.linspace(0.9, 0.5, 18).view(6, 3),
        class_shares=ClassShares(
            torch.tensor([0, 2, 2, 2, 2, 3, 3]), torch.tensor([1, 0, 9]), torch.tensor([0.75, 0.25, 1.0])
        ),
        tree=ConceptTree(torch.tensor([-1, 0, 0]), torch.ones(3).long(), torch.tensor([1, 2, 1, 1, 1, 1])),
    )


def bank(monkeypatch: pytest.MonkeyPatch) -> ConceptBank:
    """Two layers."""
    store = StoreRecord(None, 45, "", "srd", {}, {})
    plan = BankPlan(
        {"name": "a <model>"}, ("bee & wasp", "cup"), store, "bisecting", {}, 6, 0, 0.75, False, None, {}, ("a.0", "b")
    )

    def plain(self: ConceptBank, layer: str, concepts: list[int], n: int, model: None) -> list[list[Image.Image]]:
        return [[Image.new("RGB", (8, 8), (40 * concept, 80 * i, 9)) for i in range(3)] for concept in concepts]

    monkeypatch.setattr(ConceptBank, "pictures", plain)
    return ConceptBank(plan, {"a.0": layer("a.0"), "b": layer("b")})
