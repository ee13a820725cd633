"""`ierf demo`, `check`, `models` and what all commands share."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner, Result

from ierf import __version__
from ierf.cli import main


def ierf(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_version_and_help() -> None:
    assert ierf("--version").stdout == f"ierf {__version__}\n"
    shown = ierf("--help").stdout
    assert all(command in shown for command in ("demo", "explain", "check", "models"))
    for command in ("demo", "explain", "check", "models"):
        assert f"ierf {command}" in ierf(command, "--help").stdout


def test_unknown_commands_are_usage_errors() -> None:
    assert ierf("explian").exit_code == 2


def test_the_demo_ends_with_the_path_of_its_report(tmp_path: Path) -> None:
    pytest.importorskip("skimage.data")
    result = ierf("demo", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "tabby" in result.stdout
    report = tmp_path / "out" / "report.html"
    assert result.stdout.splitlines()[-1] == str(report)
    assert "Evidence for <em>tabby" in report.read_text(encoding="utf-8")
    assert Image.open(tmp_path / "out" / "chelsea.png").size == (451, 300)


def test_the_demo_knows_its_photographs(tmp_path: Path) -> None:
    result = ierf("demo", "--photo", "chelsey", "--out", tmp_path)
    assert result.exit_code == 2
    assert "chelsea" in result.stderr


def test_the_demo_without_scikit_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "skimage"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing(), *sys.meta_path])
    result = ierf("demo", "--out", tmp_path)
    assert result.exit_code == 2
    assert "pip install 'ierf[demo]'" in result.stderr


class _Missing:
    """An import system without scikit-image."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "skimage":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_check_says_conserved(tmp_path: Path, chelsea: Image.Image) -> None:
    chelsea.save(tmp_path / "cat.png")
    for arguments in ([], ["--photo", tmp_path / "cat.png"], ["--layer", "layer3.1"]):
        result = ierf("check", *arguments)
        assert result.exit_code == 0, result.stdout
        assert result.stdout.splitlines()[-1].startswith("conserved: ")
    assert "layer2.1" in result.stdout


def test_check_says_what_leaks() -> None:
    first, second = ierf("check", "--bias", "drop"), ierf("check", "--bias", "drop")
    assert first.exit_code == 1
    assert first.stdout.splitlines()[-1].startswith("not conserved: ")
    assert first.stdout == second.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "layer9"], "layer4"),
        (["--photo", "gone.jpg"], "gone.jpg"),
        (["--model", "bundled:x"], "resnet18-tiny"),
        (["--bias", "nrom"], "norm"),
        (["--unknown", "shrug"], "gradient"),
    ],
)
def test_check_names_mistakes(arguments: list[str], message: str) -> None:
    result = ierf("check", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_models_lists_sources() -> None:
    everything = ierf("models").stdout
    assert all(source in everything for source in ("bundled", "timm", "torchvision", "hf", "file"))
    assert "bundled:resnet18-tiny" in ierf("models", "18-tiny").stdout.split()
    assert set(ierf("models", "resnet50.a1", "--source", "timm").stdout.split()) >= {"timm:resnet50.a1_in1k"}
    assert "bundled" not in ierf("models", "--source", "file").stdout
    for arguments in (["--source", "tim"], ["nosuchmodel"]):
        result = ierf("models", *arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")


def test_check_follows_the_method_asked_for() -> None:
    usual, held = (
        ierf("check", "--model", "bundled:vit-tiny"),
        ierf("check", "--model", "bundled:vit-tiny", "--method", "cp_lrp"),
    )
    assert usual.exit_code == held.exit_code == 1
    assert "scaled_dot_product_attention" in usual.stdout
    assert "scaled_dot_product_attention" not in held.stdout
    refused = ierf("check", "--method", "gradient")
    assert refused.exit_code == 2
    assert "gradient" in refused.stderr


def _commands(command: Any, *path: str) -> Iterator[tuple[str, ...]]:
    inner = getattr(command, "commands", {})
    if not inner:
        yield path
    for name, one in inner.items():
        yield from _commands(one, *path, name)


def test_options_have_one_name_in_all_commands() -> None:
    commands = list(_commands(get_command(main)))
    assert len(commands) > 30
    for command in commands:
        shown = ierf(*command, "--help")
        assert shown.exit_code == 0
        for former in ("--layers", "--classes", "--bfloat16", "bf16", "at_once"):
            assert former not in shown.stdout


def test_former_names_of_options_are_taken_with_a_warning(tmp_path: Path) -> None:
    result = ierf("graph", "cat.jpg", "--bank", tmp_path, "--layers=layer3", "--classes", "tabby")
    assert result.stderr.splitlines()[:2] == [
        "warning: --layers is called --layer now",
        "warning: --classes is called --class now",
    ]
    assert "no concept bank" in result.stderr
    assert "warning" not in ierf("graph", "cat.jpg", "--bank", tmp_path, "-l", "layer3", "--class", "tabby").stderr


def test_every_command_that_computes_says_where() -> None:
    for command in _commands(get_command(main)):
        shown = ierf(*command, "--help").stdout
        assert ("--device" in shown) == (command not in {("models",), ("store", "info"), ("store", "verify")}), command


def test_a_device_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    for command in (("evaluate", "extractors", "--store", tmp_path), ("concepts", "compare", tmp_path, tmp_path)):
        result = ierf(*command, "--device", "abacus")
        assert result.exit_code == 2
        assert result.stderr.startswith("error: the device 'abacus' cannot be used here: ")
        assert result.stderr.count("\n") == 1
