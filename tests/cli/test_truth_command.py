"""`ierf evaluate truth` from the command line."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ierf
from ierf.cli import main
from ierf.experiments import Results
from ierf.model import VisionModel

evaluate = importlib.import_module("ierf.cli.evaluate")


def test_truth_writes_its_tables(tmp_path: Path) -> None:
    arguments = ["--levels", "local,cue", "--methods", "gradient,random", "--limit", "3", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, ["evaluate", "truth", *arguments])
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "truth-local.json").read_text())
    assert list(found["summary"]) == ["removal from the picture", "gradient", "random"]
    cue = json.loads((tmp_path / "truth-cue.json").read_text())
    truth = cue["summary"]["removal from the picture"]
    assert truth["tint share, clean"]["mean"] < 0.3 < 0.6 < truth["tint share, tinted"]["mean"]


def not_json(name: str) -> None:
    pytest.fail(f"{name} is not JSON")


def test_several_networks_give_intervals_over_networks(tmp_path: Path) -> None:
    arguments = ["--levels", "local", "--methods", "gradient", "--limit", "3", "--also", "bundled:world-cnn-cue"]
    result = CliRunner().invoke(main, ["evaluate", "truth", *arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    one, other, both = (
        json.loads((tmp_path / f"truth-{name}.json").read_text(), parse_constant=not_json)
        for name in ("local", "local-network-2", "local-networks")
    )
    means = [found["summary"]["gradient"]["on deciding parts"]["mean"] for found in (one, other)]
    of_both = [values["gradient"]["on deciding parts"] for values in both["networks"].values()]
    assert of_both == pytest.approx(means)
    assert list(both["networks"]) == ["bundled:world-cnn", "bundled:world-cnn-cue"]
    assert both["summary"]["gradient"]["on deciding parts"]["mean"] == pytest.approx(sum(means) / 2)


def test_levels_go_over_the_layers_that_the_network_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def empty(name: str) -> Callable[..., object]:
        def run(model: VisionModel, methods: list[str], *layers: object, **_: object) -> object:
            asked.append((name, *(layer for layer in layers if isinstance(layer, str))))
            results = Results("", {"removal": "higher"}, {"scene-1": {methods[0]: {"removal": 1.0}}})
            return {"part": results} if name == "latents" else results

        return run

    for name in ("latents", "edges", "between"):
        monkeypatch.setattr(evaluate, f"run_{name}", empty(name))
    arguments = ["-m", "bundled:world-vit", "--levels", "latents,edges", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, ["evaluate", "truth", *arguments])
    assert result.exit_code == 0, result.stderr
    blocks = ["blocks.0", "blocks.1", "blocks.2"]
    assert asked == [
        *(("latents", block) for block in blocks),
        *(("edges", block) for block in blocks),
        ("between", "blocks.0", "blocks.1"),
        ("between", "blocks.1", "blocks.2"),
    ]
    assert (tmp_path / "truth-latents-blocks.0-part.csv").exists()
    assert (tmp_path / "truth-edges-blocks.1-blocks.2.csv").exists()


def test_other_networks_are_for_local_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(spec: str, device: str) -> VisionModel:
        loaded.append(spec)
        return ierf.load(spec, device)

    results = Results("", {"tint share": ""}, {"scene-1": {"random": {"tint share": 1.0}}})
    monkeypatch.setattr(evaluate, "load", load)
    monkeypatch.setattr(evaluate, "run_cue", lambda *_, **__: results)
    arguments = ["--levels", "cue", "--methods", "random", "--also", "bundled:world-vit", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, ["evaluate", "truth", *arguments])
    assert result.exit_code == 0, result.stderr
    assert loaded == ["bundled:world-cnn", "bundled:world-cnn-cue"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [
                "--levels",
                "local",
                "--methods",
                "random",
                "--limit",
                "1",
                "--also",
                "bundled:world-vit,bundled:world-cnn",
            ],
            "name 'bundled:world-cnn' more than once",
        ),
        (
            [
                "--levels",
                "local",
                "--methods",
                "random",
                "--limit",
                "1",
                "--also",
                "bundled:world-vit,bundled:world-vit",
            ],
            "name 'bundled:world-vit' more than once",
        ),
        (["--levels", "locale"], "did you mean local"),
        (["--model", "bundled:resnet18-tiny", "--levels", "local"], "does not tell the classes of ierf.world"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["evaluate", "truth", *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
