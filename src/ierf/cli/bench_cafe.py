"""`ierf bench cafe`: what iERFs of latents and their index cost."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from ierf.cli.bench import Batch, Rounds, Threads
from ierf.cli.console import say
from ierf.cli.options import Device, Model
from ierf.model import load


def cafe(
    sae: Annotated[Path, typer.Option("--sae", metavar="DIR", help="What `ierf sae train` wrote.")],
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="FOLDER|PARQUET|HF_DATASET", help="Photographs for the index.")
    ],
    model: Model = "bundled:vit-tiny",
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Only the first N photographs.")] = 4096,
    batch: Batch = None,
    rounds: Rounds = 7,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """The iERF of a latent against forward + gradient, and an index of all latents against a forward pass."""
    from ierf.cafe import LatentLayer
    from ierf.concepts.sae import saved_autoencoders, trained_values
    from ierf.experiments.cost.cafe import cafe_costs
    from ierf.store import First, open_images

    if threads is not None:
        torch.set_num_threads(threads)
    vision_model, saes = load(model, device), saved_autoencoders(sae)
    values = trained_values(saes)
    layers = [LatentLayer(vision_model, name, found.to(device), values) for name, found in saes.items()]
    for cost in cafe_costs(vision_model, layers, First(open_images(data), limit), batch or (1, 16), rounds):
        say(f"{cost.what} / {cost.peer}: {cost.ratio:.2f} ({cost.lowest:.2f} – {cost.highest:.2f})")
