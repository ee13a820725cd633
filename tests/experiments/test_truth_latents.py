"""Latents against the truth: scores by hand, latents whose evidence is known beforehand, one run of the whole."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ierf
from ierf.cafe import LatentLayer
from ierf.concepts.sae import SAE
from ierf.errors import IerfError
from ierf.experiments.truth import latents
from ierf.experiments.truth.latents import (
    LatentSettings,
    Named,
    _measured,
    _on_own,
    scores,
    stands_for,
    truth_latents,
)
from ierf.experiments.truth.scenes import TRUTH, Known, as_mask, scene_inputs, shares_of_falls
from ierf.model import Preprocess, VisionModel
from ierf.world import CLASSES, PARTS, Scenes, part_masks, render

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


class Sums(nn.Module):
    """Two weighted sums of colours over patches of 8 × 8 pixels; the class is always that of the constructor."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 2, 8, stride=8)
        self.label = label
        with torch.no_grad():
            weights = torch.tensor([[1.0, 0.8, -1.2], [-0.5, 0.2, 1.0]]) / 64
            self.patches.weight.copy_(weights[..., None, None].expand(-1, -1, 8, 8))
            self.patches.bias.copy_(torch.tensor([0.7, 0.4]))

    def forward(self, x: Tensor) -> Tensor:
        total = self.patches(x).mean((1, 2, 3))
        return total[:, None] * 0 + nn.functional.one_hot(torch.tensor(self.label), len(CLASSES))


@pytest.fixture(scope="module")
def known_scene() -> Known:
    """A scene with three coins, for the network above."""
    data = Scenes(200)
    scene = next(scene for scene in map(data.scene, range(200)) if list(CLASSES)[scene.label] == "purse")
    known = Known.of(sums(scene.label), scene)
    assert known is not None
    return known


def sums(label: int) -> VisionModel:
    return VisionModel(Sums(label).eval(), Preprocess((64, 64), 64, (0.0,) * 3, (1.0,) * 3), list(CLASSES))


def latents_of(model: VisionModel) -> LatentLayer:
    """An autoencoder whose latents are the two sums."""
    sae = SAE("topk", n_features=2, n_latents=2, k=2)
    with torch.no_grad():
        for name in ("encoder", "decoder"):
            getattr(sae, name).copy_(torch.eye(2))
        for name in ("encoder_bias", "decoder_bias"):
            getattr(sae, name).zero_()
        sae.scale.fill_(1)
    return LatentLayer(model, "patches", sae)


def test_scores_by_hand() -> None:
    evidence = torch.tensor([[4.0, 1.0], [-2.0, 3.0]])
    on = torch.tensor([[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 0]]]).bool()
    covered = on.float() * torch.tensor([0.5, 1.0, 1.0])[:, None, None]
    found = scores(evidence, covered, on, (0, 1), torch.tensor([2.0, 1.0, -1.0]))
    assert list(found.values()) == pytest.approx([5 / 8, 2 * 1 / 5, 1])
    assert scores(evidence, covered, on, (0, 1), torch.tensor([1.0, 2.0, 3.0]))["removal"] == pytest.approx(-1)
    single = scores(evidence, covered, on, (1,), torch.tensor([2.0, 1.0, -1.0]))
    assert single["on parts"] == pytest.approx(1 / 8)
    assert np.isnan(single["least part"])
    silent = scores(torch.zeros(2, 2), covered, on, (0, 1), torch.tensor([2.0, 1.0, -1.0]))
    assert all(np.isnan(value) for value in silent.values())


def test_shares_of_falls_by_hand() -> None:
    assert shares_of_falls(torch.tensor([3.0, 1.0, -2.0, 4.0]), (0, 1)) == pytest.approx((4 / 8, 2 * 1 / 4))
    assert np.isnan(shares_of_falls(torch.tensor([3.0, 1.0]), (0,))[1])


def test_what_latents_stand_for_by_hand() -> None:
    truth = torch.tensor([0, 0, 2, 2, 5])
    codes = torch.tensor([[3.0, 1, 0, 1], [2, 0, 0, 1], [0, 0, 1, 1], [0, 0, 2, 1], [0, 1, 0, 1]])
    assert stands_for(codes, truth, 3, 0.8).tolist() == [0, -1, 2, -1]
    assert stands_for(codes, truth, 3, 0.35).tolist() == [0, 0, 2, 0]


def test_evidence_of_a_sum_is_what_its_parts_take_away(known_scene: Known) -> None:
    """Each latent is linear in the pixels of its patch, so the row of falls follows from the pixels alone."""
    scene, model = known_scene.scene, sums(known_scene.scene.label)
    layer, stands = latents_of(model), torch.tensor([scene.label, -1])
    found = _measured(known_scene, Named(layer, {"class-patch": stands}), "class-patch", ["gradient_x_input"])
    assert found is not None
    patch = int(layer.maps(known_scene.x, torch.tensor([0])).argmax())
    rows, columns = (slice(8 * i, 8 * i + 8) for i in divmod(patch, 8))
    colour = np.array([1.0, 0.8, -1.2]) / 64 / 255
    cells = [
        render(s)[rows, columns].astype(float) for s in (scene, *(scene.without(i) for i in range(len(scene.parts))))
    ]
    falls = np.array([((cells[0] - other) * colour).sum() for other in cells[1:]]).clip(0)
    expected = falls[list(scene.deciding)].sum() / falls.sum()
    assert found[TRUTH]["on parts, counted"] == pytest.approx(expected, abs=1e-4)
    covered = part_masks(scene)[list(scene.deciding), rows, columns].mean((1, 2)).max()
    assert found["gradient_x_input"]["on parts, counted"] == float(covered >= 0.25)
    assert set(found["gradient_x_input"]) == {f"{name}, counted" for name in ("on parts", "least part", "removal")}


@pytest.mark.parametrize("at_least", [0.25, 0.7])
def test_the_picture_says_what_the_table_says(
    at_least: float, known_scene: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skimage")
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(latents, "_ON", at_least)
    script, scene = importlib.import_module("world_pictures"), known_scene.scene
    map = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) - 0.3
    covered = torch.nn.functional.adaptive_avg_pool2d(as_mask(part_masks(scene)).float(), (8, 8))
    table = scores(map, covered, covered >= at_least, scene.deciding, torch.zeros(len(scene.parts)))
    assert script.share(map, scene) == f"{table['on parts']:.0%} on the parts"
    assert script.share(-map.abs(), scene) == "nowhere"


def test_a_latent_of_a_part_is_read_on_that_part(known_scene: Known) -> None:
    scene = known_scene.scene
    on = torch.zeros(len(scene.parts), 2, 2, dtype=torch.bool)
    on[scene.deciding[0], 1, 0] = True
    coin, roof = (list(PARTS).index(name) for name in ("coin", "roof"))
    allowed = _on_own(scene, torch.tensor([coin, roof, -1]), on)
    assert allowed.tolist() == [[False] * 3, [False] * 3, [True, False, False], [False] * 3]


def test_a_silent_latent_is_left_out(known_scene: Known) -> None:
    named = Named(latents_of(sums(known_scene.scene.label)), {"class-patch": torch.tensor([-1, -1])})
    assert _measured(known_scene, named, "class-patch", ["activation"]) is None


def test_the_whole_run(tmp_path: Path) -> None:
    """Attributions know more than chance of where the bundled transformer's latents come from; a run goes on."""
    model = ierf.load("bundled:world-vit")
    settings = LatentSettings(latents=96, samples=30_000, scenes=96, of_class=0.5)
    methods = ["attnlrp", "activation", "random"]
    found = truth_latents(model, methods, "blocks.1", tmp_path, settings, scenes=4)
    assert set(found) == {"part", "class-patch", "class-token"}
    for results in found.values():
        assert results.rows == (TRUTH, *methods)
        assert (
            results.of("attnlrp", "on parts, touching").nanmean() > results.of("random", "on parts, touching").nanmean()
        )
    assert found["class-token"].of(TRUTH, "on parts, touching").nanmean() > 0.7
    journal = (tmp_path / "truth-latents-blocks.1.jsonl").read_text()
    again = truth_latents(model, methods, "blocks.1", tmp_path, settings, scenes=4)
    assert again["class-token"].values == found["class-token"].values
    assert (tmp_path / "truth-latents-blocks.1.jsonl").read_text() == journal


def test_other_networks_and_layers_without_patches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IerfError, match="does not tell the classes"):
        truth_latents(VisionModel(Sums(0).eval()), ["activation"], "patches", tmp_path)
    model = sums(0)
    assert scene_inputs(model, [Scenes(1).scene(0)]).shape == (1, 3, 64, 64)
    with pytest.raises(IerfError, match="no latent of 'patches' stands for"):
        truth_latents(model, ["activation"], "patches", tmp_path, LatentSettings(2, 2, 2000, scenes=40), scenes=2)
