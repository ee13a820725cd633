"""Train the bundled ResNet-18 on 100 classes of Tiny-ImageNet, or measure a checkpoint of it.

Recipe: SGD with Nesterov momentum 0.9, one-cycle learning rate up to 0.25, batches of 128, weight decay 5e-4 on
kernels only, label smoothing 0.1, random crop-and-resize, flip, contrast and colour shift, bfloat16 autocast,
channels-last.
"""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
import typer
from jaxtyping import Float, Int, UInt8
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ierf.model.bundled.resnet import resnet18_tiny
from ierf.model.preprocess import IMAGENET_MEAN, IMAGENET_STD

console = Console()


@dataclass(frozen=True)
class Recipe:
    """Everything that the result depends on, apart from the data."""

    epochs: int = 16
    seed: int = 0
    batch: int = 128
    peak_rate: float = 0.25
    warm_up: float = 0.25
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    smallest_crop: float = 0.4
    aspect: float = 4 / 3
    contrast: float = 0.3
    colour: float = 0.1


@dataclass(frozen=True)
class Photos:
    """Photographs in memory: pixels (N, 3, 64, 64), labels (N,), and the classes in the order of the labels."""

    pixels: UInt8[Tensor, "N 3 H W"]
    labels: Int[Tensor, " N"]
    classes: list[dict[str, str]]

    def __len__(self) -> int:
        return len(self.labels)


def main(
    data: Annotated[Path, typer.Option(help="Folder with tiny_imagenet100_{train_0,train_1,val}.parquet.")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write, without a suffix.")] = Path("resnet18_tiny"),
    epochs: Annotated[int, typer.Option(min=1)] = Recipe.epochs,
    seed: int = Recipe.seed,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps: a short trial.")] = None,
    evaluate: Annotated[Path | None, typer.Option(help="Measure this .safetensors checkpoint and stop.")] = None,
) -> None:
    """Train the bundled ResNet-18, or measure a checkpoint of it."""
    val = read_photos([data / "tiny_imagenet100_val.parquet"])
    if evaluate is not None:
        report(accuracy(load_checkpoint(evaluate, device), val))
        return
    train = read_photos([data / f"tiny_imagenet100_train_{part}.parquet" for part in (0, 1)])
    net = fit(train, val, Recipe(epochs=epochs, seed=seed), torch.device(device), out, max_steps)
    save_checkpoint(net, out)
    measured = accuracy(load_checkpoint(out.with_suffix(".safetensors"), device), val)
    write_card(measured, val.classes, out)
    report(measured)


def read_photos(paths: list[Path]) -> Photos:
    """All photographs of some parquet files."""
    rows = [
        row for path in paths for row in pq.read_table(path, columns=["image", "label", "wnid", "name"]).to_pylist()
    ]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in rows])
    classes = {row["label"]: {"wnid": row["wnid"], "name": row["name"]} for row in rows}
    labels = torch.tensor([row["label"] for row in rows])
    return Photos(torch.from_numpy(pixels).permute(0, 3, 1, 2), labels, [classes[i] for i in sorted(classes)])


def fit(
    train: Photos, val: Photos, recipe: Recipe, device: torch.device, out: Path, max_steps: int | None = None
) -> nn.Module:
    """The trained network. The state after each epoch lies beside `out`, and training goes on from there."""
    torch.manual_seed(recipe.seed)
    net = resnet18_tiny(len(train.classes)).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(decayed(net, recipe.weight_decay), lr=1.0, momentum=recipe.momentum, nesterov=True)
    per_epoch = len(train) // recipe.batch
    total = recipe.epochs * per_epoch
    resume = out.with_suffix(".resume.pt")
    first = restore(resume, recipe, net, optimizer)
    with progress() as bar:
        task = bar.add_task("", total=min(total, max_steps or total), completed=first * per_epoch, loss=math.nan)
        for epoch in range(first, recipe.epochs):
            generator = torch.Generator(device).manual_seed(recipe.seed * 1000 + epoch)
            for step, (x, y) in enumerate(batches(train, recipe, generator), epoch * per_epoch):
                if max_steps is not None and step >= max_steps:
                    return net
                set_rate(optimizer, one_cycle(step / total, recipe.peak_rate, recipe.warm_up))
                loss = training_step(net, optimizer, x, y, recipe.label_smoothing)
                bar.update(task, advance=1, description=f"epoch {epoch + 1}/{recipe.epochs}", loss=loss)
            top1, top5 = accuracy(net, val)
            bar.console.print(f"epoch {epoch + 1}: loss {loss:.3f}, top-1 {top1:.2%}, top-5 {top5:.2%}")
            keep(resume, recipe, epoch + 1, net, optimizer)
    resume.unlink(missing_ok=True)
    return net


def decayed(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: kernels decay, biases and batch-norm scales do not."""
    kernels = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def one_cycle(progress: float, peak: float, warm_up: float) -> float:
    """The learning rate at `progress` in [0, 1): a cosine up to `peak` over `warm_up`, a cosine down to zero after."""
    if progress < warm_up:
        return peak * (0.04 + 0.96 * (1 - math.cos(math.pi * progress / warm_up)) / 2)
    return peak * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def training_step(
    net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, label_smoothing: float
) -> float:
    """One step of gradient descent; returns the loss before it."""
    net.train()
    with torch.autocast(x.device.type, torch.bfloat16):
        loss = F.cross_entropy(net(x).float(), y, label_smoothing=label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def batches(photos: Photos, recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled, augmented, normalised batches on the generator's device; an odd rest is left out."""
    device = generator.device
    order = torch.randperm(len(photos), generator=generator, device=device).cpu()
    for index in order.split(recipe.batch):
        if len(index) == recipe.batch:
            x = photos.pixels[index].to(device).float() / 255
            x = shift_colours(crop_and_flip(x, recipe, generator), recipe, generator)
            yield normalise(x).contiguous(memory_format=torch.channels_last), photos.labels[index].to(device)


def crop_and_flip(x: Float[Tensor, "N 3 H W"], recipe: Recipe, generator: torch.Generator) -> Float[Tensor, "N 3 H W"]:
    """A random rectangle of each picture, half of them mirrored, resized to the whole."""
    n = len(x)
    area = uniform(n, recipe.smallest_crop, 1.0, generator)
    stretch = uniform(n, -math.log(recipe.aspect), math.log(recipe.aspect), generator).exp()
    width, height = (area * stretch).sqrt().clamp(max=1), (area / stretch).sqrt().clamp(max=1)
    left, top = (1 - width) * uniform(n, -1, 1, generator), (1 - height) * uniform(n, -1, 1, generator)
    mirror = uniform(n, -1, 1, generator).sign()
    zero = torch.zeros_like(width)
    theta = torch.stack([torch.stack([width * mirror, zero, left], 1), torch.stack([zero, height, top], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def shift_colours(x: Float[Tensor, "N 3 H W"], recipe: Recipe, generator: torch.Generator) -> Float[Tensor, "N 3 H W"]:
    """Each picture's contrast scaled about its mean, and each of its channels shifted."""
    n = len(x)
    mean = x.mean((1, 2, 3), keepdim=True)
    contrast = uniform(n, 1 - recipe.contrast, 1 + recipe.contrast, generator).view(n, 1, 1, 1)
    shift = uniform(3 * n, -recipe.colour, recipe.colour, generator).view(n, 3, 1, 1)
    return (mean + (x - mean) * contrast + shift).clamp(0, 1)


def uniform(n: int, low: float, high: float, generator: torch.Generator) -> Float[Tensor, " n"]:
    return low + (high - low) * torch.rand(n, generator=generator, device=generator.device)


def normalise(x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 H W"]:
    """From values in [0, 1] to the network's input."""
    return (x - x.new_tensor(IMAGENET_MEAN).view(3, 1, 1)) / x.new_tensor(IMAGENET_STD).view(3, 1, 1)


@torch.no_grad()
def accuracy(net: nn.Module, photos: Photos) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, in eval mode and float32."""
    net.eval()
    device = next(net.parameters()).device
    hits = torch.zeros(5)
    for pixels, labels in zip(photos.pixels.split(250), photos.labels.split(250), strict=True):
        ranked = net(normalise(pixels.to(device).float() / 255)).topk(5).indices.cpu()
        hits += (ranked == labels[:, None]).sum(0)
    share = (hits.cumsum(0) / len(photos)).tolist()
    return share[0], share[4]


def keep(path: Path, recipe: Recipe, epochs_done: int, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Publish the state after an epoch in one step, so that a kill leaves the last one or this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "recipe": vars(recipe),
        "epochs_done": epochs_done,
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def restore(path: Path, recipe: Recipe, net: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Take up the state that `keep` left, if its recipe is this one; returns the number of epochs done."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["recipe"] != vars(recipe):
        raise SystemExit(f"{path} belongs to another recipe; remove it to start anew")
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epochs_done"])


def save_checkpoint(net: nn.Module, out: Path) -> None:
    """The network's weights in float16, without batch counters."""
    out.parent.mkdir(parents=True, exist_ok=True)
    half = {name: t.half().cpu().contiguous() for name, t in net.state_dict().items() if t.is_floating_point()}
    save_file(half, out.with_suffix(".safetensors"))


def load_checkpoint(path: Path, device: str) -> nn.Module:
    """The network with a checkpoint's weights, in float32."""
    weights = load_file(path)
    net = resnet18_tiny(len(weights["fc.bias"]))
    net.load_state_dict({**net.state_dict(), **weights})
    return net.to(device)


def write_card(measured: tuple[float, float], classes: list[dict[str, str]], out: Path) -> None:
    """What a reader of the checkpoint needs: data, accuracy, input and classes."""
    card = {
        "name": "resnet18-tiny",
        "data": "Tiny-ImageNet, 100 of its classes, 64 x 64",
        "accuracy": {"top1": round(measured[0], 4), "top5": round(measured[1], 4)},
        "input": {"size": 64, "resize": 64, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": "bicubic"},
        "classes": classes,
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")


def report(measured: tuple[float, float]) -> None:
    console.print(f"top-1 {measured[0]:.2%}, top-5 {measured[1]:.2%}")


def progress() -> Progress:
    loss = TextColumn("loss {task.fields[loss]:.3f}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), loss)
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


if __name__ == "__main__":
    typer.run(main)
