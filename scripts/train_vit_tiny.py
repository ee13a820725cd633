"""Train the bundled vision transformer on 100 classes of Tiny-ImageNet, or measure a checkpoint of it.

Recipe: AdamW, one-cycle learning rate up to 1e-3, batches of 128, weight decay 0.05 on kernels only, random
crop-and-resize, flip, contrast and colour shift, bfloat16 autocast; pictures of 48 pixels first, of 64 in the last
epochs. Attention runs step by step, because torch's fused kernel is slow at going back on a CPU. Fifty thousand
pictures are few for a transformer, so the bundled ResNet-18 teaches it: most of the loss is the divergence from what
the ResNet says of the same picture (Hinton et al., arXiv 1503.02531).
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
from torch.nn.attention import SDPBackend, sdpa_kernel

import ierf
from ierf.model.loading.bundled import vit_tiny


@dataclass(frozen=True)
class ViTRecipe(Recipe):
    """The transformer's recipe."""

    epochs: int = 16
    batch: int = 128
    peak_rate: float = 1e-3
    warm_up: float = 0.1
    weight_decay: float = 0.05
    smallest_crop: float = 0.35
    small_side: int = 48
    large_share: float = 3 / 16
    """The part of the epochs, the last ones, that sees pictures of 64 pixels."""
    teacher_share: float = 0.7
    temperature: float = 2.0

    def side(self, epoch: int) -> int:
        return self.small_side if epoch < round(self.epochs * (1 - self.large_share)) else 64


def main(
    data: Annotated[Path, typer.Option(help="Folder with tiny_imagenet100_{train_0,train_1,val}.parquet.")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write, without a suffix.")] = Path("vit_tiny"),
    epochs: Annotated[int, typer.Option(min=1)] = ViTRecipe.epochs,
    seed: int = ViTRecipe.seed,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps: a short trial.")] = None,
    evaluate: Annotated[Path | None, typer.Option(help="Measure this .safetensors checkpoint and stop.")] = None,
) -> None:
    """Train the bundled vision transformer, or measure a checkpoint of it."""
    val = read_photos([data / "tiny_imagenet100_val.parquet"])
    recipe = ViTRecipe(epochs=epochs, seed=seed)
    torch.manual_seed(recipe.seed)
    net = vit_tiny(len(val.classes)).to(device, memory_format=torch.channels_last)
    if evaluate is not None:
        report(accuracy(load_checkpoint(net, evaluate), val))
        return
    optimizer = torch.optim.AdamW(decayed(net, recipe.weight_decay), lr=1.0, betas=(0.9, 0.98))
    loss = taught_by(ierf.load("bundled:resnet18-tiny").net.to(device, memory_format=torch.channels_last), recipe)
    with sdpa_kernel(SDPBackend.MATH):
        fit(net, optimizer, loss, training_photos(data), val, recipe, out, max_steps)
    finish("vit-tiny", net, val, out)


def taught_by(teacher: nn.Module, recipe: ViTRecipe) -> Loss:
    """`(1 − s) · cross-entropy + s · T² · KL(teacher ‖ student)` with both softened by the temperature T."""
    t = recipe.temperature

    def loss(net: nn.Module, x: Float[Tensor, "N 3 H W"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
        with torch.no_grad():
            said = (teacher(x).float() / t).log_softmax(1)
        logits = net(x).float()
        labelled = F.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
        taught = F.kl_div((logits / t).log_softmax(1), said, reduction="batchmean", log_target=True) * t**2
        return torch.lerp(labelled, taught, recipe.teacher_share)

    return loss


if __name__ == "__main__":
    typer.run(main)
