"""The scripts that train the bundled checkpoints: their parts, and that a killed run ends like an unbroken one."""

import copy
import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ierf
from ierf.model.loading import from_disk
from ierf.model.loading.bundled import resnet18_tiny, vit_tiny

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What the training scripts share."""
    pytest.importorskip("pyarrow")
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("tiny_imagenet")


@pytest.fixture
def resnet(common: ModuleType) -> ModuleType:
    return importlib.import_module("train_resnet18_tiny")


@pytest.fixture
def vit(common: ModuleType) -> ModuleType:
    return importlib.import_module("train_vit_tiny")


def _photos(common: ModuleType, n: int) -> Any:
    torch.manual_seed(3)
    classes = [{"wnid": f"n{i}", "name": f"class {i}"} for i in range(10)]
    return common.Photos(torch.randint(0, 256, (n, 3, 64, 64), dtype=torch.uint8), torch.arange(n) % 10, classes)


def _recipe(common: ModuleType, **fields: Any) -> Any:
    return common.Recipe(**{"epochs": 1, "batch": 16, "peak_rate": 0.1, "warm_up": 0.1, "weight_decay": 0.0} | fields)


def _resnet_run(resnet: ModuleType) -> tuple[Any, ...]:
    torch.manual_seed(0)
    net = resnet18_tiny(10)
    recipe = resnet.ResNetRecipe(epochs=3, batch=16)
    return net, torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9), resnet.labelled(recipe), recipe


def _vit_run(vit: ModuleType) -> tuple[Any, ...]:
    torch.manual_seed(0)
    teacher, net = resnet18_tiny(10).eval(), vit_tiny(10)
    recipe = vit.ViTRecipe(epochs=3, batch=16)
    return net, torch.optim.AdamW(net.parameters(), lr=1.0), vit.taught_by(teacher, recipe), recipe


@pytest.mark.parametrize("network", ["resnet", "vit"])
def test_a_killed_run_ends_like_an_unbroken_one(
    common: ModuleType, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    photos, script = _photos(common, 32), request.getfixturevalue(network)
    keep = common.keep

    def run(out: Path) -> dict[str, Tensor]:
        net, optimizer, loss, recipe = (_resnet_run if network == "resnet" else _vit_run)(script)
        common.fit(net, optimizer, loss, photos, photos, recipe, out)
        state: dict[str, Tensor] = net.state_dict()
        return state

    def keep_then_die(path: Path, recipe: object, epochs_done: int, *state: object) -> None:
        keep(path, recipe, epochs_done, *state)
        if epochs_done == 2:
            raise KeyboardInterrupt

    unbroken = run(tmp_path / "unbroken")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(common, "keep", keep_then_die)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    resumed = run(tmp_path / "killed")
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_a_run_of_another_recipe_is_not_taken_up(common: ModuleType, resnet: ModuleType, tmp_path: Path) -> None:
    net, optimizer, _, recipe = _resnet_run(resnet)
    common.keep(tmp_path / "a.resume.pt", recipe, 1, net, optimizer)
    assert common.restore(tmp_path / "a.resume.pt", recipe, net, optimizer) == 1
    with pytest.raises(SystemExit, match="another recipe"):
        common.restore(tmp_path / "a.resume.pt", resnet.ResNetRecipe(epochs=4, batch=16), net, optimizer)


def test_one_cycle(common: ModuleType) -> None:
    rates = [common.one_cycle(i / 100, 0.25, 0.25) for i in range(101)]
    assert max(rates) == rates[25] == 0.25
    assert rates[0] == pytest.approx(0.01)
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_biases_and_the_scales_of_norms_do_not_decay(common: ModuleType) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm(4))
    arrays, vectors = common.decayed(net, 5e-4)
    assert [p.shape for p in arrays["params"]] == [(4, 3, 3, 3)]
    assert len(vectors["params"]) == 5
    assert (arrays["weight_decay"], vectors["weight_decay"]) == (5e-4, 0.0)


def test_the_widest_crop_is_the_picture_or_its_mirror(common: ModuleType) -> None:
    x = torch.rand(16, 3, 64, 64)
    recipe = _recipe(common, smallest_crop=1.0, aspect=1.0, contrast=0.0, colour=0.0)
    generator = torch.Generator().manual_seed(0)
    y = common.shift_colours(common.crop_and_flip(x, recipe, 64, generator), recipe, generator)
    same = [(a - b).abs().max().item() < 1e-4 for a, b in zip(x, y, strict=True)]
    mirrored = [(a.flip(2) - b).abs().max().item() < 1e-4 for a, b in zip(x, y, strict=True)]
    assert all(s != m for s, m in zip(same, mirrored, strict=True))
    assert 3 <= sum(mirrored) <= 13


def test_a_smaller_picture_shows_the_same(common: ModuleType) -> None:
    x = torch.linspace(0, 1, 64).expand(4, 3, 64, 64)
    recipe = _recipe(common, smallest_crop=1.0, aspect=1.0)
    y = common.crop_and_flip(x, recipe, 48, torch.Generator().manual_seed(0))
    ramp = F.interpolate(x, (48, 48), mode="bilinear", align_corners=False)
    nearest = torch.minimum((y - ramp).abs().amax((1, 2, 3)), (y - ramp.flip(3)).abs().amax((1, 2, 3)))
    assert y.shape == (4, 3, 48, 48)
    assert nearest.max() < 1e-4


def test_an_odd_rest_is_left_out_of_an_epoch(common: ModuleType) -> None:
    photos, recipe = _photos(common, 40), _recipe(common)
    epoch = list(common.batches(photos, recipe, 48, torch.Generator().manual_seed(0)))
    assert [x.shape for x, _ in epoch] == [(16, 3, 48, 48)] * 2
    counts = torch.cat([y for _, y in epoch]).bincount(minlength=10)
    assert counts.sum() == 32
    assert counts.max() <= 4


def test_small_pictures_first(vit: ModuleType) -> None:
    recipe = vit.ViTRecipe(epochs=16)
    assert [recipe.side(epoch) for epoch in range(16)] == [48] * 13 + [64] * 3
    assert [vit.ViTRecipe(epochs=1).side(0), vit.ViTRecipe(epochs=2).side(1)] == [48, 48]


def test_the_loss_of_the_taught_network(vit: ModuleType) -> None:
    """By hand: `0.3 · CE + 0.7 · T² Σ p (log p − log q)`, p the teacher's softened probabilities, q the network's."""
    said, logits = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.5, 1.0, 0.0]])
    recipe = vit.ViTRecipe(teacher_share=0.7, temperature=2.0, label_smoothing=0.0)
    loss = vit.taught_by(lambda x: said, recipe)(lambda x: logits, torch.zeros(1, 3, 8, 8), torch.tensor([0]))
    p = [math.exp(v / 2) for v in (2.0, 0.0, -1.0)]
    q = [math.exp(v / 2) for v in (0.5, 1.0, 0.0)]
    divergence = sum(a / sum(p) * math.log(a / sum(p) * sum(q) / b) for a, b in zip(p, q, strict=True))
    entropy = -math.log(math.exp(0.5) / sum(math.exp(v) for v in (0.5, 1.0, 0.0)))
    assert loss.item() == pytest.approx(0.3 * entropy + 0.7 * 4 * divergence, rel=1e-5)


def test_the_teacher_stays_as_it_was(common: ModuleType, vit: ModuleType) -> None:
    teacher, net = resnet18_tiny(10).eval(), vit_tiny(10)
    before, untaught = copy.deepcopy(teacher.state_dict()), copy.deepcopy(net.state_dict())
    optimizer = torch.optim.AdamW([*net.parameters(), *teacher.parameters()], lr=1e-3)
    x, y = torch.randn(4, 3, 64, 64), torch.arange(4)
    common.training_step(net, optimizer, vit.taught_by(teacher, vit.ViTRecipe()), x, y)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert not teacher.training
    assert not torch.equal(untaught["head.weight"], net.state_dict()["head.weight"])


@pytest.mark.parametrize(("name", "make"), [("resnet18-tiny", resnet18_tiny), ("vit-tiny", vit_tiny)])
def test_what_a_script_writes_is_what_the_bundle_loads(
    common: ModuleType, name: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = _photos(common, 10)
    torch.manual_seed(1)
    net = make(10)
    exact = copy.deepcopy(net.state_dict())
    common.finish(name, net, photos, tmp_path / name.replace("-", "_"))
    assert all(torch.allclose(exact[key], tensor, atol=1e-3) for key, tensor in net.state_dict().items())
    monkeypatch.setattr(from_disk, "_FOLDER", tmp_path)
    model = ierf.load(f"bundled:{name}")
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(x), net.eval()(x))
    assert model.labels == tuple(f"class {i}" for i in range(10))
    card = from_disk._card(name)
    assert (card["accuracy"]["top1"], card["accuracy"]["top5"]) == pytest.approx(common.accuracy(net, photos))
    resumed = common.load_checkpoint(make(10), tmp_path / f"{name.replace('-', '_')}.safetensors")
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), resumed.parameters(), strict=True))
