"""`ierf bench`: what explanations cost, as ratios."""

from typing import Annotated

import torch
import typer
from rich.table import Table

from ierf.cli.console import out
from ierf.cli.options import Device, Model
from ierf.experiments import srd_costs
from ierf.model import evaluating, load

bench = typer.Typer(help="What explanations cost, as ratios to plain gradients of the same run.", no_args_is_help=True)


@bench.command()
def srd(
    model: Model = "timm:resnet50?weights=random",
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes; default: 1 and 8.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each; the median ratio counts.")] = 7,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice.")] = None,
    device: Device = "cpu",
) -> None:
    """Sharing Ratio Decomposition and iERFs, against forward + gradient of the logit."""
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load(model, device)
    table = Table("what", "as a ratio to", "median", "lowest", "highest")
    table.title = f"{loaded.name}, {' × '.join(map(str, loaded.preprocess.size))}, {torch.get_num_threads()} threads"
    with evaluating(loaded.net), out().status("measuring"):
        for cost in srd_costs(loaded, batch or (1, 8), rounds):
            numbers = (f"{value:.3f}" for value in (cost.ratio, cost.lowest, cost.highest))
            table.add_row(cost.what, cost.peer, *numbers)
    out().print(table)
