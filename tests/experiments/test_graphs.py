"""Graphs of groups beside those of concepts: figures worked out from edges, from interventions and by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from support.runs import stop_after, write_photographs
from support.small_bank import CHANNELS, SmallBank, SmallConcepts
from support.small_bank import model as small_model

from ierf.errors import IerfError
from ierf.experiments import DataSet, open_data
from ierf.experiments.graphs import CONCEPTS, GROUPS, LASSO, MEASURES, GraphSettings, graphs, tables
from ierf.graph import ConceptGraph, intervene
from ierf.model import VisionModel, capture

LAYERS = ("a", "b")


def part_of_axes(lam: float = 1e-3) -> Any:
    """Four of five axes as concepts of "a", so that a residual is left; a rotation of all of them for "b"."""
    generator = torch.Generator().manual_seed(3)
    rotation = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=generator)).Q
    shift = 0.1 * torch.arange(CHANNELS)
    of = {
        "a": SmallConcepts("a", 2.0 * torch.eye(CHANNELS)[:4], shift, lam),
        "b": SmallConcepts("b", rotation, -shift, lam),
    }
    bank: Any = SmallBank(of, SimpleNamespace(extractor="by hand", to_json=lambda: {"atoms": "axes", "lam": lam}))
    return bank


@pytest.fixture(autouse=True)
def _any_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise IerfError("a bank by hand has no pictures")

    monkeypatch.setattr(SmallBank, "check_model", lambda *_: None, raising=False)
    monkeypatch.setattr(SmallBank, "store", property(none), raising=False)
    monkeypatch.setattr(SmallBank, "pictures", none, raising=False)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return open_data(str(write_photographs(tmp_path / "photos", 3).parent))


def network(gate: bool = False) -> VisionModel:
    return small_model(gate).to(dtype="float32")


def followed(graph: ConceptGraph) -> dict[str, dict[str, float]]:
    """Layer -> kind of node -> the flow that arrives, handed down edge by edge."""
    flow = {node.id: 1 / len(graph.classes) for node in graph.classes}
    found: dict[str, dict[str, float]] = {}
    for layer in reversed(graph.layers):
        kinds = found.setdefault(layer, {})
        for node in graph.row(layer):
            flow[node.id] = sum(e.share * flow[e.target] for e in graph.edges if e.source == node.id)
            kinds[node.kind] = kinds.get(node.kind, 0.0) + flow[node.id]
    return found


@pytest.mark.parametrize("gate", [False, True])
def test_flow_by_the_edges_and_claims_by_interventions(data: DataSet, tmp_path: Path, gate: bool) -> None:
    model, bank, settings = network(gate), part_of_axes(), GraphSettings(budget=4)
    results = graphs(model, bank, data, tmp_path, settings)
    assert results.rows == (GROUPS, LASSO, CONCEPTS)
    for name, rows in results.values.items():
        x = model.prepare(data.read(name).image)
        for row, options in settings.options.items():
            graph = ConceptGraph.build(model, bank, x, layers=LAYERS, pictures=False, **options)
            lost = 0.0
            for layer, kinds in followed(graph).items():
                lost += kinds.get("residual", 0.0)
                nodes = [node for node in graph.row(layer) if node.kind in ("concept", "group")]
                expected = {
                    "followed": sum(kinds.values()) - kinds.get("residual", 0.0),
                    "own": kinds.get("own", 0.0),
                    "residual": kinds.get("residual", 0.0),
                    "residual so far": lost,
                }
                for measure, value in expected.items():
                    assert rows[row][f"{layer} {measure}"] == pytest.approx(value, abs=1e-6)
                classes = [node.index for node in graph.classes]
                claimed = torch.tensor([node.importance for node in nodes])
                changes = [intervene(model, bank, x, node.id, refit=row == GROUPS).change for node in nodes]
                effects = -torch.cat(changes)[:, classes].float()
                ranks = [spearmanr(claimed[:, c], effects[:, c]).statistic for c in range(len(classes))]
                found = rows[row][f"{layer} rank correlation"]
                if len(nodes) > 1:
                    assert found == pytest.approx(sum(ranks) / len(ranks), abs=1e-4)
                else:
                    assert found is None
                slope = torch.linalg.lstsq(claimed.flatten()[:, None], effects.flatten()).solution
                assert rows[row][f"{layer} slope"] == pytest.approx(float(slope), rel=1e-3)


def test_a_linear_network_by_hand(data: DataSet, tmp_path: Path) -> None:
    """As many groups as concepts: each is one, what is claimed of it comes true, flows are products."""
    model, bank = network(), part_of_axes()
    net: Any = model.net
    results = graphs(model, bank, data, tmp_path, GraphSettings(budget=5))
    for name, rows in results.values.items():
        x = model.prepare(data.read(name).image)
        with torch.no_grad():
            chosen = model(x)[0].topk(2).indices
            b = capture(model, x, ["b"])["b"].pfvs[0] - bank.layer("b").shift
            atoms = bank.layer("b").atoms
            values = ((b @ atoms.T).mean(0)[:, None] * (atoms @ net.head.weight[chosen].T)).abs()
        cells = rows[GROUPS]
        assert float((values / values.sum(0)).sum()) / 2 == pytest.approx(cells["b followed"], abs=1e-6)
        assert cells["b residual"] == pytest.approx(0, abs=1e-6)
        assert cells["a followed"] == pytest.approx(1 - (cells["a residual so far"] or 0), abs=1e-6)
        for layer in LAYERS:
            assert cells[f"{layer} held"] == cells[f"{layer} adding up"] == 1
            assert cells[f"{layer} rank correlation"] == pytest.approx(1)
            assert cells[f"{layer} slope"] == pytest.approx(1, abs=1e-4)
            assert cells[f"{layer} completeness"] == pytest.approx(0, abs=1e-2)
        assert rows[CONCEPTS]["a held"] is None


def test_costs_are_those_of_one_run(data: DataSet, tmp_path: Path) -> None:
    results = graphs(network(), part_of_axes(), data, tmp_path, GraphSettings(pictures=True), limit=1)
    (rows,) = results.values.values()
    for kind in ("", ", pictures"):
        for row in (GROUPS, LASSO, CONCEPTS):
            ratio = (rows[row][f"CPU s{kind}"] or 0) / (rows[CONCEPTS][f"CPU s{kind}"] or 0)
            assert rows[row][f"CPU ratio{kind}"] == pytest.approx(ratio)
    found = tables(results, LAYERS)
    assert list(found) == [*MEASURES, "cost"]
    assert list(found["followed"].columns) == ["b followed", "a followed"]
    assert list(found["cost"].columns) == ["CPU s", "CPU ratio", "CPU s, pictures", "CPU ratio, pictures"]


def test_a_run_goes_on(data: DataSet, tmp_path: Path) -> None:
    model, settings = network(gate=True), GraphSettings(budget=4)
    with pytest.raises(KeyboardInterrupt):
        graphs(model, part_of_axes(), data, tmp_path, settings, progress=stop_after(1))
    journal = tmp_path / "graphs.jsonl"
    before = journal.read_bytes()
    journal.write_bytes(before + b'{"image": "2.p')
    resumed = graphs(model, part_of_axes(), data, tmp_path, settings)
    assert journal.read_bytes().startswith(before)
    assert len(resumed.values) == 3
    again = graphs(model, part_of_axes(), data, tmp_path, settings)
    assert again.json() == resumed.json()
    with pytest.raises(IerfError, match="budget: 4 there, 5 here"):
        graphs(model, part_of_axes(), data, tmp_path, GraphSettings(budget=5))


def test_too_few_nodes_are_refused() -> None:
    with pytest.raises(IerfError, match="more than 3 nodes, not 3"):
        GraphSettings(budget=3)
