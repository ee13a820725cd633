"""`ierf graph` and `ierf attack`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import ierf
from ierf.cli import main
from ierf.graph import ConceptGraph


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs and a bank of few concepts of two layers of the bundled network."""
    path = tmp_path_factory.mktemp("graph")
    random = np.random.default_rng(0)
    (path / "photos").mkdir()
    for i in range(6):
        pixels = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(path / "photos" / f"{i}.png")
    model = ierf.load("bundled:resnet18-tiny")
    layers = ["layer4.0", "layer4.1"]
    store = ierf.PFVStore.collect(model, path / "photos", layers, path / "store", per_image=4)
    ierf.ConceptBank.fit(store, n_concepts=6, model=model, path=path / "bank", l0_ratio=0.5)
    return path


def test_a_graph_from_the_command_line(folder: Path) -> None:
    out = folder / "graph.json"
    result = run("graph", folder / "photos" / "0.png", "--bank", folder / "bank", "-c", "tabby", "-c", "7", "-o", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(out)
    made = ConceptGraph.load(out)
    assert made.classes[0].label.startswith("tabby")
    assert made.classes[1].index == 7
    assert made.layers == ("layer4.0", "layer4.1")
    assert made.photo == "0.png"
    assert all(account.completeness_error < 0.01 for account in made.accounts)


def test_the_mean_of_a_folder_is_drawn(folder: Path) -> None:
    result = run("graph", folder / "photos", "--bank", folder / "bank", "-l", "layer4.1", "-o", folder / "mean.svg")
    assert result.exit_code == 0, result.stderr
    assert "6 photographs" in (folder / "mean.svg").read_text()


def test_a_diagnosis_names_concepts_and_checks_them(folder: Path) -> None:
    arguments = ["--bank", folder / "bank", "--true", 3, "--predicted", 7, "-o", folder / "why.html"]
    result = run("graph", "--diagnose", folder / "photos" / "1.png", *arguments)
    assert result.exit_code == 0, result.stderr
    assert "in logits" in result.stdout
    assert "without it the margin changes by" in result.stdout
    assert '"start": "mode=difference&edges=0.8"' in (folder / "why.html").read_text(encoding="utf-8")


def test_an_attacked_photograph_is_compared_with_the_clean_one(folder: Path) -> None:
    clean, attacked = folder / "photos" / "2.png", folder / "attacked.png"
    result = run("attack", "pgd", clean, "--target", 11, "--epsilon", 12, "--out", attacked)
    assert result.exit_code == 0, result.stdout
    model = ierf.load("bundled:resnet18-tiny")
    with torch.no_grad():
        assert int(model(model.prepare(attacked))[0].argmax()) == 11
    assert model.label(11) in result.stdout.splitlines()[1]
    moved = np.asarray(Image.open(attacked)).astype(int) - np.asarray(Image.open(clean)).astype(int)
    assert 0 < np.abs(moved).max() <= 12
    options = ["--bank", folder / "bank", "--layer", "layer4.1"]
    compared = run("graph", "--compare", clean, attacked, *options, "-o", folder / "two.html")
    assert compared.exit_code == 0, compared.stderr
    assert any(word in compared.stdout for word in ("appeared", "grew", "vanished", "shrank"))
    assert (folder / "two.html").read_text(encoding="utf-8").count('"format": "ierf-concept-graph"') == 2
    same = run("graph", "--compare", clean, clean, *options, "-o", folder / "same.html")
    assert same.stdout.splitlines() == [str(folder / "same.html")]


def test_mistakes_are_explained(folder: Path) -> None:
    photo, bank = folder / "photos" / "0.png", folder / "bank"
    for arguments, message in (
        ([photo, "--bank", folder], "no concept bank"),
        (["--compare", photo, "--bank", bank], "two photographs"),
        (["--diagnose", photo, "--bank", bank], "--true"),
        (["--diagnose", "--compare", photo, "--bank", bank], "choose one"),
        ([photo, "--bank", bank, "--true", "tabby"], "belong to --diagnose"),
        (["--diagnose", photo, "--bank", bank, "--true", 3, "-c", 4], "leave --class out"),
        (["--diagnose", photo, "--bank", bank, "--true", 3, "--predicted", 3], "both are tailed frog"),
        ([photo, "--bank", bank, "-o", folder / "graph.pdf"], ".json or .html or .svg"),
        (["--compare", photo, photo, "--bank", bank, "-o", folder / "two.svg"], "written as .html"),
        ([photo, "--bank", bank, "-l", "layer4.1,layer4.0"], "from the pixels on"),
        ([photo, "--bank", bank, "--keep", 1.5], "--keep"),
        ([photo, "--bank", bank, "-c", "tabbi"], "tabby"),
        ([photo, "--bank", bank, "-m", "bundled:vit-tiny"], "another model"),
    ):
        result = run("graph", *arguments)
        assert result.exit_code == 2, arguments
        assert message in result.stderr
    assert run("attack", "fgsm", photo, "--epsilon", 0.2).exit_code == 2
    assert "saved as PNG" in run("attack", "fgsm", photo, "-o", folder / "a.jpg").stderr
    assert run("attack", "fgsm", photo, "-t", 5, "-e", 1, "-o", folder / "no.png").exit_code == 1
