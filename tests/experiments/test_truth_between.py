"""Edges between layers against the truth: what is planted, by hand; positions by counting; one run of the whole."""

from pathlib import Path

import pytest
import torch

import ierf
from ierf.errors import IerfError
from ierf.experiments.truth.concepts import NONE, UNCLEAR, ConceptSettings, Sample, sampled
from ierf.experiments.truth.edges import (
    MEANINGS,
    PRIMITIVES,
    TAKEN_OUT,
    TARGETS,
    _agreement,
    _chosen,
    meanings_of,
    planted_between,
    positions_of,
    sources_of,
    targets_of,
    truth_between,
)
from ierf.experiments.truth.scenes import as_mask, grid_of
from ierf.model import VisionModel, capture
from ierf.world import CLASSES, NOTHING, PARTS, Scenes, Settings, compose, part_masks


@pytest.fixture(scope="module")
def vit() -> VisionModel:
    return ierf.load("bundled:world-vit")


def numbers(*names: str) -> torch.Tensor:
    return torch.tensor([list(MEANINGS).index(name) for name in names])


def test_what_concepts_may_stand_for() -> None:
    assert len(MEANINGS) == len(PARTS) + 8 + len(CLASSES) - 1
    assert PRIMITIVES["yellow plain triangle"] == {"roof", "star"}
    assert PRIMITIVES["white plain disc"] == {"wheel", "flower", "star", "lamp"}
    assert MEANINGS["night"] == {"star"}


def test_planted_edges_by_hand() -> None:
    """Roofs and stars have a yellow body; roofs belong to carts and houses; a wheel to carts, not to a house."""
    sources = numbers("roof", "wheel", "yellow plain triangle", "lamp")
    targets = numbers("roof", "star", "cart", "house", "night")
    assert planted_between(sources, targets).int().tolist() == [
        [1, 0, 1, 1, 0],
        [0, 0, 1, 0, 0],
        [1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0],
    ]


def test_sources_are_primitives_and_parts_and_targets_parts_and_classes() -> None:
    everything = torch.cat([numbers("roof", "white plain disc", "cart"), torch.tensor([-1])])
    assert sources_of(everything).tolist() == [True, True, False, False]
    assert targets_of(everything).tolist() == [True, False, True, False]


def test_meanings_of_pfvs() -> None:
    """A PFV on a roof is one of a cart in scenes of carts only."""
    data = Scenes(60)
    carts = next(i for i in range(60) if list(CLASSES)[data.label(i)] == "cart")
    other = next(i for i in range(60) if list(CLASSES)[data.label(i)] == NOTHING)
    roof, lamp = (list(PARTS).index(name) for name in ("roof", "lamp"))
    truth, scenes = torch.tensor([roof, roof, lamp, NONE, UNCLEAR]), torch.tensor([carts, other, carts, carts, carts])
    sample = Sample(torch.zeros(5, 2), truth, scenes, torch.zeros(5, 2, dtype=torch.long))
    found = meanings_of(sample, data)
    names = [{name for name, there in zip(MEANINGS, row.tolist(), strict=True) if there} for row in found]
    assert names[0] == {"roof", "cart", "yellow plain triangle", "black plain square"}
    assert names[1] == {"roof", "yellow plain triangle", "black plain square"}
    assert names[2] == {"lamp", "purple checks ring", "white plain disc"}
    assert names[3] == names[4] == set()


def test_the_largest_targets_are_chosen() -> None:
    meanings = torch.cat([numbers("roof", "white plain disc", "cart", "star"), torch.full((TARGETS,), -1)])
    codes = torch.zeros(3, 4 + TARGETS)
    codes[:, :4] = torch.tensor([[1.0, 9.0, 2.0, -5.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    codes[:, 4:] = 7
    assert _chosen(codes, meanings).tolist() == [2, 0]


def test_agreement_by_hand() -> None:
    claimed = torch.tensor([[3.0, 1.0, 5.0], [2.0, 2.0, 5.0], [1.0, 3.0, 5.0]])
    assert _agreement(claimed, torch.tensor([[9.0, 9.0, 1.0], [8.0, 8.0, 2.0], [7.0, 7.0, 3.0]])) == pytest.approx(0)
    assert _agreement(claimed[:, :1], torch.tensor([[9.0], [8.0], [7.0]])) == pytest.approx(1)


@pytest.mark.parametrize(("name", "layer", "prefix"), [("world-cnn", "layer4", 0), ("world-vit", "blocks.0", 1)])
def test_positions_of_parts_are_those_of_their_pixels(name: str, layer: str, prefix: int) -> None:
    model, scene = ierf.load(f"bundled:{name}"), compose(Settings(), 3)
    captured = capture(model, model.prepare(Scenes(4).read(3)), [layer])[layer]
    touched = positions_of(model, captured, scene)
    expected = torch.zeros_like(touched)
    for part, mask in enumerate(as_mask(part_masks(scene))):
        for row, column in mask.nonzero().tolist():
            expected[part, prefix + row // 8 * 8 + column // 8] = True
    assert torch.equal(touched, expected)


def test_sampled_tokens_lie_where_they_say(vit: VisionModel) -> None:
    data = Scenes(2)
    sample = sampled(vit, data, "blocks.1", seed=0)
    assert sample.pfvs.shape == (2 * 64, 64)
    with torch.no_grad():
        tokens = capture(vit, vit.prepare(data.read(1)), ["blocks.1"])["blocks.1"].pfvs[0]
    for row in (sample.scenes == 1).nonzero()[:8, 0].tolist():
        r, c = sample.positions[row].tolist()
        torch.testing.assert_close(sample.pfvs[row], tokens[1 + 8 * r + c], rtol=1e-4, atol=1e-4)


def test_a_layer_without_rows_and_columns_is_refused(vit: VisionModel) -> None:
    captured = capture(vit, vit.prepare(Scenes(1).read(0)), ["head"])["head"]
    with pytest.raises(IerfError, match="'head' has no rows and columns"):
        grid_of(vit, captured)


def test_the_whole_run(tmp_path: Path) -> None:
    """Attributions find planted edges of the bundled network better than chance; a run goes on."""
    model, settings = ierf.load("bundled:world-cnn"), ConceptSettings(48, scenes=80)
    methods = ["gradient_x_input", "deeplift", "random"]
    found = truth_between(model, methods, "layer4", "layer5", tmp_path, settings, scenes=4)
    assert found.rows == (TAKEN_OUT, *methods)
    means = {row: found.interval(row, "edges, AUC").mean for row in methods}
    assert means["deeplift"] > 0.7
    assert means["deeplift"] > means["random"]
    assert found.interval(TAKEN_OUT, "removal").mean > 0
    path = tmp_path / "truth-edges-layer4-layer5.jsonl"
    journal = path.read_text()
    assert truth_between(model, methods, "layer4", "layer5", tmp_path, settings, scenes=4).values == found.values
    assert path.read_text() == journal
