"""Train the bundled ResNet-18 on 100 classes of Tiny-ImageNet, or measure a checkpoint of it.

Recipe: SGD with Nesterov momentum 0.9, one-cycle learning rate up to 0.25, batches of 128, weight decay 5e-4 on
kernels only, label smoothing 0.1, random crop-and-resize, flip, contrast and colour shift, bfloat16 autocast,
channels-last.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from jaxtyping import Float, Int
from tiny_imagenet import (
    Loss,
    Recipe,
    accuracy,
    decayed,
    finish,
    fit,
    load_checkpoint,
    read_photos,
    report,
    training_photos,
)
from torch import Tensor, nn

from ierf.model.loading.bundled import resnet18_tiny


@dataclass(frozen=True)
class ResNetRecipe(Recipe):
    """The ResNet's recipe."""

    epochs: int = 16
    batch: int = 128
    peak_rate: float = 0.25
    warm_up: float = 0.25
    weight_decay: float = 5e-4
    momentum: float = 0.9


def main(
    data: Annotated[Path, typer.Option(help="Folder with tiny_imagenet100_{train_0,train_1,val}.parquet.")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write, without a suffix.")] = Path("resnet18_tiny"),
    epochs: Annotated[int, typer.Option(min=1)] = ResNetRecipe.epochs,
    seed: int = ResNetRecipe.seed,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps: a short trial.")] = None,
    evaluate: Annotated[Path | None, typer.Option(help="Measure this .safetensors checkpoint and stop.")] = None,
) -> None:
    """Train the bundled ResNet-18, or measure a checkpoint of it."""
    val = read_photos([data / "tiny_imagenet100_val.parquet"])
    recipe = ResNetRecipe(epochs=epochs, seed=seed)
    torch.manual_seed(recipe.seed)
    net = resnet18_tiny(len(val.classes)).to(device, memory_format=torch.channels_last)
    if evaluate is not None:
        report(accuracy(load_checkpoint(net, evaluate), val))
        return
    optimizer = torch.optim.SGD(decayed(net, recipe.weight_decay), lr=1.0, momentum=recipe.momentum, nesterov=True)
    fit(net, optimizer, labelled(recipe), training_photos(data), val, recipe, out, max_steps)
    finish("resnet18-tiny", net, val, out)


def labelled(recipe: ResNetRecipe) -> Loss:
    """The cross-entropy with smoothed labels."""

    def loss(net: nn.Module, x: Float[Tensor, "N 3 H W"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
        return F.cross_entropy(net(x).float(), y, label_smoothing=recipe.label_smoothing)

    return loss


if __name__ == "__main__":
    typer.run(main)
