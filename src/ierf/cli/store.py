"""`ierf store`: what is inside a store, whether it is whole, and what it looks like."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ierf.cli.console import out, say, say_path
from ierf.cli.options import Device
from ierf.errors import IerfError
from ierf.model import load
from ierf.store import PFVStore, contact_sheet, problems

store = typer.Typer(help="Look into a store that `ierf collect` wrote.", no_args_is_help=True)

TILE = 120
"""Side of a picture on a contact sheet, in pixels."""

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="The folder of the store.")]


@store.command()
def info(path: StorePath) -> None:
    """What is inside: model, photographs, and the PFVs of each layer."""
    opened = PFVStore(path)
    plan = opened.plan
    model, sampling = plan.model, plan.sampling
    say(f"model      {model['name']}, weights {model['weights'][:12]}…, {plan.method}")
    for source in plan.sources:
        say(f"images     {source.count} of {source.address or 'a list in memory'}")
    if opened.skipped:
        say(f"skipped    {len(opened.skipped)}: {', '.join(name for name, _ in opened.skipped[:5])}")
    tokens = " and the tokens in front of the patches" if sampling.get("prefix_tokens") else ""
    say(f"sampling   {sampling['kind']}, {sampling['per_image']} per image and layer{tokens}, seed {sampling['seed']}")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("layer")
    for heading in ("PFVs", "channels", "map", "values", "iERFs"):
        table.add_column(heading, justify="right")
    for layer in plan.layers:
        size = "–" if layer.ierf_size is None else f"{' × '.join(map(str, layer.ierf_size))} {layer.ierf}"
        rows, shape = str(len(opened.layer(layer.name))), " × ".join(map(str, layer.map))
        table.add_row(Text(layer.name), rows, str(layer.channels), shape, layer.values, size)
    out().print(table)


@store.command()
def verify(path: StorePath) -> None:
    """Read every file and compare it with its checksum. The exit status is 1 if anything is wrong."""
    found = list(problems(path))
    for problem in found:
        say(problem, "red")
    say("whole" if not found else f"{len(found)} problems", "red" if found else "green")
    raise typer.Exit(1 if found else 0)


@store.command()
def show(
    path: StorePath,
    layer: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A layer to show; default: all.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Pairs of each layer.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
    save: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The picture to write.")] = Path("pfvs.png"),
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="SPEC", help="Compute iERFs anew, at full resolution.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """A contact sheet of random PFVs: each photograph lit by its iERF, the PFV’s cell framed; below, what it covers."""
    opened = PFVStore(path)
    loaded = None if model is None else load(model, device)
    random = np.random.default_rng(seed)
    rows = []
    for name in layer or opened.layers:
        of_layer = opened.layer(name)
        chosen = sorted(random.choice(len(of_layer), min(count, len(of_layer)), replace=False).tolist())
        rows.append((name, [of_layer.pictures(row, loaded, TILE) for row in chosen]))
    if not any(pairs for _, pairs in rows):
        raise IerfError(f"the store {str(path)!r} holds no PFVs: all of its images were skipped")
    sheet = contact_sheet(rows, TILE)
    try:
        sheet.save(save, "PNG")
    except OSError as error:
        raise IerfError(f"cannot write {str(save)!r}: {error.strerror or error}") from error
    say_path(save)
