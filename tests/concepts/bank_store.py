"""A small network, and a store of its PFVs, that are quick to make."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, manual_seed, nn

import ierf
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
