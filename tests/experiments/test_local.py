"""Table I: its numbers are the metrics' own, and a killed run ends like an unbroken one."""

import gc
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import in_a_process, write_photographs
from typer.testing import CliRunner

import ierf
from ierf.attribution import METHODS
from ierf.cli import main
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments import GROUPS, Photo, open_data, parse_method, parse_methods
from ierf.experiments.local import LocalSettings, case, local, measured, seen_mask
from ierf.metrics import attribution_localization, deletion, fidelity, insertion, pointing_game, sparseness, stability
from ierf.model import Preprocess, VisionModel
from ierf.rules import Tape

ALL = ("pointing", "localization", "sparseness", "fidelity", "stability", "insertion", "deletion", "fidelity_black")


@pytest.fixture(scope="module")
def model() -> VisionModel:
    return ierf.load("bundled:resnet18-tiny")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "photos")


def test_every_number_is_that_of_a_direct_call(model: VisionModel, table: Path, tmp_path: Path) -> None:
    settings = LocalSettings(ALL, fidelity_runs=12, stability_samples=3, seed=5)
    methods = parse_methods(["srd@high", "gradient_x_input,random"])
    results = local(model, open_data(str(table)), methods, tmp_path, settings, limit=2)
    assert results.rows == ("srd@high", "gradient_x_input", "random")
    assert len(results.values) == 2
    for name, rows in results.values.items():
        i = int(name.removesuffix(".png"))
        x, target = model.prepare(table.parent / name), 30 + i
        x0, y0, x1, y1 = (int(n) for n in table.read_text().splitlines()[1 + i].split(",")[2:])
        black = model.preprocess(Image.new("RGB", (64, 64)))[None]
        mask = torch.zeros(64, 64, dtype=torch.bool)
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
        for row, (method, resolution) in zip(
            results.rows, (("srd", "high"), ("gradient_x_input", "input"), ("random", "input")), strict=True
        ):
            explain = lambda x, m=method, r=resolution: ierf.attribute(model, x, target, m, r)  # noqa: B023, E731
            map = explain(x)
            full = torch.nn.functional.interpolate(map[:, None], size=(64, 64), mode="bilinear")[:, 0]
            expected = {
                "pointing": pointing_game(map[0], mask, 15 * 64 / 224),
                "localization": attribution_localization(map[0], mask),
                "sparseness": sparseness(full[0]),
                "fidelity": fidelity(model, x, target, map, runs=12, seed=5)[0],
                "fidelity_black": fidelity(model, x, target, map, runs=12, seed=5, baseline=black)[0],
                "stability": stability(explain, x, samples=3, seed=5)[0],
                "insertion": insertion(model, x, target, map, steps=100, score="probability").auc[0],
                "deletion": deletion(model, x, target, map, steps=100, score="probability").auc[0],
            }
            for metric, value in expected.items():
                found = float("nan") if rows[row][metric] is None else rows[row][metric]
                assert found == pytest.approx(float(value), rel=1e-4, abs=1e-5, nan_ok=True), (name, row, metric)


def test_more_photographs_go_on_where_fewer_ended(model: VisionModel, table: Path, tmp_path: Path) -> None:
    settings, data = LocalSettings(("sparseness",)), open_data(str(table))
    few = local(model, data, parse_methods(["gradient"]), tmp_path, settings, limit=2)
    lines = (tmp_path / "local.jsonl").read_text().splitlines()
    many = local(model, data, parse_methods(["gradient"]), tmp_path, settings)
    assert len(many.values) == 4
    assert few.values.items() <= many.values.items()
    assert (tmp_path / "local.jsonl").read_text().splitlines()[: len(lines)] == lines


def test_nothing_of_a_photograph_stays_in_memory(model: VisionModel, table: Path) -> None:
    methods = parse_methods(
        [",".join(name for name in METHODS if name not in ("scorecam", "ablationcam", "kernel_shap"))]
    )
    settings = LocalSettings(("fidelity", "stability"), fidelity_runs=2, stability_samples=1)
    assert measured(model, open_data(str(table)).read("0.png"), methods, settings) is not None
    gc.collect()
    assert not [o for o in gc.get_objects() if isinstance(o, Tape)]


def test_other_weights_or_data_are_refused(model: VisionModel, table: Path, tmp_path: Path) -> None:
    settings, methods = LocalSettings(("sparseness",)), parse_methods(["gradient"])
    local(model, open_data(str(table)), methods, tmp_path, settings, limit=1)
    changed = ierf.load("bundled:resnet18-tiny")
    with torch.no_grad():
        changed.net.fc.bias[0] += 1e-3  # type: ignore[union-attr,operator,index]
    with pytest.raises(IerfError, match="model: "):
        local(changed, open_data(str(table)), methods, tmp_path, settings, limit=1)
    table.write_text(table.read_text().replace("30,", "29,"))
    with pytest.raises(IerfError, match="data: "):
        local(model, open_data(str(table)), methods, tmp_path, settings, limit=1)


def test_a_mask_is_seen_as_the_photograph_is() -> None:
    """Short side 40 to 20, then the centre 16 of 30 columns: column c of the view is column 14 + 2 c of the mask."""
    model = VisionModel(torch.nn.Flatten(), Preprocess(size=(16, 16), resize=20, interpolation="nearest"))
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[4:20, 14:30] = 255
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[:8, :8] = True
    assert torch.equal(seen_mask(model, Image.fromarray(mask)), expected)


def test_which_class_is_explained(model: VisionModel) -> None:
    image = Image.new("RGB", (64, 64), (200, 120, 40))
    with torch.no_grad():
        order = model(model.prepare(image))[0].argsort(descending=True).tolist()
    mask = Image.new("L", (64, 64), 255)
    labelled = case(model, Photo("p", image, order[90], {order[90]: mask}))
    found = case(model, Photo("p", image, None, {order[60]: mask, order[3]: mask, order[2]: mask}))
    assert labelled is not None
    assert found is not None
    assert (labelled.target, found.target) == (order[90], order[2])
    assert case(model, Photo("p", image, None, {order[5]: mask})) is None
    without = case(model, Photo("p", image, order[0]))
    assert without is not None
    assert without.mask is None


def test_methods_are_named_with_resolution_and_options() -> None:
    method = parse_method("integrated_gradients@input?steps=16&baseline=0.5")
    assert (method.name, method.resolution) == ("integrated_gradients", "input")
    assert method.options == {"steps": 16, "baseline": 0.5}
    assert parse_method("srd?head=raw").options == {"head": "raw"}
    assert [m.text for m in parse_methods(["ablation", "srd, gradcam"])] == [*GROUPS["ablation"], "gradcam"]
    assert len(GROUPS["paper"]) == 17
    with pytest.raises(UnknownNameError, match="gradcam"):
        parse_methods(["gradcm"])
    with pytest.raises(IerfError, match="name=value"):
        parse_method("srd?head")
    with pytest.raises(UnknownNameError, match="fidelity"):
        LocalSettings(("fidelty",))


def command(table: Path, out: Path) -> list[str]:
    chosen = ["--methods", "gradient,srd", "--metrics", "pointing,sparseness,fidelity", "--fidelity-runs", "60"]
    return ["evaluate", "local", "--data", str(table), *chosen, "--out", str(out)]


def test_a_killed_run_goes_on_to_the_same_json(tmp_path: Path) -> None:
    table = write_photographs(tmp_path / "photos", 8)
    assert CliRunner().invoke(main, command(table, tmp_path / "whole")).exit_code == 0
    journal, killed = tmp_path / "killed" / "local.jsonl", command(table, tmp_path / "killed")
    process = in_a_process(killed)
    end = time.monotonic() + 120
    while time.monotonic() < end and (not journal.exists() or journal.read_bytes().count(b"\n") < 3):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = journal.read_bytes()
    assert 3 <= before.count(b"\n") < 9
    assert not (tmp_path / "killed" / "local.json").exists()
    assert CliRunner().invoke(main, killed).exit_code == 0
    assert journal.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    whole, resumed = ((tmp_path / name / "local.json").read_text() for name in ("whole", "killed"))
    assert resumed == whole
    assert len(json.loads(whole)["images"]) == 8
