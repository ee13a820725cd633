"""`ierf evaluate`: tables from photographs, from the command line."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file
from support.runs import write_photographs
from typer.testing import CliRunner, Result

from ierf.cli import main
from ierf.experiments.networks import CifarResNet


def ierf(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "photos", 3)


def evaluate(command: str, table: Path, *arguments: str) -> Result:
    return ierf("evaluate", command, "--data", table, "--out", table.parent / "out", *arguments)


def test_local_writes_both_tables(table: Path) -> None:
    pytest.importorskip("matplotlib")
    result = evaluate("local", table, "--methods", "ablation,gradcam", "--metrics", "pointing,sparseness")
    assert result.exit_code == 0, result.stderr
    written = [Path(line).name for line in result.stdout.splitlines() if line.startswith(str(table.parent))]
    names = ("local", "ablation")
    assert written == [f"{name}.{suffix}" for name in names for suffix in ("csv", "md", "json", "png")]
    whole, part = (json.loads((table.parent / "out" / f"{name}.json").read_text()) for name in names)
    assert list(whole["summary"]) == ["srd?head=raw", "srd?head=mean", "srd", "gradcam"]
    assert list(part["summary"]) == ["srd?head=raw", "srd?head=mean", "srd"]
    assert all(row in result.stdout for row in whole["summary"])
    assert "sparseness ↑" in result.stdout


def test_other_settings_are_refused(table: Path) -> None:
    arguments = ("--methods", "gradient", "--metrics", "sparseness", "--limit", "1")
    assert evaluate("local", table, *arguments).exit_code == 0
    refused = evaluate("local", table, *arguments, "--seed", "1")
    assert refused.exit_code == 2
    assert "seed: 0 there, 1 here" in refused.stderr


def test_sanity_and_its_curve(table: Path) -> None:
    pytest.importorskip("skimage")
    result = evaluate("sanity", table, "--methods", "random,gradient", "--depth", "1", "--limit", "1")
    assert result.exit_code == 0, result.stderr
    found = json.loads((table.parent / "out" / "spearman.json").read_text())
    assert list(found["columns"]) == ["fc", "layer4", "layer3", "layer2", "layer1", "bn1", "conv1"]
    assert found["summary"]["random"]["conv1"]["mean"] == pytest.approx(1)
    assert found["summary"]["gradient"]["conv1"]["mean"] < 0.6


def test_manipulation_and_its_pictures(table: Path) -> None:
    pytest.importorskip("skimage")
    result = evaluate("manipulation", table, "--methods", "srd,gradient", "--limit", "1", "--steps", "2")
    assert result.exit_code == 0, result.stderr
    found = json.loads((table.parent / "out" / "manipulation.json").read_text())
    assert list(found["summary"]) == ["srd", "gradient"]
    assert (table.parent / "out" / "pairs" / "000.png").exists()
    assert evaluate("manipulation", table, "--methods", "gradcam", "--limit", "1").exit_code == 2


def test_activations(table: Path) -> None:
    state = {name: tensor for name, tensor in CifarResNet("gelu").state_dict().items() if tensor.is_floating_point()}
    save_file(state, table.parent / "gelu.safetensors")
    table.write_text(table.read_text().replace(",30,", ",3,").replace(",31,", ",1,").replace(",32,", ",2,"))
    checkpoints = ("--checkpoints", str(table.parent))
    result = evaluate("activations", table, *checkpoints, "--methods", "srd,gradient", "--fidelity-runs", "10")
    assert result.exit_code == 0, result.stderr
    assert "gelu ↑" in result.stdout
    assert evaluate("activations", table, "--checkpoints", str(table.parent / "none")).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "gradcm"), "gradcam"),
        (("--metrics", "fidelty"), "fidelity"),
        (("--methods", "srd?hed=raw"), "head"),
        (("--methods", "srd@layer9"), "layer4"),
        (("--preset", "papr"), "paper"),
    ],
)
def test_mistakes_are_named_and_leave_no_run_behind(table: Path, arguments: tuple[str, str], message: str) -> None:
    result = evaluate("local", table, "--limit", "1", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (table.parent / "out" / "local.jsonl").exists()
