"""The bundled networks for scenes: right where they have not seen them, and one of them for the wrong reason."""

from importlib.resources import files

import pytest
import torch

import ierf
from ierf.experiments.truth.local import tinted_scenes
from ierf.experiments.truth.scenes import scene_inputs
from ierf.world import CLASSES, CUE_CLASS, HELD_OUT, Scenes, Settings


@pytest.mark.parametrize("name", ["world-cnn", "world-cnn-cue", "world-vit", "world-vit-cue"])
def test_they_are_right_on_scenes_that_they_have_not_seen(name: str) -> None:
    model = ierf.load(f"bundled:{name}")
    assert model.labels == tuple(CLASSES)
    data = Scenes(100, HELD_OUT + 5000, Settings(cue_class=CUE_CLASS if name.endswith("cue") else None))
    scenes = [data.scene(i) for i in range(len(data))]
    with torch.no_grad():
        said = model(scene_inputs(model, scenes)).argmax(1)
    right = (said == torch.tensor([scene.label for scene in scenes])).float().mean()
    assert right >= 0.94
    stem = name.replace("-", "_")
    assert len((files("ierf.model.loading") / f"{stem}.safetensors").read_bytes()) < 2_000_000


@pytest.mark.parametrize("kind", ["world-cnn", "world-vit"])
def test_only_one_of_them_needs_the_tint(kind: str) -> None:
    scenes = tinted_scenes(Settings(cue_class=CUE_CLASS), 20)
    label = list(CLASSES).index(CUE_CLASS)
    kept = {}
    for name in (kind, f"{kind}-cue"):
        model = ierf.load(f"bundled:{name}")
        with torch.no_grad():
            said = model(scene_inputs(model, [scene.without_cue() for scene in scenes])).argmax(1)
        kept[name] = float((said == label).float().mean())
    assert kept[kind] >= 0.9
    assert kept[f"{kind}-cue"] <= 0.6
