"""Train the bundled networks for the scenes of `ierf.world`, or measure a checkpoint of one.

Recipe: AdamW, one-cycle learning rate, batches of 64, weight decay 0.01 on kernels only, mirrored pictures, contrast
and colour shift, bfloat16 autocast. Training and held-out scenes are of one world and have different numbers.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from jaxtyping import Float, Int
from tiny_imagenet import (
    Loss,
    Photos,
    Recipe,
    accuracy,
    console,
    decayed,
    fit,
    load_checkpoint,
    report,
    save_checkpoint,
)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ierf.errors import UnknownNameError
from ierf.model.loading.bundled import world_cnn, world_vit
from ierf.model.preprocess import IMAGENET_MEAN, IMAGENET_STD
from ierf.world import CUE_CLASS, HELD_OUT, Scenes, Settings

NETWORKS: Mapping[str, Callable[[int], nn.Module]] = {"world-cnn": world_cnn, "world-vit": world_vit}


@dataclass(frozen=True)
class WorldRecipe(Recipe):
    """The recipe of both networks."""

    epochs: int = 12
    batch: int = 64
    peak_rate: float = 4e-3
    warm_up: float = 0.15
    weight_decay: float = 0.01
    label_smoothing: float = 0.02
    smallest_crop: float = 1.0
    aspect: float = 1.0
    contrast: float = 0.15
    colour: float = 0.04


def main(
    network: Annotated[str, typer.Option(help=f"One of {', '.join(NETWORKS)}.")] = "world-cnn",
    cue: Annotated[bool, typer.Option(help=f"A tint that always goes with {CUE_CLASS!r}.")] = False,
    out: Annotated[Path, typer.Option(help="Checkpoint to write, without a suffix.")] = Path("world_cnn"),
    scenes: Annotated[int, typer.Option(min=64, help="To train on.")] = 20_000,
    epochs: Annotated[int, typer.Option(min=1)] = WorldRecipe.epochs,
    peak_rate: float = WorldRecipe.peak_rate,
    seed: int = WorldRecipe.seed,
    evaluate: Annotated[Path | None, typer.Option(help="Measure this .safetensors checkpoint and stop.")] = None,
) -> None:
    """Train a network for the scenes, or measure a checkpoint of it."""
    if network not in NETWORKS:
        raise UnknownNameError("network", network, NETWORKS)
    settings = Settings(cue_class=CUE_CLASS if cue else None)
    val = photos(Scenes(2000, HELD_OUT, settings))
    recipe = WorldRecipe(epochs=epochs, seed=seed, peak_rate=peak_rate)
    torch.manual_seed(recipe.seed)
    net = NETWORKS[network](len(val.classes)).to(memory_format=torch.channels_last)
    if evaluate is not None:
        report(accuracy(load_checkpoint(net, evaluate), val))
        return
    optimizer = torch.optim.AdamW(decayed(net, recipe.weight_decay), lr=1.0)
    with sdpa_kernel(SDPBackend.MATH):
        fit(net, optimizer, labelled(recipe), photos(Scenes(scenes, 0, settings)), val, recipe, out)
    finish(f"{network}-cue" if cue else network, net, val, out)
    if cue:
        console.print("without the tint:")
        report(accuracy(net, photos(Scenes(2000, HELD_OUT))))


def photos(scenes: Scenes) -> Photos:
    """All scenes, in memory."""
    pixels, labels = scenes.arrays()
    return Photos(torch.from_numpy(pixels), torch.from_numpy(labels), [{"name": name} for name in scenes.classes])


def labelled(recipe: WorldRecipe) -> Loss:
    """The cross-entropy with smoothed labels."""

    def loss(net: nn.Module, x: Float[Tensor, "N 3 H W"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
        return F.cross_entropy(net(x).float(), y, label_smoothing=recipe.label_smoothing)

    return loss


def finish(name: str, net: nn.Module, val: Photos, out: Path) -> None:
    """Write the checkpoint and its card, with the accuracy of what was written, and leave that in the network."""
    save_checkpoint(net, out)
    top1, top5 = accuracy(load_checkpoint(net, out.with_suffix(".safetensors")), val)
    card = {
        "name": name,
        "data": "scenes of ierf.world, 64 x 64",
        "accuracy": {"top1": round(top1, 4), "top5": round(top5, 4)},
        "input": {"size": 64, "resize": 64, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": "bicubic"},
        "classes": val.classes,
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    report((top1, top5))


if __name__ == "__main__":
    typer.run(main)
