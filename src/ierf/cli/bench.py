"""`ierf bench`: what explanations cost, as ratios."""

from collections.abc import Callable, Iterator
from typing import Annotated

import torch
import typer
from rich.table import Table

from ierf.cli.console import out
from ierf.cli.options import Device, Model
from ierf.experiments import Cost, attnlrp_costs, collect_costs, srd_costs
from ierf.model import VisionModel, evaluating, load

bench = typer.Typer(help="What explanations cost, as ratios to plain gradients of the same run.", no_args_is_help=True)


Batch = Annotated[list[int] | None, typer.Option(help="Batch sizes; default: 1 and 8.")]
Rounds = Annotated[int, typer.Option(min=1, help="Runs of each; the median ratio counts.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice.")]


@bench.command()
def srd(
    model: Model = "timm:resnet50?weights=random",
    batch: Batch = None,
    rounds: Rounds = 7,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Sharing Ratio Decomposition and iERFs, against forward + gradient of the logit."""
    _show(model, device, threads, lambda loaded: srd_costs(loaded, batch or (1, 8), rounds))


@bench.command()
def attnlrp(
    model: Model = "timm:vit_base_patch16_224?weights=random",
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where the iERFs of tokens start; '' for none.")
    ] = "blocks.11",
    batch: Batch = None,
    rounds: Rounds = 7,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """AttnLRP, CP-LRP and iERFs of tokens, against forward + gradient of the logit."""
    _show(model, device, threads, lambda loaded: attnlrp_costs(loaded, layer or None, batch or (1, 8), rounds))


@bench.command()
def collect(
    model: Model = "timm:resnet50?weights=random",
    layers: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="Convolutional layers; default: a ResNet-50's 16 blocks.")
    ] = ",".join(f"layer{stage}.{block}" for stage, blocks in enumerate((3, 4, 6, 3), 1) for block in range(blocks)),
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 4,
    rounds: Rounds = 5,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """PFVs with iERFs at 56 × 56, against a forward pass and a gradient for each layer; each stage’s share."""
    _show(model, device, threads, lambda loaded: collect_costs(loaded, layers.split(","), batch, rounds=rounds))


def _show(model: str, device: str, threads: int | None, measure: Callable[[VisionModel], Iterator[Cost]]) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load(model, device)
    table = Table("what", "as a ratio to", "median", "lowest", "highest")
    table.title = f"{loaded.name}, {' × '.join(map(str, loaded.preprocess.size))}, {torch.get_num_threads()} threads"
    with evaluating(loaded.net), out().status("measuring"):
        for cost in measure(loaded):
            numbers = (f"{value:.3f}" for value in (cost.ratio, cost.lowest, cost.highest))
            table.add_row(cost.what, cost.peer, *numbers)
    out().print(table)
