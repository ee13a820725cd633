"""`ierf explain` and `ierf demo`: reports for photographs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from rich.progress import Progress

from ierf.attribution import METHODS
from ierf.attribution.targets import PFV
from ierf.cli.app import (
    DEFAULT_MODEL,
    Bias,
    Device,
    Head,
    Model,
    Out,
    Unknown,
    complain,
    err,
    given,
    parse_position,
    say,
    say_path,
)
from ierf.errors import IerfError, UnknownNameError
from ierf.extras import extra
from ierf.files import write
from ierf.model import VisionModel, find_images, load, read_image
from ierf.report import Card, Explanation, best_classes, card, distinct_stems, ledger_sentence, save_index
from ierf.report import explain as explain_photo


def explain(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO…", help="Photographs, or folders of them.")],
    model: Model = DEFAULT_MODEL,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class", "-c", metavar="NAME|INDEX", help="A class to explain; default: the three most probable."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"One of {', '.join(METHODS)}; default: attnlrp for transformers, else srd."),
    ] = None,
    resolution: Annotated[
        list[str] | None, typer.Option(metavar="low|high|input|LAYER", help="A map to show; default: the first three.")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", metavar="NAME", help="With --position: the layer of a PFV, one or one for each."),
    ] = None,
    position: Annotated[
        list[str] | None, typer.Option(metavar="ROW,COLUMN", help="With --layer: the PFV whose iERF to show.")
    ] = None,
    bias: Bias = None,
    head: Head = None,
    unknown: Unknown = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="LAYER", help="The encoder’s last layer; found if left out.")
    ] = None,
    device: Device = "cpu",
    out: Out = Path("ierf-report"),
) -> None:
    """Write a report for each photograph: where the evidence for its classes is, and the features behind it.

    A photograph that cannot be read is named and the others go on; the exit status is then 1.

    Examples:

        ierf explain cat.jpg

        ierf explain photos/ --model timm:resnet50.a1_in1k --class tabby

        ierf explain cat.jpg --layer layer3 --position 4,6
    """
    request = {
        "classes": classes or None,
        "method": method,
        "resolutions": resolution or None,
        "pfvs": _pfvs(layer or [], position or []),
        **given(bias=bias, head=head, unknown=unknown, encoder=encoder),
    }
    files, failed = _find(photos)
    cards = _report_all(load(model, device), files, out, request) if files else []
    failed += len(files) - len(cards)
    if failed or len(cards) > 1:
        say(f"{len(cards)} explained, {failed} failed")
    if cards:
        say_path(cards[0].report if len(files) == 1 else out / "index.html")
    raise typer.Exit(1 if failed else 0)


def _pfvs(layers: Sequence[str], positions: Sequence[str]) -> list[PFV] | None:
    if bool(layers) != bool(positions) or len(layers) not in (0, 1, len(positions)):
        raise typer.BadParameter(
            "--layer and --position go together, as in --layer layer3 --position 4,6: one layer, or one for each"
        )
    of_each = layers if len(layers) == len(positions) else [*layers] * len(positions)
    return [PFV(one, parse_position(text)) for one, text in zip(of_each, positions, strict=True)] or None


def _find(photos: Sequence[str]) -> tuple[list[Path], int]:
    """The files that the arguments stand for, and how many arguments stand for nothing; those are complained of."""
    files: list[Path] = []
    failed = 0
    for photo in photos:
        try:
            files += find_images([photo])
        except IerfError as error:
            complain(error)
            failed += 1
    return files, failed


def _report_all(model: VisionModel, files: Sequence[Path], out: Path, request: Mapping[str, Any]) -> list[Card]:
    """A report for every file that can be read, and an index where there are many, also if interrupted."""
    cards: list[Card] = []
    named = list(zip(files, distinct_stems(files), strict=True))
    try:
        with Progress(console=err(), transient=True, disable=len(files) == 1 or not err().is_terminal) as progress:
            for file, stem in progress.track(named, description="explaining"):
                explanation = _explained(model, file, request)
                if explanation is not None:
                    cards.append(card(explanation, explanation.save(out / f"{stem}.html")))
                    say(best_classes(explanation))
    finally:
        if cards and len(files) > 1:
            save_index(cards, out / "index.html")
    return cards


def _explained(model: VisionModel, file: Path, request: Mapping[str, Any]) -> Explanation | None:
    """The explanation, or None for a file that cannot be read; anything else that is wrong ends the run."""
    try:
        picture = read_image(file)
    except IerfError as error:
        complain(error)
        return None
    return replace(explain_photo(model, picture, **request), name=file.name, source=file)


PHOTOS = ("chelsea", "coffee", "rocket")


def demo(
    out: Out = Path("ierf-report"),
    photo: Annotated[str, typer.Option(metavar="|".join(PHOTOS), help="One of scikit-image’s photographs.")] = PHOTOS[
        0
    ],
    device: Device = "cpu",
) -> None:
    """Explain a photograph that comes with scikit-image by the model that comes with ierf, and write a report.

    Examples:

        ierf demo

        ierf demo --photo coffee --out coffee
    """
    explanation = explain_photo(load(DEFAULT_MODEL, device), _unpacked(photo, out))
    report = explanation.save(out / "report.html")
    say(best_classes(explanation))
    if explanation.ledger is not None:
        say(ledger_sentence(explanation.ledger))
    say("The report, with its pictures beside it:")
    say_path(report)


def _unpacked(name: str, folder: Path) -> Path:
    """The photograph as a file that anybody can explain again."""
    if name not in PHOTOS:
        raise UnknownNameError("demo photograph", name, PHOTOS)
    pixels = getattr(extra("skimage.data", "demo"), name)()
    buffer, path = BytesIO(), folder / f"{name}.png"
    Image.fromarray(pixels).save(buffer, "PNG")
    write(path, buffer.getvalue())
    return path
