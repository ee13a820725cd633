"""One explanation of one photograph for all tests of the report."""

from pathlib import Path

import pytest
from PIL import Image

import ierf


@pytest.fixture(scope="session")
def model() -> ierf.VisionModel:
    return ierf.load("bundled:resnet18-tiny")


@pytest.fixture(scope="session")
def cat(chelsea: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "cat.png"
    chelsea.save(path)
    return path


@pytest.fixture(scope="session")
def explanation(model: ierf.VisionModel, cat: Path) -> ierf.Explanation:
    return ierf.explain(model, cat, n_classes=2)
