"""`ierf collect` and `ierf store`."""

import os
import signal
import subprocess
import sys
import time
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


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six pictures in two folders, one of which is none."""
    random = np.random.default_rng(0)
    for i in range(6):
        path = tmp_path / "photos" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos" / "class1" / "3.png").write_bytes(b"")
    return tmp_path / "photos"


def test_collect_and_look(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "s"
    result = ierf("collect", "--data", photos, "--layer", "layer2.1,layer3", "-l", "layer4", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "5 images, 1 skipped" in result.stdout
    assert result.stdout.splitlines()[-2:] == ["the store is complete", str(out)]
    assert result.stderr == f"error: cannot read the image '{photos}/class1/3.png': the file is empty; skipped\n"
    shown = ierf("store", "info", out).stdout
    for words in ("bundled:resnet18-tiny", "srd", "class1/3.png", "layer2.1", "16 × 16", "pre-activation", "64 × 64"):
        assert words in shown
    assert ierf("store", "verify", out).stdout == "whole\n"
    sheet = ierf("store", "show", out, "--count", "3", "--layer", "layer3", "--out", tmp_path / "sheet.png")
    assert sheet.stdout == f"{tmp_path}/sheet.png\n"
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert picture.shape[1] == 3 * 128 + 8
    assert picture.std() > 10
    other = ierf("store", "show", out, "--count", "3", "--layer", "layer3", "-o", tmp_path / "2.png", "--seed", "5")
    assert other.exit_code == 0
    assert not np.array_equal(np.asarray(Image.open(tmp_path / "2.png")), picture)


def test_tokens_in_front_of_patches(tmp_path: Path, photos: Path) -> None:
    options = ["--data", photos, "--out", tmp_path / "s", "--limit", "2", "--prefix-tokens", "--layer"]
    assert ierf("collect", "--model", "bundled:vit-tiny", *options, "blocks.1").exit_code == 0
    shown = ierf("store", "info", tmp_path / "s").stdout
    assert "1 per image and layer and the tokens in front of the patches" in shown
    assert shown.split("blocks.1")[1].split()[0] == "4"
    refused = ierf("collect", *options[:2], "--out", tmp_path / "t", *options[6:], "layer3")
    assert refused.exit_code == 2
    assert "none of these layers has tokens in front of its patches" in refused.stderr


def test_damage_and_mistakes(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "s"
    first = ierf("collect", "--data", photos, "-l", "layer4", "--out", out, "--no-ierf", "--sampling", "uniform")
    assert first.exit_code == 0
    assert ierf("store", "show", out, "-o", tmp_path / "x.png").exit_code == 2
    assert ierf("store", "show", out, "-o", tmp_path / "x.png", "-m", "bundled:resnet18-tiny").exit_code == 0
    again = ierf("collect", "--data", photos, "-l", "layer4", "--out", out)
    assert again.exit_code == 2
    assert "sampling.kind is uniform there, relevance here" in again.stderr
    for arguments in (
        ["--layer", "layer9"],
        ["--layer", "layer4", "--shard", "2/2"],
        ["-l", "layer4", "--dtype", "f8"],
    ):
        assert ierf("collect", "--data", photos, "--out", tmp_path / "t", *arguments).exit_code == 2
    assert ierf("store", "info", tmp_path).exit_code == 2
    chunk = out / "layers/layer4/pfvs/c/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    broken = ierf("store", "verify", out)
    assert broken.exit_code == 1
    assert "layers/layer4/pfvs/c/0/0 was changed" in broken.stdout


def test_shards_say_what_is_left(tmp_path: Path, photos: Path) -> None:
    options = ["--data", photos, "-l", "layer4", "--out", tmp_path / "s", "--block", "2", "--no-ierf"]
    assert "blocks left to other shards: 1" in ierf("collect", *options, "--shard", "0/2").stdout
    assert "the store is complete" in ierf("collect", *options, "--shard", "1/2").stdout


def test_a_killed_command_goes_on(tmp_path: Path, photos: Path) -> None:
    options = ["--data", str(photos), "-l", "layer3", "--block", "1", "--batch", "1"]
    assert ierf("collect", *options, "--out", tmp_path / "whole").exit_code == 0
    command = [sys.executable, "-c", "from ierf.cli import main; main()", "collect", *options]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "killed")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not list(tmp_path.glob("killed/collection/blocks/*.json")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ierf("collect", *options, "--out", tmp_path / "killed").exit_code == 0
    one, other = (
        {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "whole", tmp_path / "killed")
    )
    assert one == other
