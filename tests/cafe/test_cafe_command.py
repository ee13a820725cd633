"""`ierf cafe` and `ierf evaluate cafe` on photographs of noise and a bundled model."""

from pathlib import Path

import pytest
from PIL import Image
from support.transformers import photographs
from typer.testing import CliRunner

from ierf.cli import main
from ierf.concepts import SAE
from ierf.report import latents

RUN = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cafe")
    (folder / "photos").mkdir()
    for i, photo in enumerate(photographs(10)):
        photo.resize((64, 64)).save(folder / "photos" / f"{i}.png")
    sae = SAE("topk", 192, 24, 4)
    sae.about = {"layer": "blocks.2", "values": "pre-activation"}
    sae.save(folder / "saes" / "blocks.2")
    return folder


def call(folder: Path, *arguments: str) -> str:
    given = ["--model", "bundled:vit-tiny", "--sae", str(folder / "saes"), "--out", str(folder / "out")]
    result = RUN.invoke(main, [*arguments, *given])
    return result.output if result.exit_code == 0 else f"status {result.exit_code}: {result.output}"


def test_a_page_a_picture_and_the_curves(folder: Path) -> None:
    page = call(folder, "cafe", "--data", str(folder / "photos"), "--count", "2", "--pictures", "2")
    assert page.strip().endswith("latents.html")
    html = (folder / "out" / "latents.html").read_text()
    assert html.count('<article class="concept"') == 4
    for address in html.split('src="')[1:]:
        assert (folder / "out" / address.split('"')[0]).stat().st_size > 100
    shown = [card.split('"')[0] for card in html.split('id="blocks.2/patch/')[1:]]
    options = ["--data", str(folder / "photos"), "--latent", shown[0], "--latent", shown[1], "--pictures", "3"]
    picture = call(folder, "cafe", *options).strip()
    assert picture.endswith(f"blocks.2-patch-{shown[0]}-{shown[1]}.png")
    with Image.open(picture) as sheet:
        assert sheet.width > 3 * 160
    options = ["--index", str(folder / "out" / "index"), "--latents", "1", "--images", "1", "--points", "2"]
    tables = call(folder, "evaluate", "cafe", *options, "--methods", "attnlrp,activation")
    assert "insertion, patch tokens, 1 latents" in tables
    assert "blocks.2 class" in tables


def test_mistakes_are_one_line(folder: Path) -> None:
    data = ["--data", str(folder / "photos")]
    assert "latents are numbered from 0 to 23" in call(folder, "cafe", *data, "--latent", "24")
    assert "there is no autoencoder of 'blocks.9'" in call(folder, "cafe", *data, "--layer", "blocks.9")
    assert "no index of latents" in call(folder, "evaluate", "cafe", "--index", str(folder / "photos"))
    assert "there is no method 'atnlrp'" in call(folder, "cafe", *data, "--method", "atnlrp")
    index = call(folder, "cafe", *data, "--latent", "0") and str(folder / "out" / "index")
    named = call(folder, "evaluate", "cafe", "--index", index, "--layer", "blocks.9")
    assert "there is no layer with an autoencoder 'blocks.9'" in named


def test_photographs_that_cannot_be_read_or_are_too_few_are_one_line(folder: Path) -> None:
    (folder / "text").mkdir()
    (folder / "text" / "a.jpg").write_text("no photograph")
    arguments = ["cafe", "--model", "bundled:vit-tiny", "--sae", str(folder / "saes"), "--out", str(folder / "none")]
    unreadable = RUN.invoke(main, [*arguments, "--data", str(folder / "text")])
    assert "none of the 1 photographs" in " ".join(unreadable.output.split())
    assert not (folder / "none" / "index" / "index.json").exists()
    few = RUN.invoke(main, [*arguments, "--data", str(folder / "photos"), "--limit", "3"])
    assert "no latent is active in 8 of the 3 photographs" in " ".join(few.output.split())
    assert unreadable.exit_code == few.exit_code == 2


def test_a_latent_without_evidence_is_described_in_words() -> None:
    """A class token's latent may be active where no patch is: there is no peak, so no distance from it."""
    nothing = float("nan")
    card = latents.LatentCard("a", "class", 3, [], [], 0.5, nothing, 0.25, nothing, nothing, [])
    shown = latents._item(card, [])
    assert "no patch is active or has positive evidence" in shown
    assert "nan " not in shown
    assert "nan" not in latents._title(card)


def test_the_former_names_of_precisions(folder: Path) -> None:
    options = ["--data", str(folder / "photos"), "--latent", "0"]
    assert "warning: --bfloat16 is called --dtype bfloat16 now" in call(folder, "cafe", *options, "--bfloat16")
    assert "warning: --dtype bf16 is called --dtype bfloat16 now" in call(folder, "cafe", *options, "--dtype", "bf16")
    assert "there is no choice for --dtype 'float16'" in call(folder, "cafe", *options, "--dtype", "float16")
