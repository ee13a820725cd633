"""Fig. 11: curves of a linear network by hand, ends that are known, a run that resumes."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jaxtyping import Float
from support.runs import write_photographs
from torch import Tensor
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))
from support.runs import stop_after
from support.small_bank import CHANNELS, SmallBank, SmallConcepts
from support.small_bank import model as small_model

import ierf
from ierf.cli import main
from ierf.concepts import ConceptBank
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments import DataSet, Results, open_data
from ierf.experiments.concept_fidelity import GRID, areas, curves_json, panels
from ierf.experiments.interlayer import InterlayerSettings, interlayer, pairs_of
from ierf.model import VisionModel, capture
from ierf.store import PFVStore

PAIR = "a → b"
SAME = ("ig", "gradient_x_input", "deeplift")
"""Attributions that are one and the same where all is linear."""


def axes_bank(lam: float = 1e-6) -> Any:
    """Channels as concepts of "a", a rotation of them for "b"; shifts other than zero."""
    generator = torch.Generator().manual_seed(3)
    rotation = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=generator, dtype=torch.float64)).Q
    shift = 0.1 * torch.arange(CHANNELS, dtype=torch.float64)
    of = {
        "a": SmallConcepts("a", 2.0 * torch.eye(CHANNELS, dtype=torch.float64), shift, lam),
        "b": SmallConcepts("b", rotation, -shift, lam),
    }
    bank: Any = SmallBank(of, SimpleNamespace(extractor="by hand", to_json=lambda: {"atoms": "axes", "lam": lam}))
    return bank


@pytest.fixture(autouse=True)
def _any_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmallBank, "check_model", lambda *_: None, raising=False)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return open_data(str(write_photographs(tmp_path / "photos", 3).parent))


def by_hand(model: VisionModel, x: Float[Tensor, "1 3 H W"], targets: int) -> tuple[float, float]:
    """Insertion and deletion areas of gradient × input for projections, concept after concept in plain loops."""
    net: Any = model.net
    bank = axes_bank()
    weights, atoms, start = net.b.weight[:, :, 0, 0], bank.layer("b").atoms, bank.layer("a").shift
    origin = bank.layer("b").shift - (0 if net.b.bias is None else net.b.bias)
    found = capture(model, x, ["a", "b"])
    a, b = found["a"].pfvs[0], found["b"].pfvs[0]
    head = net.head.weight[int(model(x).argmax())]
    coefficients = (b - bank.layer("b").shift) @ atoms.T
    importance = coefficients.sum(0) * (atoms @ head) / len(b)
    chosen = importance.argsort(descending=True)[:targets]
    chosen = chosen[importance[chosen] > 0]

    def largest(kept: list[int], target: int) -> float:
        made = start.repeat(len(a), 1)
        made[:, kept] += (a - start)[:, kept]
        return float(((made @ weights.T - origin) @ atoms[target]).max())

    areas_of_targets = []
    for target in chosen.tolist():
        gain = ((a - start) * (weights.T @ atoms[target])).sum(0)
        order = gain.argsort(descending=True).tolist()
        whole = largest(order, target)
        if whole > 0:
            inserted = [largest(order[:i], target) / whole for i in range(CHANNELS + 1)]
            deleted = [largest(order[i:], target) / whole for i in range(CHANNELS + 1)]
            areas_of_targets.append([sum(c[:-1]) / 10 + sum(c[1:]) / 10 for c in (inserted, deleted)])
    insertion, deletion = torch.tensor(areas_of_targets).mean(0).tolist()
    return insertion, deletion


def test_areas_of_a_linear_network_by_hand(data: DataSet, tmp_path: Path) -> None:
    model = small_model()
    settings = InterlayerSettings(SAME, targets=2, score="gig")
    results = interlayer(model, axes_bank(), data, tmp_path, settings)
    assert results.rows == SAME
    for name, rows in results.values.items():
        with torch.no_grad():
            insertion, deletion = by_hand(model, model.prepare(data.read(name).image), 2)
        for method in SAME:
            assert rows[method][f"{PAIR}/insertion/area"] == pytest.approx(insertion, rel=1e-3)
            assert rows[method][f"{PAIR}/deletion/area"] == pytest.approx(deletion, rel=1e-3)


@pytest.mark.parametrize("score", ["icat", "gig"])
def test_curves_end_where_all_concepts_are(data: DataSet, tmp_path: Path, score: str) -> None:
    settings = InterlayerSettings(("ig", "kernel_shap", "lrp", "coefficient_size", "random"), score=score, points=4)
    results = interlayer(small_model(gate=True), axes_bank(), data, tmp_path, settings, limit=2)
    for rows in results.values.values():
        ends = {
            (round(cells[f"{PAIR}/insertion/0"] or 0, 6), round(cells[f"{PAIR}/deletion/{GRID - 1}"] or 0, 6))
            for cells in rows.values()
        }
        assert len(ends) == 1
        (ends_of_all,) = ends
        assert ends_of_all[0] == ends_of_all[1]
        for cells in rows.values():
            assert cells[f"{PAIR}/insertion/{GRID - 1}"] == pytest.approx(1)
            assert cells[f"{PAIR}/deletion/0"] == pytest.approx(1)
            difference = (cells[f"{PAIR}/insertion/area"] or 0) - (cells[f"{PAIR}/deletion/area"] or 0)
            assert cells[f"{PAIR}/difference/area"] == pytest.approx(difference)


def test_the_right_order_beats_chance(tmp_path: Path) -> None:
    data = open_data(str(write_photographs(tmp_path / "photos", 8).parent))
    settings = InterlayerSettings(("ig", "random"))
    results = interlayer(small_model(gate=True), axes_bank(), data, tmp_path, settings)
    difference = areas(results, {PAIR: PAIR}, "")["difference"]
    assert float((difference.of("ig", PAIR) - difference.of("random", PAIR)).mean()) > 0.05


def written(results: Results) -> list[str]:
    return [curves_json(results, [PAIR]), *(one.json() for one in areas(results, {PAIR: PAIR}, "t").values())]


def test_a_resumed_run_is_the_same_to_the_byte(data: DataSet, tmp_path: Path) -> None:
    model = small_model(gate=True)
    whole = interlayer(model, axes_bank(), data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        interlayer(model, axes_bank(), data, tmp_path / "broken", progress=stop_after(1))
    journal = tmp_path / "broken" / "interlayer.jsonl"
    before = journal.read_bytes()
    journal.write_bytes(before + b'{"image": "2.p')
    resumed = interlayer(model, axes_bank(), data, tmp_path / "broken")
    assert journal.read_bytes().startswith(before)
    assert written(resumed) == written(whole)
    with pytest.raises(IerfError, match="bank: "):
        interlayer(model, axes_bank(lam=0.1), data, tmp_path / "broken")


def test_the_picture_has_a_panel_for_each_pair(data: DataSet, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = interlayer(small_model(), axes_bank(), data, tmp_path, InterlayerSettings(("ig", "random")))
    narrow, wide = (panels(results, {str(i): PAIR for i in range(n)}, "cosine") for n in (1, 3))
    assert narrow is not None
    assert wide is not None
    sizes = [int.from_bytes(picture[16:20]) for picture in (narrow, wide)]
    assert sizes[1] - sizes[0] == pytest.approx(2 * 2.6 * 150, abs=2)


def test_mistakes_are_named(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(IerfError, match="two layers of the bank, which has a, b"):
        interlayer(small_model(), axes_bank(), data, tmp_path, layers=["a"])
    with pytest.raises(UnknownNameError, match="kernel_shap"):
        InterlayerSettings(("kernel_shp",))
    with pytest.raises(UnknownNameError, match="icat"):
        InterlayerSettings(score="icta")
    assert not list(tmp_path.glob("*.jsonl"))
    assert pairs_of(["a", "b", "c"]) == ["a → b", "b → c"]


def test_the_command_on_a_bank_of_the_bundled_network(tmp_path: Path) -> None:
    photos = write_photographs(tmp_path / "photos", 12).parent
    store = PFVStore.collect(
        ierf.load("bundled:resnet18-tiny"), photos, ["layer3.1", "layer4.0"], tmp_path / "store", ierf=False
    )
    ConceptBank.fit(store, n_concepts=8, l0_ratio=0.6, path=tmp_path / "bank")
    out = tmp_path / "out"
    arguments = ["--bank", str(tmp_path / "bank"), "--data", str(photos), "--limit", "2", "--out", str(out)]
    chosen = ["--methods", "ig,random", "--targets", "2", "--points", "5"]
    result = CliRunner().invoke(main, ["evaluate", "interlayer", *arguments, *chosen])
    assert result.exit_code == 0, result.stderr
    rows = [line.split(",") for line in (out / "insertion.csv").read_text().splitlines()]
    assert rows[0] == ["attribution", "column", "mean", "low", "high", "images"]
    assert [row[:2] for row in rows[1:]] == [[m, "layer3.1 → layer4.0"] for m in ("ig", "random")]
    assert {"deletion.md", "difference.json", "curves.json"} <= {path.name for path in out.iterdir()}
