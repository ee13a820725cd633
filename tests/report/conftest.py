"""One explanation of one photograph for all tests of the report, and a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium; without it or its driver tests are skipped."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'ierf[browser]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with driver.sync_playwright() as play:
        started = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
