"""Photographs, and a model that is quick to collect from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.networks import SIZE, SmallNet

import ierf
from ierf.model import Preprocess


@pytest.fixture
def model() -> ierf.VisionModel:
    return ierf.VisionModel(SmallNet().eval(), Preprocess(SIZE, None), name="small")


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """A folder of pictures that differ from each other: coarse random colours, enlarged."""

    def make(count: int, name: str = "photos", bad: tuple[int, ...] = ()) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        random = np.random.default_rng(len(name))
        for i in range(count):
            pixels = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((40, 32), Image.Resampling.BICUBIC).save(folder / f"{i:03d}.png")
            if i in bad:
                (folder / f"{i:03d}.png").write_bytes(b"not a picture")
        return folder

    return make
