"""`ierf graph`, how concepts become classes, and `ierf attack`, a photograph changed to be seen as another class."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import torch
import typer

from ierf.cli.app import DEFAULT_MODEL, Device, Model, names_of, progress_bar, say, say_path, shown_on
from ierf.errors import IerfError, UnknownNameError
from ierf.graph.concept_graph import BUDGET, KEEP, MOST_STEPS, STEPS, NodesName
from ierf.model import VisionModel, evaluating, find_images, load, read_image

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank


def graph(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO…", help="A photograph; or several: their mean.")],
    bank: Annotated[str, typer.Option("--bank", "-b", metavar="DIR|hf:OWNER/NAME", help="The concepts.")],
    model: Model = DEFAULT_MODEL,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class", "-c", metavar="NAME|INDEX", help="A class to lead to, may be repeated; default: the top two."
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", metavar="NAME[,NAME…]", help="From the pixels on; default: all of the bank."),
    ] = None,
    diagnose: Annotated[bool, typer.Option("--diagnose", help="Say what makes --predicted win over --true.")] = False,
    true: Annotated[str | None, typer.Option(metavar="NAME|INDEX", help="With --diagnose: the true class.")] = None,
    predicted: Annotated[
        str | None, typer.Option(metavar="NAME|INDEX", help="With --diagnose; default: what the model says.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Two photographs: what differs from one to the other.")] = (
        False
    ),
    nodes: Annotated[
        str,
        typer.Option(
            "--nodes",
            metavar="groups|concepts",
            help="Groups of all concepts of a layer, or its top ones.",
        ),
    ] = "groups",
    budget: Annotated[int, typer.Option(min=1, help="Groups of each layer.")] = BUDGET,
    refit: Annotated[
        bool, typer.Option("--refit/--no-refit", help="Groups: least squares on the concepts that the Lasso chose.")
    ] = True,
    interventions: Annotated[
        bool, typer.Option("--interventions", help="Take every node out and say how well claims foretell effects.")
    ] = False,
    stable: Annotated[
        bool,
        typer.Option("--stability", help="Say how much flow keeps its groups if the picture is flipped or noisy."),
    ] = False,
    others: Annotated[
        list[str] | None,
        typer.Option("--other-bank", metavar="DIR", help="With --stability: a bank of another seed; may be repeated."),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            metavar="SHARE",
            help="Of the flow between layers whose edges are kept; default: all of groups, 0.8 of concepts.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of integrated gradients, at least.")] = STEPS,
    most_steps: Annotated[int, typer.Option(min=1, help="And at most, where they do not add up.")] = MOST_STEPS,
    seed: Annotated[int, typer.Option(help="Of the random concepts that edges are tested against.")] = 0,
    device: Device = "cpu",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="What to write: .html, .svg, or .json that loads again.")
    ] = Path("graph.html"),
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Put all pictures into the page, not into a folder beside it.")
    ] = False,
) -> None:
    """Draw the concept graph of a photograph: which concepts made its classes, and what made them.

    Examples:

        ierf graph cat.jpg --bank bank/ --class tabby --class "Egyptian cat"

        ierf graph cat.jpg --bank bank/ --budget 8 --interventions

        ierf graph --diagnose cat.jpg --bank bank/ --true tabby --predicted tiger

        ierf graph --compare cat.jpg adversarial.png --bank bank/ --out compare.html
    """
    from ierf.concepts import ConceptBank
    from ierf.graph import ConceptGraph, left_out, stability

    _check_options(diagnose, compare, bool(classes), true is not None or predicted is not None, out)
    if nodes not in get_args(NodesName):
        raise UnknownNameError("kind of nodes", nodes, get_args(NodesName))
    if interventions and (diagnose or compare):
        raise IerfError("--interventions belongs to a graph; a diagnosis takes nodes out already")
    if stable and (diagnose or compare or nodes != "groups" or len(photos) != 1):
        raise IerfError("--stability belongs to the graph of one photograph with --nodes groups")
    if others and not stable:
        raise IerfError("--other-bank belongs to --stability")
    vision_model, concepts = load(model, device), ConceptBank.load(bank)
    concepts.check_model(vision_model)
    names = names_of(layers)
    files = find_images(photos)
    options: dict[str, Any] = {"layers": names, "nodes": nodes, "steps": steps, "most_steps": most_steps, "seed": seed}
    if nodes == "groups":
        options |= {"budget": budget, "refit": refit}
    drawn = KEEP if keep is None else keep
    with progress_bar() as bar:
        options["progress"] = shown_on(bar, "opening")
        if diagnose:
            _diagnose(vision_model, concepts, files, (true, predicted), (drawn, single_file), out, options)
        elif compare:
            _compare(vision_model, concepts, files, classes or None, (drawn, single_file), out, options)
        else:
            one = files[0] if len(files) == 1 else files
            made = ConceptGraph.build(vision_model, concepts, one, classes or None, keep=keep, **options)
            for text in left_out(made):
                say(text)
            if stable:
                banks = {name: ConceptBank.load(name) for name in others or ()}
                same = {name: options[name] for name in ("layers", "budget", "refit", "steps", "most_steps")}
                for row in stability(vision_model, concepts, one, classes or None, others=banks, **same):
                    say(row.summary)
            if interventions:
                for text in made.test(vision_model, concepts, one).summary():
                    say(text)
            say_path(made.save(out, single_file))


def _check_options(diagnose: bool, compare: bool, classes: bool, two_classes: bool, out: Path) -> None:
    """Refuse what does not go together before anything is computed."""
    from ierf.graph import SUFFIXES

    if diagnose and compare:
        raise IerfError("choose one of --diagnose and --compare")
    if two_classes and not diagnose:
        raise IerfError("--true and --predicted belong to --diagnose; a graph leads to the classes of --class")
    if diagnose and classes:
        raise IerfError("a diagnosis is of the two classes --true and --predicted; leave --class out")
    forms = (".html",) if diagnose or compare else SUFFIXES
    if out.suffix not in forms:
        raise IerfError(f"this is written as {' or '.join(forms)}, not as {out.name!r}; name another file with --out")


def _diagnose(
    model: VisionModel,
    bank: "ConceptBank",
    files: Sequence[Path],
    classes: tuple[str | None, str | None],
    saving: tuple[float, bool],
    out: Path,
    options: dict[str, Any],
) -> None:
    from ierf.graph import diagnose

    if len(files) != 1 or classes[0] is None:
        raise IerfError("a diagnosis is of one photograph and needs its true class: --diagnose PHOTO --true NAME")
    predicted = classes[1] if classes[1] is not None else _prediction(model, files[0])
    found = diagnose(model, bank, files[0], classes[0], predicted, **options)
    for text in (*found.summary(), *found.checks()):
        say(text)
    say_path(found.save(out, *saving))


def _compare(
    model: VisionModel,
    bank: "ConceptBank",
    files: Sequence[Path],
    classes: list[str] | None,
    saving: tuple[float, bool],
    out: Path,
    options: dict[str, Any],
) -> None:
    from ierf.graph import compare_photographs, findings, save_comparison

    if len(files) != 2:
        raise IerfError(f"--compare takes two photographs, these are {len(files)}")
    found = compare_photographs(model, bank, files[0], files[1], classes, **options)
    for finding in findings(found):
        say(finding.text)
    say_path(save_comparison(found, out, *saving))


def _prediction(model: VisionModel, file: Path) -> int:
    with torch.no_grad(), evaluating(model.net):
        return int(model(model.prepare(file))[0].argmax())


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
