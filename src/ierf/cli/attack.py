"""`ierf attack`: a photograph changed by little so that the model names another class."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from ierf.cli.console import say, say_path
from ierf.cli.options import DEFAULT_MODEL, Device, Model
from ierf.model import VisionModel, load, read_image


def attack(
    method: Annotated[str, typer.Argument(metavar="fgsm|pgd", help="One step, or many small ones.")],
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="The photograph to attack.")],
    model: Model = DEFAULT_MODEL,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="NAME|INDEX", help="The class to make it; default: any.")
    ] = None,
    epsilon: Annotated[
        float, typer.Option("--epsilon", "-e", metavar="0–255", help="The most that a pixel changes.")
    ] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Of pgd.")] = 20,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The PNG file to write.")] = Path(
        "adversarial.png"
    ),
) -> None:
    """Make an adversarial photograph, save it without loss, read it again and say what the model sees in it.

    The exit status is 1 if the saved file does not fool the model.

    Examples:

        ierf attack pgd cat.jpg --target "sea slug" --epsilon 4 --out adversarial.png

        ierf attack fgsm cat.jpg --epsilon 8
    """
    from ierf.graph import attack as attack_photo
    from ierf.graph import check_png

    check_png(out)
    vision_model = load(model, device)
    found = attack_photo(vision_model, photo, target, method, epsilon, steps)
    written = found.save(out)
    with torch.no_grad():
        read = vision_model(vision_model.prepare(read_image(written)))[0].cpu()
    say(f"before: {_named(vision_model, found.before)}")
    say(f"after, read from the file: {_named(vision_model, read)}")
    say(f"no pixel changed by more than {found.epsilon:g} of 255")
    if not found.fooled:
        say("the attack failed; a larger --epsilon or more --steps may do")
    say_path(written)
    raise typer.Exit(0 if found.fooled else 1)


def _named(model: VisionModel, logits: torch.Tensor) -> str:
    chance, index = logits.double().softmax(0).max(0)
    return f"{model.label(int(index))}, {100 * float(chance):.1f} %"
