"""Experiments against the truth of scenes: scores by hand, and explanations whose scores are known beforehand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.experiments import parse_methods
from ierf.experiments.results import Results, as_values
from ierf.experiments.truth import edges, local
from ierf.experiments.truth.concepts import (
    NONE,
    UNCLEAR,
    average_precisions,
    memberships,
    purity,
    sampled,
    what_is_there,
)
from ierf.experiments.truth.edges import area_under_curve, planted, truth_between, truth_edges
from ierf.experiments.truth.local import (
    COLUMNS,
    over_networks,
    scores,
    tint_share,
    tinted_scenes,
    truth_cue,
    truth_local,
)
from ierf.experiments.truth.scenes import TRUTH
from ierf.model import Preprocess, VisionModel
from ierf.world import CLASSES, PARTS, Scenes, Settings, compose, part_masks


class Colours(nn.Module):
    """Says "cart" by how red and how yellow a picture is: pixels count where they are, each by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.pick = nn.Conv2d(3, 2, 1)
        self.head = nn.Linear(2, len(CLASSES))
        with torch.no_grad():
            self.pick.weight.copy_(torch.tensor([[1.0, -0.9, -0.6], [0.6, 0.5, -1.0]])[..., None, None])
            self.pick.bias.fill_(-0.5)
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.weight[0] = 1.0
            self.head.bias[0] = 5.0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.pick(x)).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def model() -> VisionModel:
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return VisionModel(Colours().eval(), Preprocess((64, 64), 64, mean, std), list(CLASSES))


def test_scores_by_hand() -> None:
    map = torch.tensor([[3.0, 1.0, -4.0], [0.0, 2.0, 2.0]])
    parts = torch.tensor([[[1, 0, 0], [0, 0, 0]], [[0, 1, 0], [0, 0, 0]], [[0, 0, 1], [0, 1, 0]]]).bool()
    deciding, other = parts[:2].any(0), parts[2]
    found = scores(map, deciding, other, parts, (0, 1), torch.tensor([5.0, 2.0, 0.5]))
    assert list(found) == list(COLUMNS)
    assert list(found.values()) == pytest.approx([1, 4 / 8, 2 / 8, 2 * 1 / 4, 1])
    assert scores(-map, deciding, other, parts, (0, 1), torch.tensor([5.0, 2.0, 0.5]))["pointing"] == 0


def test_tint_share_by_hand() -> None:
    map, tint = torch.tensor([[3.0, -1.0], [1.0, 7.0]]), torch.tensor([[True, True], [False, False]])
    assert tint_share(map, tint, torch.tensor([[False, False], [True, False]])) == pytest.approx(0.75)


def test_removal_agrees_where_every_pixel_counts_by_itself(model: VisionModel, tmp_path: Path) -> None:
    """Input times gradient is exact for this network up to what shows behind a part; random maps know nothing."""
    found = truth_local(model, parse_methods(["gradient_x_input", "random"]), tmp_path, scenes=60)
    removal = {row: found.interval(row, "removal").mean for row in found.rows}
    assert found.rows == (TRUTH, "gradient_x_input", "random")
    assert found.best("on deciding parts") == "gradient_x_input"
    assert found.interval(TRUTH, "on deciding parts").mean > found.interval("random", "on deciding parts").mean
    assert removal["gradient_x_input"] > 0.7
    assert removal["random"] < 0.5
    assert all(int(name.split("-")[1]) >= 1_000_000 for name in found.values)
    journal = (tmp_path / "truth-local.jsonl").read_text()
    again = truth_local(model, parse_methods(["gradient_x_input", "random"]), tmp_path, scenes=60)
    assert again.values == found.values
    assert (tmp_path / "truth-local.jsonl").read_text() == journal


def test_a_table_of_other_columns_is_not_gone_on_with(
    model: VisionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = parse_methods(["random"])
    with monkeypatch.context() as patch:
        patch.setattr(local, "_measured", lambda *_: {"random": {"pointing": 1.0}})
        patch.setattr(local, "COLUMNS", {"pointing": "higher"})
        truth_local(model, methods, tmp_path, scenes=2)
    with pytest.raises(IerfError, match=r'columns: \["pointing"\] there, \["pointing", "on deciding parts"'):
        truth_local(model, methods, tmp_path, scenes=2)
    monkeypatch.setattr(local, "TRUTH", "truth")
    with pytest.raises(IerfError, match=r'apart: .*\["truth"\] here'):
        truth_local(model, methods, tmp_path, scenes=2)


@pytest.mark.parametrize(("run", "layers"), [(truth_edges, ("pick",)), (truth_between, ("pick", "head"))])
def test_tables_of_edges_of_other_columns_are_not_gone_on_with(
    run: Callable[..., Results],
    layers: tuple[str, ...],
    model: VisionModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edges, "vocabulary", lambda *_: None)
    for measured in ("_measured", "_measured_between"):
        monkeypatch.setattr(edges, measured, lambda *_: {"random": {"removal": 1.0}})
    with monkeypatch.context() as patch:
        patch.setattr(edges, "COLUMNS", {"removal": "higher"})
        patch.setattr(edges, "TAKEN_OUT", "taken out")
        run(model, ["random"], *layers, tmp_path, scenes=20)
    with pytest.raises(IerfError, match=r'apart: \["taken out"\] there.*columns: \["removal"\] there, \["edges, AUC"'):
        run(model, ["random"], *layers, tmp_path, scenes=20)


def test_what_no_scene_of_a_network_defines_is_null_over_networks() -> None:
    undefined = as_values(dict.fromkeys(COLUMNS, torch.nan))
    found = over_networks({"one": Results("", COLUMNS, {"scene-1": {"random": undefined | {"pointing": 1.0}}})})
    written = json.loads(found.json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert written["networks"] == {"one": {"random": undefined | {"pointing": 1.0}}}


def test_a_nan_among_the_values_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Results("", {"pointing": "higher"}, {"scene-1": {"random": {"pointing": torch.nan}}}).json()


def test_a_network_for_other_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IerfError, match=r"does not tell the classes of ierf\.world"):
        truth_local(VisionModel(Colours().eval(), name="other"), parse_methods(["random"]), tmp_path, scenes=2)


def test_tinted_scenes_are_of_the_tints_class() -> None:
    scenes = tinted_scenes(Settings(cue_class="cart"), 3)
    assert [list(CLASSES)[scene.label] for scene in scenes] == ["cart"] * 3
    assert all(scene.glow is not None for scene in scenes)
    assert scenes[:2] == tinted_scenes(Settings(cue_class="cart"), 2)


def test_a_network_that_sums_colours_loses_what_its_map_shows(model: VisionModel, tmp_path: Path) -> None:
    found = truth_cue({"one": model}, parse_methods(["gradient_x_input"]), tmp_path, scenes=6)
    truth, map = (found.of(row, "tint share, one") for row in found.rows)
    assert (truth - map).abs().mean() < 0.25


def test_average_precision_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 4, (200, 3), generator=generator).float()
    members = torch.rand(200, 2, generator=generator) < 0.3
    found = average_precisions(codes, members)
    for k in range(3):
        for g in range(2):
            assert float(found[k, g]) == pytest.approx(metrics.average_precision_score(members[:, g], codes[:, k]))
    order = torch.randperm(200, generator=generator)
    torch.testing.assert_close(average_precisions(codes[order], members[order]), found)


def test_area_under_the_curve_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(1)
    scores_, truth = torch.randint(0, 5, (80,), generator=generator).float(), torch.rand(80, generator=generator) < 0.4
    assert area_under_curve(scores_, truth) == pytest.approx(metrics.roc_auc_score(truth, scores_))


def test_purity_by_hand() -> None:
    """One concept fires for roofs alone, one for 30 roofs and 20 of nothing, one too rarely."""
    truth = torch.cat([torch.zeros(100), torch.full((100,), NONE)]).long()
    codes = torch.zeros(200, 3)
    codes[:60, 0] = 1
    codes[:30, 1], codes[100:120, 1] = 2, 1
    codes[:10, 2] = 5
    assert purity(codes, truth) == pytest.approx((1 + 0.6) / 2)
    assert purity(codes[:, 2:], truth) != purity(codes[:, 2:], truth)


def test_primitives_are_shared_by_their_parts() -> None:
    truth = torch.arange(-1, len(PARTS))
    members = memberships(truth)
    assert members.shape == (11, 10 + 8)
    assert torch.equal(members[1:, :10], torch.eye(10, dtype=torch.bool))
    red_body = [name for name, part in PARTS.items() if part.layers[0].primitive.colour == "red"]
    assert red_body == ["wheel", "button"]
    columns = [tuple(column.nonzero()[:, 0].tolist()) for column in members[:, 10:].T]
    assert tuple(1 + list(PARTS).index(name) for name in red_body) in columns
    assert members[:, 10:].sum(0).min() >= 2


def test_cells_know_their_part() -> None:
    scene = compose(Settings(), 5)
    there = what_is_there(scene, (64, 64))
    for mask, name in zip(part_masks(scene), scene.names, strict=True):
        assert (there[torch.from_numpy(mask)] == list(PARTS).index(name)).all()
    assert (there[torch.from_numpy(~part_masks(scene).any(0))] == NONE).all()
    coarse = what_is_there(scene, (8, 8))
    assert {list(PARTS)[i] for i in coarse.unique().tolist() if i >= 0} == set(scene.names)
    assert (coarse == UNCLEAR).any()


def test_sampled_pfvs_lie_where_they_say(model: VisionModel) -> None:
    data = Scenes(3)
    sample = sampled(model, data, "pick", seed=0)
    assert sample.pfvs.shape == (3 * 64, 2)
    x = model.prepare(data.read(1))
    with torch.no_grad():
        pfvs = model.net.pick(x)[0]  # type: ignore[operator,union-attr]
    rows = (sample.scenes == 1).nonzero()[:, 0]
    for row in rows[:10].tolist():
        r, c = sample.positions[row].tolist()
        torch.testing.assert_close(sample.pfvs[row], pfvs[:, r, c])


def test_planted_edges_by_hand() -> None:
    names = list(PARTS)
    found = planted(torch.tensor([names.index("roof"), -1, names.index("lamp")]), ["cart", "house", "car", "night"])
    assert found.tolist() == [[True, True, False, False], [False] * 4, [False] * 4]
