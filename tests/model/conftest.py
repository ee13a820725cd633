"""What the tests of loading share: a machine that reaches no server and has cached nothing."""

from pathlib import Path

import pytest
import torch

from ierf import extras
from ierf.model.loading import from_timm, from_torchvision


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No server answers, and nothing is cached."""
    for module in (extras, from_timm, from_torchvision):
        monkeypatch.setattr(module, "answers", lambda url: False)
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
