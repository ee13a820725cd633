"""What `ierf serve` finds is what the library finds."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import ierf
from ierf.attribution import METHODS
from ierf.cli import main

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from support.served import Client, bank_of_noise, encoded, served

from ierf.graph import ConceptGraph, intervene
from ierf.report.server import ServedModel

LAYERS = ("layer4.0", "layer4.1")


@pytest.fixture(scope="module")
def bank(model: ierf.VisionModel, tmp_path_factory: pytest.TempPathFactory) -> ierf.ConceptBank:
    """A bank of few concepts of two layers."""
    return bank_of_noise(model, LAYERS, tmp_path_factory.mktemp("served"), 6, 4, 6)


@pytest.fixture(scope="module")
def client(model: ierf.VisionModel, bank: ierf.ConceptBank) -> Iterator[Client]:
    with served(ServedModel.of(model, bank)) as running:
        yield running


@pytest.fixture(scope="module")
def photo(client: Client, chelsea: Image.Image) -> str:
    return client.upload(chelsea)


def test_the_model_is_described(client: Client, model: ierf.VisionModel) -> None:
    said = client.ask("GET", "/api/model").json
    assert said["labels"] == list(model.labels or ())
    assert [method["name"] for method in said["methods"]] == list(METHODS)
    assert said["usual"] == "srd"
    assert said["bank"] == list(LAYERS)
    grids = {layer["name"]: (layer["rows"], layer["columns"]) for layer in said["layers"]}
    for name, grid in grids.items():
        shapes: list[tuple[int, ...]] = []
        handle = model.module(name).register_forward_hook(lambda m, i, o, s=shapes: s.append(tuple(o.shape[2:])))
        with torch.no_grad():
            model(torch.zeros(1, 3, *model.preprocess.size))
        handle.remove()
        assert shapes == [grid], name
    assert set(LAYERS) - {"layer4.1"} < set(grids)


def test_the_photograph_is_what_the_model_sees(client: Client, photo: str, explanation: ierf.Explanation) -> None:
    answer = client.ask("GET", f"/api/photos/{photo}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.body == encoded(explanation.scene)


def test_maps_are_those_of_the_library(
    client: Client, photo: str, model: ierf.VisionModel, chelsea: Image.Image
) -> None:
    job = client.finished({"kind": "maps", "photo": photo})
    x, found = model.prepare(chelsea), ierf.explain(model, chelsea)
    assert job["state"] == "done"
    assert [c["index"] for c in job["result"]["classes"]] == list(found.maps)
    assert [c["label"] for c in job["result"]["top"]] == [prediction.label for prediction in found.top]
    for of_class in job["result"]["classes"]:
        assert [drawn["name"] for drawn in of_class["maps"]] == ["low", "high", "input"]
        for drawn in of_class["maps"]:
            numbers = client.numbers(job, drawn["numbers"])
            assert np.array_equal(numbers, found.maps[of_class["index"]][drawn["name"]].numpy())
            alone = ierf.attribute(model, x, of_class["index"], "srd", drawn["name"])[0].detach().cpu().numpy()
            assert np.allclose(numbers, alone, atol=1e-6 * np.abs(alone).max())
            picture = client.ask("GET", f"/api/jobs/{job['id']}/files/{drawn['picture']}")
            assert picture.body.startswith(b"\x89PNG")
    assert len(job["result"]["features"]) == len(found.fields)


def test_another_method_at_a_layer_for_a_class_by_name(
    client: Client, photo: str, model: ierf.VisionModel, chelsea: Image.Image
) -> None:
    asked = {"kind": "maps", "photo": photo, "classes": ["tabby", 7], "method": "gradcam", "resolution": "layer4"}
    job = client.finished(asked)
    assert [of_class["index"] for of_class in job["result"]["classes"]] == [model.class_index("tabby"), 7]
    for of_class in job["result"]["classes"]:
        expected = ierf.attribute(model, model.prepare(chelsea), of_class["index"], "gradcam", "layer4")[0]
        (drawn,) = of_class["maps"]
        assert np.array_equal(client.numbers(job, drawn["numbers"]), expected.detach().numpy())


def test_an_ierf_is_that_of_the_library(
    client: Client, photo: str, model: ierf.VisionModel, chelsea: Image.Image
) -> None:
    job = client.finished({"kind": "ierf", "photo": photo, "layer": "layer3", "position": [2, 5], "target": "tabby"})
    expected = ierf.effective_receptive_fields(model, model.prepare(chelsea), "layer3", [(2, 5)])[0, 0].detach()
    numbers = client.numbers(job, job["result"]["numbers"])
    assert np.allclose(numbers, expected.numpy(), atol=1e-5 * float(expected.abs().max()))
    relevance = ierf.attribute(model, model.prepare(chelsea), model.class_index("tabby"), "srd", "layer3")[0]
    assert job["result"]["relevance"] == pytest.approx(float(relevance[2, 5]), rel=1e-4)


def test_the_graph_and_interventions_are_those_of_the_library(
    client: Client, photo: str, model: ierf.VisionModel, bank: ierf.ConceptBank, chelsea: Image.Image, tmp_path: Path
) -> None:
    job = client.finished({"kind": "graph", "photo": photo, "classes": ["tabby"], "layers": ["layer4.1", "layer4.0"]})
    graph = ConceptGraph.build(model, bank, chelsea, ["tabby"])
    data = client.ask("GET", f"/api/jobs/{job['id']}/files/graph.json").json
    assert data == json.loads(graph.save(tmp_path / "graph.json").read_text())
    page = client.ask("GET", f"/api/jobs/{job['id']}/files/graph.html")
    assert "sandbox" in page.headers["content-security-policy"]
    assert b"<html" in page.body
    assert [row["layer"] for row in job["result"]["rows"]] == ["layer4.1", "layer4.0"]
    top = job["result"]["rows"][0]["concepts"][0]
    assert client.ask("GET", f"/api/jobs/{job['id']}/files/{top['elsewhere']}").body.startswith(b"\xff\xd8")

    asked = {"kind": "intervention", "photo": photo, "delete": [top["id"]], "classes": [11], "graph": job["id"]}
    found = client.finished(asked)["result"]
    expected = intervene(model, bank, model.prepare(chelsea), [top["id"]], refit=True)
    assert {of_class["index"] for of_class in found["classes"]} >= {11, int(expected.after[0].argmax())}
    for of_class in found["classes"]:
        logits = [float(values[0, of_class["index"]]) for values in (expected.before, expected.after)]
        assert of_class["logits"] == pytest.approx(logits, rel=1e-6, abs=1e-6)
    (claim,) = found["claims"]
    assert claim["claimed"] == pytest.approx(graph.node(top["id"]).importance[0], rel=1e-5)
    assert claim["lost"] == pytest.approx(-float(expected.change[0, model.class_index("tabby")]), abs=1e-5)

    added = client.finished({"kind": "intervention", "photo": photo, "insert": {"layer4.0/2": 1.5}})["result"]
    put_in = intervene(model, bank, model.prepare(chelsea), insert={"layer4.0/2": 1.5})
    best = added["classes"][0]
    assert best["logits"][1] == pytest.approx(float(put_in.after[0, best["index"]]), rel=1e-6)
    assert added["claims"] == []


def test_the_same_request_is_computed_once(client: Client, photo: str) -> None:
    asked = {"kind": "maps", "photo": photo, "method": "gradient", "resolution": "input"}
    assert client.finished(asked)["id"] == client.finished(asked)["id"]
    other = client.finished({**asked, "classes": [1]})
    assert other["id"] != client.finished(asked)["id"]


def test_a_long_job_reports_and_is_cancelled_at_once(client: Client, photo: str) -> None:
    asked = {"kind": "maps", "photo": photo, "method": "kernel_shap", "resolution": "input"}
    long, behind = client.send(asked).json, client.send({**asked, "classes": [5]}).json
    assert behind["ahead"] == 1
    while (running := client.ask("GET", f"/api/jobs/{long['id']}").json)["total"] is None:
        assert running["state"] in ("queued", "running")
    assert running["total"] == 3
    assert running["stage"].startswith("evidence for ")
    assert running["operations"] > 0
    assert client.ask("DELETE", f"/api/jobs/{behind['id']}").json["state"] == "cancelled"
    client.ask("DELETE", f"/api/jobs/{long['id']}")
    stopped = client.wait(long["id"], seconds=5)
    assert stopped["state"] == "cancelled"
    assert stopped["result"] is None
    assert stopped["done"] < 3
    assert client.finished({"kind": "maps", "photo": photo, "classes": [3]})["state"] == "done"


def test_the_model_is_left_as_it_was(client: Client, photo: str, model: ierf.VisionModel, bank: object) -> None:
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    flags = [module.training for module in model.net.modules()]
    job = client.send({"kind": "maps", "photo": photo, "method": "scorecam"}).json
    client.ask("DELETE", f"/api/jobs/{job['id']}")
    client.wait(job["id"])
    client.finished({"kind": "maps", "photo": photo, "classes": [2]})
    assert all(torch.equal(before[name], value) for name, value in model.net.state_dict().items())
    assert flags == [module.training for module in model.net.modules()]
    assert all(p.grad is None for p in model.net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())


def test_the_bank_of_another_model_is_an_error(bank: ierf.ConceptBank) -> None:
    arguments = ["serve", "--model", "bundled:vit-tiny", "--bank", str(bank.folder), "--port", "0"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "concepts of another model" in result.stderr


_DROP = """content => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
    transfer.items.add(new File([bytes], "cat <b>.png", { type: "image/png" }));
    document.querySelector("#drop").dispatchEvent(
        new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def test_in_a_browser(client: Client, browser: Any, chelsea: Image.Image, model: ierf.VisionModel) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(client.url)
    page.wait_for_selector("#method option", state="attached")
    page.evaluate(_DROP, b64encode(encoded(chelsea)).decode())

    page.wait_for_selector("#panel-maps figure img")
    assert page.locator("#panel-maps > .result > .row").count() == 3
    assert page.locator("#top li").first.inner_text().startswith("tabby")
    assert page.locator("#classes button").all_inner_texts()[0].startswith("tabby")
    assert page.get_attribute("#photo", "alt") == "The photograph cat <b>.png"

    page.select_option("#layer", "layer3")
    box = page.locator("#photo").bounding_box()
    page.mouse.click(box["x"] + box["width"] * (5.5 / 8), box["y"] + box["height"] * (2.5 / 8))
    page.wait_for_selector("#panel-ierf figure img")
    assert "PFV (2, 5)" in page.inner_text("#panel-ierf figcaption")
    page.evaluate("document.querySelector('#panel-ierf img').decode()")
    numbers = client.ask("GET", page.get_attribute("#panel-ierf a", "href")).body
    expected = ierf.effective_receptive_fields(model, model.prepare(chelsea), "layer3", [(2, 5)])[0, 0].detach()
    assert np.allclose(np.load(BytesIO(numbers)), expected.numpy(), atol=1e-5 * float(expected.abs().max()))

    page.focus("#stage")
    for key in ("ArrowDown", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    page.locator("#panel-ierf figcaption", has_text="PFV (3, 4)").wait_for()

    page.fill("#class", "no such class")
    page.keyboard.press("Enter")
    assert not page.evaluate("document.querySelector('#class').checkValidity()")
    page.fill("#class", "goose")
    page.keyboard.press("Enter")
    assert page.locator("#classes button").count() == 4

    page.click("#show-graph")
    frame = page.wait_for_selector("#panel-graph iframe").content_frame()
    frame.wait_for_selector("svg")
    switch = page.locator("#concepts input").first
    assert switch.get_attribute("role") == "switch"
    switch.focus()
    page.keyboard.press("Space")
    page.wait_for_selector("#panel-intervention table")
    assert page.locator("#panel-intervention tbody tr").count() >= 5
    for image in page.locator("img").all():
        assert image.get_attribute("alt")
    named = page.evaluate("[...document.querySelectorAll('input, select')].every((field) => field.labels.length)")
    assert named
    assert said == []
    page.close()


def test_a_browser_sees_how_far_a_graph_is_stops_it_and_is_told_what_is_wrong(
    client: Client, browser: Any, chelsea: Image.Image
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    page.goto(client.url)
    page.wait_for_selector("#method option", state="attached")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.wait_for_selector("#panel-photo .task.failed")
    assert "photograph" in page.inner_text("#panel-photo .said")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": encoded(chelsea)})
    page.wait_for_selector("#panel-maps figure img")
    page.locator("#classes button").first.click()
    assert page.locator("#classes button").count() == 2

    page.click("#show-graph")
    bar = page.locator("#panel-graph progress")
    assert 0 < until(lambda: float(bar.get_attribute("value") or 0)) < 1
    page.locator("#panel-graph .task button").click()
    assert page.locator("#panel-graph .task").is_hidden()
    assert page.locator("#panel-graph iframe").count() == 0

    page.click("#show-graph")
    page.wait_for_selector("#panel-graph iframe")
    page.locator("#concepts input").first.uncheck()
    page.wait_for_selector("#panel-intervention table")
    changes = page.locator("#panel-intervention tbody td:nth-child(4)")
    assert set(changes.all_inner_texts()) != {"+0.00"}
    page.click("#all-on")
    until(lambda: set(changes.all_inner_texts()) == {"+0.00"})
    page.close()


def until(found: Callable[[], Any], seconds: float = 30) -> Any:
    """What it finds, as soon as that is something."""
    end = monotonic() + seconds
    while not (value := found()):
        assert monotonic() < end
        sleep(0.02)
    return value
