"""C-insertion and C-deletion: curves by hand, ends that are known, a run that resumes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.banks import small_model
from support.runs import stop_after, write_photographs
from torch import Tensor
from typer.testing import CliRunner

import ierf
from ierf.cli import main
from ierf.concepts import ConceptBank
from ierf.errors import IerfError
from ierf.experiments import DataSet, open_data
from ierf.experiments.concept_fidelity import (
    GRID,
    Concepts,
    FidelitySettings,
    area,
    cells,
    class_curves,
    concept_fidelity,
    curves_json,
    of_bank,
    of_fitted,
    on_grid,
    tables,
)
from ierf.experiments.extractors import FitSettings, all_fitted, extractors, parse_recipes
from ierf.graph import Reconstruction
from ierf.model import VisionModel, capture
from ierf.store import PFVStore

STRENGTHS = torch.tensor([1.0, -0.5, 2.0, 0.25])
"""What each of four concepts adds to the logit."""


def one_logit(pfvs: Tensor) -> Tensor:
    """Logits (Σ of all PFVs, 0): the probability is the logistic function of the sum."""
    total = pfvs.sum((1, 2))
    return torch.stack([total, torch.zeros_like(total)], 1)


def four_concepts(order: list[int]) -> Reconstruction:
    """Two positions, the shift adds −1 in all."""
    codes = torch.zeros(2, 4)
    codes[0, :2], codes[1, 2:] = STRENGTHS[order][:2], STRENGTHS[order][2:]
    return Reconstruction.of(codes, torch.eye(4), torch.full((4,), -1 / 8))


def test_curves_and_areas_by_hand() -> None:
    found = class_curves(four_concepts([0, 1, 2, 3]), one_logit, 0, STRENGTHS)
    falling = np.sort(STRENGTHS.numpy())[::-1]
    inserted = -1 + np.concatenate([[0], falling.cumsum()])
    deleted = -1 + falling.sum() - np.concatenate([[0], falling.cumsum()])
    assert found.counts.tolist() == [0, 1, 2, 3, 4]
    for curve, logits in ((found.insertion, inserted), (found.deletion, deleted)):
        probability = 1 / (1 + np.exp(-logits))
        np.testing.assert_allclose(curve[0], probability, rtol=1e-5)
        np.testing.assert_array_equal(curve[1], logits > 0)
        by_hand = (probability[:-1] + probability[1:]).sum() / 8
        assert float(area(found.counts, curve[0])) == pytest.approx(by_hand, rel=1e-5)


def test_ends_are_those_of_all_concepts_and_of_the_shift() -> None:
    found = class_curves(four_concepts([0, 1, 2, 3]), one_logit, 1, torch.randn(4), points=3)
    assert found.counts.tolist() == [0, 2, 4]
    full, none = (torch.tensor([s, 0.0]).softmax(0)[1] for s in (float(STRENGTHS.sum()) - 1, -1.0))
    torch.testing.assert_close(found.deletion[0, [0, -1]], torch.stack([full, none]))
    torch.testing.assert_close(found.insertion[0, [-1, 0]], torch.stack([full, none]))


def test_the_order_of_the_dictionary_does_not_matter() -> None:
    order = [2, 0, 3, 1]
    here = class_curves(four_concepts([0, 1, 2, 3]), one_logit, 0, STRENGTHS)
    there = class_curves(four_concepts(order), one_logit, 0, STRENGTHS[order])
    torch.testing.assert_close(here.insertion, there.insertion)
    torch.testing.assert_close(here.deletion, there.deletion)


def test_curves_are_read_off_between_their_points() -> None:
    counts, heights = torch.tensor([0, 1, 4]), torch.tensor([0.0, 1.0, 4.0])
    assert on_grid(counts, heights) == pytest.approx(np.linspace(0, 4, GRID).tolist())
    found = cells("a", counts, heights, torch.tensor([3.0, 1.0, 1.0]))
    assert found["a/insertion/area"] == pytest.approx(2)
    assert found["a/deletion/area"] == pytest.approx((2 * 1 + 1 * 3) / 4)
    assert found["a/difference/area"] == pytest.approx(0.75)
    assert found["a/deletion/8"] == pytest.approx(1)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return open_data(str(write_photographs(tmp_path / "photos", 3).parent))


def complete(model: VisionModel, layer: str, channels: int, name: str = "axes") -> Concepts:
    """The channels as concepts: X̂ = X."""
    zero = torch.zeros(channels)
    return Concepts(name, layer, torch.eye(channels), zero, "pre-activation", lambda pfvs: pfvs)


def test_complete_concepts_end_at_the_network_itself(data: DataSet, tmp_path: Path) -> None:
    model = small_model()
    sets = [complete(model, "act1", 6), complete(model, "act2", 8)]
    everything = concept_fidelity(model, sets, {}, data, tmp_path)
    found = tables(everything, ["act1", "act2"])
    assert set(found) == {
        f"{t}-{k}" for t in ("probability", "accuracy") for k in ("insertion", "deletion", "difference")
    } | {"kept"}
    for name, rows in everything.values.items():
        x = model.prepare(data.read(name).image)
        with torch.no_grad():
            p = model(x).softmax(1).max()
            pfvs = capture(model, x, ["act2"])["act2"].pfvs
            nothing = model.net.head(torch.relu(torch.zeros_like(pfvs)).mean(1)).softmax(1)[0, model(x).argmax()]  # type: ignore[operator,union-attr]
        cell = rows["axes"]
        assert found["kept"].values[name]["axes"] == pytest.approx({"act1": 1, "act2": 1}, rel=1e-4)
        assert cell[f"act2 probability/insertion/{GRID - 1}"] == pytest.approx(float(p), rel=1e-4)
        assert cell["act2 probability/deletion/0"] == pytest.approx(float(p), rel=1e-4)
        assert cell["act2 probability/insertion/0"] == pytest.approx(float(nothing), rel=1e-4)
        assert cell["act1 accuracy/deletion/0"] == 1
    gained = found["probability-difference"]
    assert all(gained.interval("axes", layer).mean > 0 for layer in ("act1", "act2"))


def test_a_resumed_run_is_the_same_to_the_byte(data: DataSet, tmp_path: Path) -> None:
    model = small_model()
    sets = [complete(model, "act1", 6)]
    whole = concept_fidelity(model, sets, {}, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        concept_fidelity(model, sets, {}, data, tmp_path / "broken", progress=stop_after(2))
    resumed = concept_fidelity(model, sets, {}, data, tmp_path / "broken")
    prefixes = ["act1 probability", "act1 accuracy"]
    assert curves_json(resumed, prefixes) == curves_json(whole, prefixes)
    for one, other in zip(tables(resumed, ["act1"]).values(), tables(whole, ["act1"]).values(), strict=True):
        assert one.json() == other.json()
    with pytest.raises(IerfError, match="points: 33 there, 9 here"):
        concept_fidelity(model, sets, {}, data, tmp_path / "whole", FidelitySettings(points=9))


def test_one_set_of_concepts_for_a_name_and_layer(data: DataSet, tmp_path: Path) -> None:
    model = small_model()
    with pytest.raises(IerfError, match="two sets of concepts 'axes' of 'act1'"):
        concept_fidelity(model, [complete(model, "act1", 6)] * 2, {}, data, tmp_path)
    with pytest.raises(IerfError, match="act9"):
        concept_fidelity(model, [complete(model, "act1", 6)], {}, data, tmp_path, layers=["act9"])


@pytest.fixture(scope="module")
def fitted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Concepts of two layers of the bundled network: a store, a bank, and what `extractors` leaves."""
    folder = tmp_path_factory.mktemp("bundled")
    photos = write_photographs(folder / "photos", 24).parent
    model = ierf.load("bundled:resnet18-tiny")
    store = PFVStore.collect(model, photos, ["layer3.1", "layer4.0"], folder / "store", per_image=2, ierf=False)
    settings = FitSettings(n_concepts=12, l0_ratio=0.6, held_out=4)
    extractors(store, parse_recipes(["bisecting,sae_topk?samples=512&batch=32"]), folder / "run", settings)
    ConceptBank.fit(store, n_concepts=12, l0_ratio=0.6, path=folder / "bank")
    return folder


def test_sets_of_a_run_and_of_a_bank(fitted_folder: Path) -> None:
    sets = of_fitted(all_fitted(fitted_folder / "run"))
    sae = "sae_topk?samples=512&batch=32"
    names = ["bisecting Lasso", f"{sae} Lasso", f"{sae} own codes"]
    assert [(one.layer, one.name) for one in sets] == [(layer, n) for layer in ("layer3.1", "layer4.0") for n in names]
    bank = ConceptBank.load(fitted_folder / "bank")
    assert [(one.layer, one.name) for one in of_bank(bank)] == [("layer3.1", "bisecting"), ("layer4.0", "bisecting")]


def test_the_command_writes_tables_and_curves(fitted_folder: Path) -> None:
    common = [
        "--data",
        str(fitted_folder / "photos"),
        "--limit",
        "1",
        "--out",
        str(fitted_folder / "out"),
        "--points",
        "5",
    ]
    given = ["--fitted", str(fitted_folder / "run"), "--bank", str(fitted_folder / "bank"), "-l", "layer4.0"]
    result = CliRunner().invoke(main, ["evaluate", "concept-fidelity", *common, *given])
    assert result.exit_code == 0, result.stderr
    written = {path.name for path in (fitted_folder / "out").iterdir()}
    assert {"kept.md", "probability-difference.csv", "accuracy-insertion.json", "probability-curves.json"} <= written
    rows = (fitted_folder / "out" / "probability-insertion.csv").read_text().splitlines()[1:]
    assert len(rows) == 4
    assert all(",layer4.0," in row for row in rows)
    result = CliRunner().invoke(main, ["evaluate", "concept-fidelity", *common])
    assert result.exit_code != 0
