"""What all tests share: one thread, torchvision's operators, photographs, and the development data."""

import gc
import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from ierf.extras import usable_torchvision

SHARED = Path(os.environ.get("IERF_SHARED", Path(__file__).resolve().parents[2] / "shared"))


SLOW = (
    "attribution/test_attnlrp_by_hand",
    "attribution/test_baselines",
    "attribution/test_integrated_ratio.py::test_it_ranks",
    "attribution/test_joint_fields",
    "attribution/test_receptive_fields",
    "attribution/test_srd_by_hand.py::test_random_chains",
    "attribution/test_srd_by_hand.py::test_the_ierfs_of_every_layer",
    "attribution/test_token",
    "cafe/test_cafe",
    "cafe/test_latent_index",
    "cli/test_collect",
    "cli/test_concepts",
    "cli/test_evaluate",
    "cli/test_explain",
    "cli/test_graph",
    "cli/test_other_commands.py::test_the_demo_ends",
    "cli/test_truth",
    "concepts/test_bisecting",
    "concepts/test_damaged_files.py::test_damaged_stores",
    "concepts/test_lasso.py::test_it_reaches",
    "concepts/test_bank.py::test_every_extractor_gets",
    "concepts/test_matrix_factors.py::test_dictionary",
    "concepts/test_matrix_factors.py::test_codes_and_vectors",
    "concepts/test_sae_command",
    "concepts/test_sae_models.py::test_known_directions",
    "concepts/test_sae_training",
    "experiments/test_concept_fidelity",
    "experiments/test_extractors",
    "experiments/test_graphs",
    "experiments/test_interlayer",
    "experiments/test_local",
    "experiments/test_second_device",
    "experiments/test_srd_cost",
    "experiments/test_truth",
    "graph/test_graph_building.py::test_the_share_of_prefix_tokens",
    "graph/test_icat.py::test_a_transformer_takes",
    "model/test_loading.py::test_a_torchvision_built",
    "model/test_section.py::test_convolutional_networks",
    "model/test_shared_networks",
    "model/test_shift.py::test_vgg",
    "model/test_training_script",
    "model/test_vision_model.py::test_the_room_is_light",
    "report/test_graph_page",
    "report/test_look",
    "report/test_report",
    "report/test_server",
    "report/test_transformer_report",
    "rules/test_conservation",
    "rules/test_fuzzed_networks",
    "store/test_evidence.py::test_rows_of_a_cnn",
    "store/test_resuming",
    "world/test_world_networks",
)
"""Whole commands, processes, browsers, trained networks, implementations by hand: `pytest -m "not slow"` goes without.

What is left has something of every room.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests are marked; those that need the development data are skipped where it is missing."""
    for item in items:
        if f"{item.path.relative_to(Path(__file__).parent).as_posix()}::{item.name}".startswith(SLOW):
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
    if not gc.get_freeze_count() or len(sys.modules) > _frozen[0] + 100:
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
