"""`ierf explain`: every bad input has its sentence and its status, and never a traceback."""

import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from ierf.attribution.targets import PFV
from ierf.cli import main
from ierf.cli.explain import _pfvs

QUICK = ["--method", "gradcam", "--resolution", "low", "--class", "tabby"]
"""One map without iERFs."""


def ierf(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def noise(*shape: int, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, dtype=kind)


@pytest.fixture
def cat(tmp_path: Path, chelsea: Image.Image) -> Path:
    path = tmp_path / "photos" / "cat.jpg"
    path.parent.mkdir()
    chelsea.save(path)
    return path


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with a photograph of every unusual but readable kind."""
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.fromarray(noise(80, 90)).save(folder / "grey.png")
    Image.fromarray(noise(80, 90, 4), "CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(noise(80, 90, kind=np.uint16)).save(folder / "sixteen.png")
    Image.fromarray(noise(80, 90, 4)).save(folder / "rgba.png")
    frames = [Image.fromarray(noise(80, 90, 3)), Image.new("RGB", (90, 80), "red")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1), "blue").save(folder / "pixel.png")
    Image.new("RGB", (20000, 10), "green").save(folder / "panorama.png")
    Image.fromarray(noise(70, 70, 3)).save(folder / "<b>x<.png")
    return folder


def test_a_photograph_becomes_a_report(cat: Path, tmp_path: Path) -> None:
    result = ierf("explain", cat, "--out", tmp_path / "out", "--class", "tabby", "--class", "34")
    assert result.exit_code == 0
    assert "tabby" in result.stdout
    report = Path(result.stdout.splitlines()[-1])
    assert report == tmp_path / "out" / "cat.html"
    html = report.read_text(encoding="utf-8")
    assert "Evidence for <em>tabby" in html
    assert "Evidence for <em>lion" in html
    assert f"{cat} --model bundled:resnet18-tiny --class 30 --class 34" in html
    assert len(list((tmp_path / "out" / "cat_pictures").glob("ierf-*.png"))) == 9


def test_a_layer_for_each_position() -> None:
    assert _pfvs(["layer3"], ["1,2", "3,4"]) == [PFV("layer3", (1, 2)), PFV("layer3", (3, 4))]
    assert _pfvs(["layer3", "layer4"], ["1,2", "3,4"]) == [PFV("layer3", (1, 2)), PFV("layer4", (3, 4))]
    assert _pfvs([], []) is None


def test_one_pfv(cat: Path, tmp_path: Path) -> None:
    where = ["--layer", "layer3", "--position", "4,6", "--resolution", "low"]
    result = ierf("explain", cat, *where, "--out", tmp_path / "out")
    assert result.exit_code == 0
    pictures = {path.name for path in (tmp_path / "out" / "cat_pictures").glob("ierf-*")}
    assert pictures == {"ierf-layer3-4-6.png"}
    assert "--layer layer3 --position 4,6" in (tmp_path / "out" / "cat.html").read_text(encoding="utf-8")


def test_odd_photographs_are_explained(odd: Path, tmp_path: Path) -> None:
    result = ierf("explain", odd, *QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "8 explained, 0 failed" in result.stdout
    assert result.stdout.splitlines()[-1] == str(tmp_path / "out" / "index.html")
    index = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    addresses = re.findall(r'href="([^"]+)"', index)
    assert len(addresses) == 8
    assert "<b>" not in index


def test_bad_files_are_named_and_the_good_one_goes_on(cat: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("not a photograph")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(cat.read_bytes()[:2000])
    empty = tmp_path / "empty.png"
    empty.touch()
    folder = tmp_path / "nothing"
    folder.mkdir()
    result = ierf("explain", text, cut, empty, folder, tmp_path / "gone.jpg", cat, *QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 5
    for name in ("text.jpg", "cut.jpg", "empty.png", "nothing", "gone.jpg"):
        assert sum(f"{name}'" in line for line in lines) == 1
    assert all(line.startswith("error: ") for line in lines)
    assert "1 explained, 5 failed" in result.stdout
    assert (tmp_path / "out" / "cat.html").exists()


def test_nothing_readable(tmp_path: Path) -> None:
    result = ierf("explain", tmp_path / "gone.jpg", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "0 explained, 1 failed" in result.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class", "tabbi"], "tabby"),
        (["--class", "100"], "no class 100"),
        (["--model", "bundled:resnet"], "resnet18-tiny"),
        (["--model", "nowhere:net"], "source of models"),
        (["--method", "sdr"], "srd"),
        (["--resolution", "hihg"], "no layer 'hihg'"),
        (["--bias", "nrom"], "norm"),
        (["--head", "raww"], "raw"),
        (["--method", "gradcam", "--bias", "drop"], "option of method 'gradcam'"),
        (["--layer", "layer33", "--position", "1,1"], "layer3"),
        (["--layer", "layer3", "--position", "8,0"], "outside 'layer3'"),
        (["--layer", "layer3", "--position", "1"], "row, column"),
        (["--layer", "layer3", "--position", "a,b"], "ROW,COLUMN"),
        (["--layer", "layer3"], "go together"),
        (["--layer", "layer3", "--layer", "layer4", *["--position", "1,1"] * 3], "one for each"),
        (["--position", "1,2"], "go together"),
        (["--device", "abacus"], "abacus"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_mistakes_in_usage_have_status_2_and_a_sentence(
    cat: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = ierf("explain", cat, *arguments, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_name_of_a_file_for_the_folder(cat: Path, tmp_path: Path) -> None:
    result = ierf("explain", cat, *QUICK, "--out", tmp_path / "report.html")
    assert result.exit_code == 2
    assert "--out is a folder" in " ".join(result.stderr.replace("│", " ").split())
    assert list(tmp_path.glob("report*")) == []


def test_no_photograph_at_all() -> None:
    assert ierf("explain").exit_code == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(cat: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    result = ierf("explain", cat, *QUICK, "--out", locked)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: cannot write")


def test_a_file_where_the_folder_should_be(cat: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    result = ierf("explain", cat, *QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "cannot write" in result.stderr


def test_a_full_disk_leaves_nothing_half_written(cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ierf.files.os.replace", full)
    result = ierf("explain", cat, *QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_an_interruption_keeps_what_is_done(odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = import_module("ierf.cli.explain")
    explain: Callable[..., object] = command.explain_photo
    calls: list[int] = []

    def interrupted(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return explain(*arguments, **options)

    monkeypatch.setattr(command, "explain_photo", interrupted)
    result = ierf("explain", odd, *QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    pages = sorted(path.name for path in (tmp_path / "out").glob("*.html"))
    assert len(pages) == 3
    assert "index.html" in pages


def test_a_bug_keeps_its_traceback(cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(import_module("ierf.cli.explain"), "explain_photo", broken)
    with pytest.raises(ZeroDivisionError):
        ierf("explain", cat, "--out", tmp_path / "out")
