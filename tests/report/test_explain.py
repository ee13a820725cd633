"""`ierf.explain` gives the numbers that the single functions give, from one forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ierf
from ierf.attribution.one_pass import layers_over_depth, strongest_pfvs
from ierf.attribution.srd import SRDPass
from ierf.report import card
from ierf.rules import SRDRules

PFV = ierf.targets.PFV


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def test_maps_are_those_of_attribute(model: ierf.VisionModel, cat: Path, explanation: ierf.Explanation) -> None:
    x = model.prepare(cat)
    assert list(explanation.maps) == [p.class_index for p in explanation.top[:2]]
    for index, maps in explanation.maps.items():
        assert list(maps) == ["low", "high", "input"]
        for resolution, values in maps.items():
            assert largest_difference(values, ierf.attribute(model, x, index, resolution=resolution)[0]) <= 1e-6


def test_the_top_is_the_softmax(model: ierf.VisionModel, cat: Path, explanation: ierf.Explanation) -> None:
    with torch.no_grad():
        expected = model(model.prepare(cat)).softmax(1)[0]
    for index, label, probability in explanation.top:
        assert label == model.label(index)
        assert probability == pytest.approx(float(expected[index]), abs=1e-6)
    assert len(explanation.top) == 5
    assert explanation.top[0].probability == pytest.approx(float(expected.max()), abs=1e-6)


def test_fields_are_the_ierfs_of_strong_pfvs_that_stand_apart(
    model: ierf.VisionModel, cat: Path, explanation: ierf.Explanation
) -> None:
    x, first = model.prepare(cat), explanation.top[0].class_index
    for layer in {field.layer for field in explanation.fields}:
        here = [field for field in explanation.fields if field.layer == layer]
        relevance = ierf.attribute(model, x, first, resolution=layer)[0]
        ierfs = ierf.effective_receptive_fields(model, x, layer, [field.position for field in here])[0]
        for field, ierf_map in zip(here, ierfs, strict=True):
            assert largest_difference(field.ierf, ierf_map) <= 1e-6
            assert field.relevance == pytest.approx(float(relevance[field.position]), abs=1e-6)
            assert field.share == pytest.approx(field.relevance / float(relevance.clamp_min(0).sum()), rel=1e-4)
        assert here[0].relevance == pytest.approx(float(relevance.max()), abs=1e-6)
        for i, one in enumerate(here):
            for other in here[:i]:
                assert max(abs(a - b) for a, b in zip(one.position, other.position, strict=True)) > 1
    assert len({field.layer for field in explanation.fields}) == 3


def test_the_ledger_is_that_of_check_conservation(
    model: ierf.VisionModel, cat: Path, explanation: ierf.Explanation
) -> None:
    expected = ierf.check_conservation(model, model.prepare(cat))
    assert explanation.ledger is not None
    assert explanation.ledger.conserved()
    assert explanation.ledger.relevance_out == pytest.approx(expected.relevance_out, rel=1e-6)


def test_one_forward_pass_serves_everything(model: ierf.VisionModel, cat: Path) -> None:
    calls = []
    handle = model.module("fc").register_forward_hook(lambda *_: calls.append(1))
    try:
        ierf.explain(model, cat)
    finally:
        handle.remove()
    assert len(calls) == 1


def test_paths_pictures_and_pixels_are_the_same_photograph(
    model: ierf.VisionModel, cat: Path, chelsea: Image.Image
) -> None:
    ways = [
        ierf.explain(model, photo, 30, resolutions=["low"]) for photo in (cat, str(cat), chelsea, np.array(chelsea))
    ]
    assert [way.name for way in ways] == ["cat.png", "cat.png", "photograph", "photograph"]
    for way in ways[1:]:
        assert largest_difference(way.maps[30]["low"], ways[0].maps[30]["low"]) == 0
        assert way.photo.size == (64, 64)
        assert min(way.scene.size) >= 256


def test_the_scene_shows_what_the_model_sees(explanation: ierf.Explanation) -> None:
    small = np.asarray(explanation.scene.resize(explanation.photo.size, Image.Resampling.BOX), float)
    assert np.abs(small - np.asarray(explanation.photo, float)).mean() < 4


def test_classes_by_name_index_and_list(model: ierf.VisionModel, cat: Path) -> None:
    one = ierf.explain(model, cat, "tabby", resolutions=["low"])
    assert list(one.maps) == [model.class_index("tabby")]
    several = ierf.explain(model, cat, ["lion", 30, "tabby"], resolutions=["low"])
    assert [p.label for p in several.classes] == ["lion", "tabby"]


def test_no_pfvs_and_no_maps_can_be_asked_for(
    model: ierf.VisionModel, cat: Path, explanation: ierf.Explanation, tmp_path: Path
) -> None:
    no_fields, no_maps = ierf.explain(model, cat, n_classes=2, pfvs=()), ierf.explain(model, cat, resolutions=())
    assert no_fields.fields == []
    assert all(
        torch.equal(values, no_fields.maps[index][name])
        for index, maps in explanation.maps.items()
        for name, values in maps.items()
    )
    assert [len(maps) for maps in no_maps.maps.values()] == [0, 0, 0]
    assert len(no_maps.fields) == len(explanation.fields)
    for one in (no_fields, no_maps):
        assert card(one, one.save(tmp_path / "a.html")).photo


def test_pfvs_can_be_asked_for(model: ierf.VisionModel, cat: Path) -> None:
    asked = ierf.explain(model, cat, pfvs=[PFV("layer3", (2, 5)), PFV("layer2.0", (0, 15))], resolutions=["low"])
    assert [(f.layer, f.position, f.map_shape) for f in asked.fields] == [
        ("layer3", (2, 5), (8, 8)),
        ("layer2.0", (0, 15), (16, 16)),
    ]
    expected = ierf.effective_receptive_fields(model, model.prepare(cat), "layer3", [(2, 5)])
    assert largest_difference(asked.fields[0].ierf, expected[0, 0]) <= 1e-6


def test_options_reach_the_rules(model: ierf.VisionModel, cat: Path) -> None:
    dropped = ierf.explain(model, cat, 30, bias="drop", head="raw")
    expected = ierf.attribute(model, model.prepare(cat), 30, bias="drop", head="raw")
    assert largest_difference(dropped.maps[30]["input"], expected[0]) <= 1e-6
    assert dropped.ledger is not None
    assert not dropped.ledger.conserved()


@pytest.mark.parametrize(("method", "resolutions"), [("gradient", ["input"]), ("gradcam", ["low", "high", "input"])])
def test_other_methods_give_the_maps_they_have(
    model: ierf.VisionModel, cat: Path, method: str, resolutions: list[str]
) -> None:
    other = ierf.explain(model, cat, 30, method=method)
    assert list(other.maps[30]) == resolutions
    assert largest_difference(other.maps[30]["input"], ierf.attribute(model, model.prepare(cat), 30, method)[0]) <= 1e-6
    assert not other.fields
    assert other.ledger is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": "tabbi"}, "tabby"),
        ({"classes": 100}, "no class 100"),
        ({"classes": []}, "no class to explain"),
        ({"n_classes": 0}, "at least one"),
        ({"method": "srdd"}, "srd"),
        ({"bias": "nrom"}, "norm"),
        ({"colour": "red"}, "no option"),
        ({"resolutions": ["layer9"]}, "layer4"),
        ({"pfvs": [PFV("layer3", (8, 0))]}, "outside 'layer3'"),
        ({"pfvs": [PFV("layer3", (1,))]}, "row, column"),
        ({"pfvs": [PFV("layer33", (0, 0))]}, "layer3"),
        ({"pfvs": [PFV("layer3", (0, 0))], "method": "gradcam"}, "iERFs come from"),
    ],
)
def test_mistakes_are_named(model: ierf.VisionModel, cat: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ierf.IerfError, match=message):
        ierf.explain(model, cat, **arguments)  # type: ignore[arg-type]


def test_a_bare_network_without_labels(chelsea: Image.Image) -> None:
    features = (nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
    net = nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    bare = ierf.explain(net, chelsea)
    assert [p.label for p in bare.classes] == [f"class {p.class_index}" for p in bare.classes]
    assert len(bare.classes) == 2
    assert bare.model_name == "Sequential"
    assert net.training


def test_layers_are_spread_where_all_maps_have_one_size(chelsea: Image.Image) -> None:
    blocks = [layer for _ in range(6) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with SRDPass.of(ierf.VisionModel(net), torch.randn(1, 3, 12, 12), SRDRules()) as run:
        start, relevance = run.start(0, "raw")
        layers = layers_over_depth(run, start)
        found = strongest_pfvs(run, start, relevance, layers, count=2)
    assert len(layers) == 3
    assert layers[-1] == "12"
    assert all(pfv.relevance > 0 for pfv in found)


def test_layers_are_the_last_of_each_scale_and_never_a_padding() -> None:
    stages = [m for _ in range(3) for m in (nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 4, 3, 2), nn.ReLU())]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *stages, *head)
    with SRDPass.of(ierf.VisionModel(net), torch.randn(1, 3, 64, 64), SRDRules()) as run:
        start, _ = run.start(0, "raw")
        assert layers_over_depth(run, start) == ["3", "6", "9"]
