"""Train one small ResNet on CIFAR-10 with each activation function, for `ierf evaluate activations`.

Recipe: SGD with Nesterov momentum 0.9, one-cycle learning rate up to 0.2, batches of 128, weight decay 5e-4 on kernels
only, label smoothing 0.1, random crop-and-resize, flip, contrast and colour shift, bfloat16 autocast.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
import typer
from jaxtyping import Float, Int
from PIL import Image
from tiny_imagenet import Photos, Recipe, accuracy, console, decayed, fit, load_checkpoint, save_checkpoint
from torch import Tensor, nn

from ierf.experiments.networks import ACTIVATIONS, CLASSES, CifarResNet


@dataclass(frozen=True)
class CifarRecipe(Recipe):
    """The same for every activation."""

    epochs: int = 8
    batch: int = 128
    peak_rate: float = 0.2
    warm_up: float = 0.25
    weight_decay: float = 5e-4
    smallest_crop: float = 0.6

    def side(self, epoch: int) -> int:
        return 32


def main(
    data: Annotated[Path, typer.Option(help="Folder with cifar10_{train,test}.parquet.")],
    out: Annotated[Path, typer.Option(help="Folder for ACTIVATION.safetensors and accuracies.json.")] = Path("cifar"),
    epochs: Annotated[int, typer.Option(min=1)] = CifarRecipe.epochs,
    seed: int = CifarRecipe.seed,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    max_steps: Annotated[int | None, typer.Option(help="Stop each after so many steps: a trial.")] = None,
) -> None:
    """Train what is not yet in the folder; a killed run goes on after its last epoch."""
    train, test = (read(data / f"cifar10_{part}.parquet") for part in ("train", "test"))
    recipe, accuracies = CifarRecipe(epochs=epochs, seed=seed), {}
    for activation in ACTIVATIONS:
        torch.manual_seed(recipe.seed)
        net, path = CifarResNet(activation).to(device), out / f"{activation}.safetensors"
        if not path.exists():
            groups = decayed(net, recipe.weight_decay)
            optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
            out.mkdir(parents=True, exist_ok=True)
            fit(net, optimizer, loss, train, test, recipe, path.with_suffix(""), max_steps)
            save_checkpoint(net, path)
        accuracies[activation] = round(accuracy(load_checkpoint(net, path), test)[0], 4)
        console.print(f"{activation}: top-1 {accuracies[activation]:.2%}")
    (out / "accuracies.json").write_text(json.dumps(accuracies, indent=1) + "\n")


def loss(net: nn.Module, x: Float[Tensor, "N 3 H W"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """The cross-entropy with smoothed labels."""
    return F.cross_entropy(net(x).float(), y, label_smoothing=CifarRecipe.label_smoothing)


def read(path: Path) -> Photos:
    """All photographs of a parquet file."""
    rows = pq.read_table(path, columns=["image", "label"]).to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in rows])
    labels = torch.tensor([row["label"] for row in rows])
    return Photos(torch.from_numpy(pixels).permute(0, 3, 1, 2), labels, [{"name": name} for name in CLASSES])


if __name__ == "__main__":
    typer.run(main)
