"""What all tests share: one thread, torchvision's operators, photographs, and the development data."""

import gc
import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from ierf.model.loading.extras import usable_torchvision

SHARED = Path(os.environ.get("IERF_SHARED", Path(__file__).resolve().parents[2] / "shared"))


SLOW = (
    "experiments",
    "report/test_server",
    "report/test_graph_page",
    "report/test_look",
    "report/test_concept_page",
    "cafe",
    "cli",
    "store/test_resuming",
    "concepts/test_sae_training",
    "concepts/test_bisecting",
    "rules/test_conservation",
    "rules/test_fuzzed_networks",
    "attribution/test_attnlrp_by_hand",
    "attribution/test_receptive_fields",
    "attribution/test_baselines",
    "attribution/test_token",
    "model/test_training_script",
    "model/test_shared_networks",
)
"""Whole commands, browsers, trained networks, and implementations by hand: `pytest -m "not slow"` leaves them out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests are marked; those that need the development data are skipped where it is missing."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).as_posix().startswith(SLOW):
            item.add_marker("slow")
    if not SHARED.is_dir():
        skip = pytest.mark.skip(reason=f"no development data in {SHARED}")
        for item in items:
            if item.get_closest_marker("shared_data"):
                item.add_marker(skip)


_frozen = [0]
"""Modules that were imported when garbage was last collected."""


@pytest.fixture(scope="module", autouse=True)
def _imports_are_no_garbage() -> None:
    """Runs over photographs collect garbage behind each one: they need not look at all that is imported each time."""
    if len(sys.modules) > _frozen[0] + 100:
        gc.collect()
        gc.freeze()
        _frozen[0] = len(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _torchvision_operators() -> None:
    """A torchvision built for CUDA beside a CPU torch imports as it does when ierf loads a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usable_torchvision()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the development data."""
    return SHARED


@pytest.fixture(scope="session")
def chelsea() -> Image.Image:
    """A photograph of a cat, 451 × 300 pixels, from scikit-image's wheel."""
    data = pytest.importorskip("skimage.data")
    return Image.fromarray(data.chelsea())
