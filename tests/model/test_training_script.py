"""The script that trains the bundled checkpoint: its parts, and that a killed run ends like an unbroken one."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_resnet18_tiny.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("pyarrow")
    spec = importlib.util.spec_from_file_location("train_resnet18_tiny", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _photos(script: ModuleType, n: int) -> object:
    torch.manual_seed(3)
    classes = [{"wnid": f"n{i}", "name": f"class {i}"} for i in range(10)]
    return script.Photos(torch.randint(0, 256, (n, 3, 64, 64), dtype=torch.uint8), torch.arange(n) % 10, classes)


def test_a_killed_run_ends_like_an_unbroken_one(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, recipe, cpu = _photos(script, 32), script.Recipe(epochs=3, batch=16), torch.device("cpu")
    unbroken = script.fit(photos, photos, recipe, cpu, tmp_path / "unbroken").state_dict()
    assert list(tmp_path.iterdir()) == []

    keep = script.keep

    def keep_then_die(path: Path, recipe: object, epochs_done: int, *state: object) -> None:
        keep(path, recipe, epochs_done, *state)
        if epochs_done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(script, "keep", keep_then_die)
    with pytest.raises(KeyboardInterrupt):
        script.fit(photos, photos, recipe, cpu, tmp_path / "killed")
    resumed = script.fit(photos, photos, recipe, cpu, tmp_path / "killed").state_dict()
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_one_cycle(script: ModuleType) -> None:
    rates = [script.one_cycle(i / 100, 0.25, 0.25) for i in range(101)]
    assert max(rates) == rates[25] == 0.25
    assert rates[0] == pytest.approx(0.01)
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_only_kernels_decay(script: ModuleType) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    kernels, others = script.decayed(net, 5e-4)
    assert [p.shape for p in kernels["params"]] == [(4, 3, 3, 3)]
    assert len(others["params"]) == 3
    assert (kernels["weight_decay"], others["weight_decay"]) == (5e-4, 0.0)


def test_the_widest_crop_is_the_picture_or_its_mirror(script: ModuleType) -> None:
    x = torch.rand(16, 3, 64, 64)
    recipe = script.Recipe(smallest_crop=1.0, aspect=1.0, contrast=0.0, colour=0.0)
    generator = torch.Generator().manual_seed(0)
    y = script.shift_colours(script.crop_and_flip(x, recipe, generator), recipe, generator)
    same = [(a - b).abs().max().item() < 1e-4 for a, b in zip(x, y, strict=True)]
    mirrored = [(a.flip(2) - b).abs().max().item() < 1e-4 for a, b in zip(x, y, strict=True)]
    assert all(s != m for s, m in zip(same, mirrored, strict=True))
    assert 3 <= sum(mirrored) <= 13


def test_saved_and_loaded(script: ModuleType, tmp_path: Path) -> None:
    photos = _photos(script, 10)
    net = script.resnet18_tiny(10)
    script.save_checkpoint(net, tmp_path / "a")
    loaded = script.load_checkpoint(tmp_path / "a.safetensors", "cpu")
    assert all(torch.allclose(p, q, atol=1e-3) for p, q in zip(net.parameters(), loaded.parameters(), strict=True))
    top1, top5 = script.accuracy(loaded, photos)
    assert 0 <= top1 <= top5 <= 1
    assert not math.isnan(top1)
