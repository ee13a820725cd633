"""`ierf evaluate truth` from the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ierf.cli import main


def test_truth_writes_its_tables(tmp_path: Path) -> None:
    arguments = ["--levels", "local,cue", "--methods", "gradient,random", "--limit", "3", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, ["evaluate", "truth", *arguments])
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "truth-local.json").read_text())
    assert list(found["summary"]) == ["gradient", "random"]
    cue = json.loads((tmp_path / "truth-cue.json").read_text())
    truth = cue["summary"]["removal from the picture"]
    assert truth["tint share, clean"]["mean"] < 0.3 < 0.6 < truth["tint share, tinted"]["mean"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--levels", "locale"], "did you mean local"),
        (["--model", "bundled:resnet18-tiny", "--levels", "local"], "does not tell the classes of ierf.world"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["evaluate", "truth", *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
