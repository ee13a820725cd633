"""`ierf serve` with a transformer: positions are patches, concepts are of tokens, and a graph says how far it is."""

from collections.abc import Iterator
from time import sleep

import numpy as np
import pytest
import torch
from PIL import Image

import ierf

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from support.served import Client, bank_of_noise, served

from ierf.graph import ConceptGraph, intervene
from ierf.report.server import ServedModel

LAYERS = ("blocks.2", "blocks.4")


@pytest.fixture(scope="module")
def vit() -> ierf.VisionModel:
    return ierf.load("bundled:vit-tiny")


@pytest.fixture(scope="module")
def bank(vit: ierf.VisionModel, tmp_path_factory: pytest.TempPathFactory) -> ierf.ConceptBank:
    """A bank of few concepts of two layers."""
    return bank_of_noise(vit, LAYERS, tmp_path_factory.mktemp("tokens"), 3, 6, 4)


@pytest.fixture(scope="module")
def client(vit: ierf.VisionModel, bank: ierf.ConceptBank) -> Iterator[Client]:
    with served(ServedModel.of(vit, bank)) as running:
        yield running


@pytest.fixture(scope="module")
def photo(client: Client, chelsea: Image.Image) -> str:
    return client.upload(chelsea)


def test_places_of_blocks_are_rows_and_columns_of_patches(
    client: Client, photo: str, vit: ierf.VisionModel, chelsea: Image.Image
) -> None:
    grids = {each["name"]: (each["rows"], each["columns"]) for each in client.ask("GET", "/api/model").json["layers"]}
    assert {name: grids[name] for name in LAYERS} == dict.fromkeys(LAYERS, (8, 8))
    job = client.finished({"kind": "ierf", "photo": photo, "layer": "blocks.2", "position": [2, 5], "target": 7})
    x = vit.prepare(chelsea)
    expected = ierf.effective_receptive_fields(vit, x, "blocks.2", [(2, 5)])[0, 0].detach().numpy()
    numbers = client.numbers(job, job["result"]["numbers"])
    assert np.allclose(numbers, expected, atol=1e-5 * np.abs(expected).max())
    relevance = ierf.attribute(vit, x, 7, "attnlrp", "blocks.2")[0]
    assert job["result"]["relevance"] == pytest.approx(float(relevance[2, 5]), rel=1e-3)
    outside = client.send({"kind": "ierf", "photo": photo, "layer": "blocks.2", "position": [8, 0]})
    assert outside.status == 422


def test_maps_are_those_of_the_library(client: Client, photo: str, vit: ierf.VisionModel, chelsea: Image.Image) -> None:
    job = client.finished({"kind": "maps", "photo": photo, "classes": [7], "resolution": "blocks.4"})
    (drawn,) = job["result"]["classes"][0]["maps"]
    expected = ierf.attribute(vit, vit.prepare(chelsea), 7, "attnlrp", "blocks.4")[0].detach().numpy()
    assert np.allclose(client.numbers(job, drawn["numbers"]), expected, atol=1e-5 * np.abs(expected).max())


def test_a_graph_counts_its_steps_can_be_stopped_between_them_and_is_that_of_the_library(
    client: Client, photo: str, vit: ierf.VisionModel, bank: ierf.ConceptBank, chelsea: Image.Image
) -> None:
    stopped = client.send({"kind": "graph", "photo": photo, "classes": [3]}).json
    while (said := client.ask("GET", f"/api/jobs/{stopped['id']}").json)["done"] < 1:
        sleep(0.01)
    client.ask("DELETE", f"/api/jobs/{stopped['id']}")
    end = client.wait(stopped["id"])
    assert end["state"] == "cancelled"
    assert said["total"] == end["total"] == 1 + 3 * len(LAYERS)
    assert 1 <= end["done"] < end["total"]

    job, seen = client.send({"kind": "graph", "photo": photo, "classes": [7], "keep": 1.0}).json, []
    while (said := client.ask("GET", f"/api/jobs/{job['id']}").json)["state"] not in ("done", "failed"):
        seen.append((said["done"], said["stage"]))
        sleep(0.01)
    assert said["state"] == "done", said["error"]
    steps = [done for done, stage in seen if stage not in ("", "the page")]
    assert steps == sorted(steps)
    assert len(set(steps)) >= 3
    graph = ConceptGraph.build(vit, bank, chelsea, [7], keep=1.0)
    data = client.ask("GET", f"/api/jobs/{job['id']}/files/graph.json").json
    assert {(e["source"], e["target"]): e["value"] for e in data["edges"]} == pytest.approx(
        {(e.source, e.target): e.value for e in graph.edges}, rel=1e-4, abs=1e-5
    )
    shown = [edge for edge in data["edges"] if edge["map"]]
    assert shown
    assert {(edge["map"]["rows"], edge["map"]["columns"]) for edge in shown} == {(8, 8)}

    top = said["result"]["rows"][0]["concepts"][0]["id"]
    found = client.finished({"kind": "intervention", "photo": photo, "delete": [top], "classes": [7]})["result"]
    with torch.no_grad():
        expected = intervene(vit, bank, vit.prepare(chelsea), [top])
    for of_class in found["classes"]:
        logits = [float(values[0, of_class["index"]]) for values in (expected.before, expected.after)]
        assert of_class["logits"] == pytest.approx(logits, rel=1e-5, abs=1e-5)
    assert {of_class["index"] for of_class in found["classes"]} >= {7, int(expected.after[0].argmax())}
