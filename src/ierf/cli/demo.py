"""`ierf demo`: a first report, without a photograph, a model or a network at hand."""

from io import BytesIO
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from ierf.cli.console import say, say_path
from ierf.cli.options import DEFAULT_MODEL, Out
from ierf.errors import UnknownNameError
from ierf.files import write
from ierf.model import load
from ierf.model.loading.extras import extra
from ierf.report import explain
from ierf.report.text import best_classes, ledger_sentence

PHOTOS = ("chelsea", "coffee", "rocket")


def demo(
    out: Out = Path("ierf-report"),
    photo: Annotated[str, typer.Option(metavar="|".join(PHOTOS), help="One of scikit-image’s photographs.")] = PHOTOS[
        0
    ],
) -> None:
    """Explain a photograph that comes with scikit-image by the model that comes with ierf, and write a report.

    Examples:

        ierf demo

        ierf demo --photo coffee --out coffee
    """
    explanation = explain(load(DEFAULT_MODEL), _unpacked(photo, out))
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
