"""`ierf concepts`."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from ierf.cli import main


def ierf(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight PFVs of each of six pictures at two layers of the bundled network."""
    folder = tmp_path_factory.mktemp("concepts")
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(6):
        pixels = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(folder / "photos" / f"{i}.png")
    layers = ["-l", "layer2.1,layer3.1", "--per-image", "8"]
    assert ierf("collect", "--data", folder / "photos", *layers, "--out", folder / "store").exit_code == 0
    return folder / "store"


def test_fit_show_compare(store: Path, tmp_path: Path) -> None:
    options = ["--store", store, "-k", "8", "--l0", "0.75"]
    fitted = ierf("concepts", "fit", *options, "--out", tmp_path / "a", "--pictures")
    assert fitted.exit_code == 0, fitted.stderr
    assert fitted.stdout.splitlines()[-1] == str(tmp_path / "a")
    rows = [line.split() for line in fitted.stdout.splitlines() if line.strip().startswith("layer")][1:]
    assert [row[:4] for row in rows] == [[name, "48", "8", "batch-norm"] for name in ("layer2.1", "layer3.1")]
    assert all(float(row[6]) == pytest.approx(0.75, abs=0.03) for row in rows)
    shown = ierf("concepts", "show", tmp_path / "a", "--layer", "layer3.1", "--limit", "3", "-o", tmp_path / "p.html")
    assert shown.stdout == f"{tmp_path}/p.html\n"
    page = (tmp_path / "p.html").read_text()
    assert len(re.findall("<article", page)) == 3
    assert len(list((tmp_path / "p_pictures").iterdir())) == 30
    assert ierf("concepts", "fit", *options, "--out", tmp_path / "b", "--seed", "1").exit_code == 0

    def cosines(one: str, other: str) -> list[list[str]]:
        result = ierf("concepts", "compare", tmp_path / one, tmp_path / other)
        return [line.split() for line in result.stdout.splitlines() if line.strip().startswith("layer")][1:]

    assert all(row[3:6] == ["1.000", "1.000", "100.0%"] for row in cosines("a", "a"))
    for row in cosines("a", "b"):
        assert float(row[6]) < float(row[3]) < 1


def test_too_few_pfvs_is_a_warning_of_one_line(store: Path, tmp_path: Path) -> None:
    result = ierf("concepts", "fit", "--store", store, "--layer", "layer3.1", "--l0", "0.75", "--out", tmp_path / "a")
    assert result.exit_code == 0
    warning = next(line for line in result.stderr.splitlines() if "too few" in line)
    assert warning.startswith("warning: layer3.1: 48 PFVs are too few for 1024 concepts")


def test_mistakes_are_one_line(store: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for arguments in (
        ["fit", "--store", tmp_path, "--out", tmp_path / "a"],
        ["fit", "--store", store, "--out", tmp_path / "full"],
        ["fit", "--store", store, "--out", tmp_path / "a", "--layer", "layer9"],
        ["fit", "--store", store, "--out", tmp_path / "a", "--extractor", "kmeans", "-k", "8"],
        ["fit", "--store", store, "--out", tmp_path / "a", "-k", "1000"],
        ["show", tmp_path],
        ["show", tmp_path, "--sort", "name"],
        ["compare", tmp_path, tmp_path / "a"],
    ):
        result = ierf("concepts", *arguments)
        assert result.exit_code == 2, arguments
        assert result.stderr.startswith("error: "), arguments
        assert result.stderr.count("\n") == 1, result.stderr
