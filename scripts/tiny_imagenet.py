"""What the training scripts share: Tiny-ImageNet's photographs, their augmentation, and a run that can be resumed."""

import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ierf.model.preprocess import IMAGENET_MEAN, IMAGENET_STD

console = Console()


@dataclass(frozen=True)
class Recipe:
    """Everything that the result depends on, apart from the data and the network."""

    epochs: int
    batch: int
    peak_rate: float
    warm_up: float
    weight_decay: float
    label_smoothing: float = 0.1
    smallest_crop: float = 0.4
    aspect: float = 4 / 3
    contrast: float = 0.3
    colour: float = 0.1
    seed: int = 0

    def side(self, epoch: int) -> int:
        """Pixels of a training picture's side in an epoch, the first being 0."""
        return 64


Loss = Callable[[nn.Module, Float[Tensor, "N 3 H W"], Int[Tensor, " N"]], Float[Tensor, ""]]
"""(network in training mode, pictures, labels) -> what a step makes smaller."""


@dataclass(frozen=True)
class Photos:
    """Photographs in memory: pixels (N, 3, 64, 64), labels (N,), and the classes in the order of the labels."""

    pixels: UInt8[Tensor, "N 3 H W"]
    labels: Int[Tensor, " N"]
    classes: list[dict[str, str]]

    def __len__(self) -> int:
        return len(self.labels)


def read_photos(paths: list[Path]) -> Photos:
    """All photographs of some parquet files."""
    rows = [
        row for path in paths for row in pq.read_table(path, columns=["image", "label", "wnid", "name"]).to_pylist()
    ]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in rows])
    classes = {row["label"]: {"wnid": row["wnid"], "name": row["name"]} for row in rows}
    labels = torch.tensor([row["label"] for row in rows])
    return Photos(torch.from_numpy(pixels).permute(0, 3, 1, 2), labels, [classes[i] for i in sorted(classes)])


def training_photos(data: Path) -> Photos:
    """The 50 000 photographs of the training set."""
    return read_photos([data / f"tiny_imagenet100_train_{part}.parquet" for part in (0, 1)])


def fit(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Loss,
    train: Photos,
    val: Photos,
    recipe: Recipe,
    out: Path,
    max_steps: int | None = None,
) -> None:
    """Train `net` on its device. The state after each epoch lies beside `out`, and training goes on from there."""
    device = next(net.parameters()).device
    per_epoch = len(train) // recipe.batch
    total = recipe.epochs * per_epoch
    resume = out.with_suffix(".resume.pt")
    first = restore(resume, recipe, net, optimizer)
    with progress() as bar:
        task = bar.add_task("", total=min(total, max_steps or total), completed=first * per_epoch, loss=math.nan)
        for epoch in range(first, recipe.epochs):
            generator = torch.Generator(device).manual_seed(recipe.seed * 1000 + epoch)
            pictures = batches(train, recipe, recipe.side(epoch), generator)
            for step, (x, y) in enumerate(pictures, epoch * per_epoch):
                if max_steps is not None and step >= max_steps:
                    return
                set_rate(optimizer, one_cycle(step / total, recipe.peak_rate, recipe.warm_up))
                loss = training_step(net, optimizer, loss_of, x, y)
                bar.update(task, advance=1, description=f"epoch {epoch + 1}/{recipe.epochs}", loss=loss)
            top1, top5 = accuracy(net, val)
            bar.console.print(f"epoch {epoch + 1}: loss {loss:.3f}, top-1 {top1:.2%}, top-5 {top5:.2%}")
            keep(resume, recipe, epoch + 1, net, optimizer)
    resume.unlink(missing_ok=True)


def training_step(net: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Loss, x: Tensor, y: Tensor) -> float:
    """One step of gradient descent; returns the loss before it."""
    net.train()
    with torch.autocast(x.device.type, torch.bfloat16):
        loss = loss_of(net, x, y)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def decayed(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: kernels and embeddings decay, biases and the scales of norms do not."""
    arrays = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim <= 1]
    return [{"params": arrays, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def one_cycle(progress: float, peak: float, warm_up: float) -> float:
    """The learning rate at `progress` in [0, 1): a cosine up to `peak` over `warm_up`, a cosine down to zero after."""
    if progress < warm_up:
        return peak * (0.04 + 0.96 * (1 - math.cos(math.pi * progress / warm_up)) / 2)
    return peak * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def batches(
    photos: Photos, recipe: Recipe, side: int, generator: torch.Generator
) -> Iterator[tuple[Float[Tensor, "N 3 S S"], Int[Tensor, " N"]]]:
    """One epoch of shuffled, augmented, normalised batches on the generator's device; an odd rest is left out."""
    device = generator.device
    order = torch.randperm(len(photos), generator=generator, device=device).cpu()
    for index in order.split(recipe.batch):
        if len(index) == recipe.batch:
            x = photos.pixels[index].to(device).float() / 255
            x = shift_colours(crop_and_flip(x, recipe, side, generator), recipe, generator)
            yield normalise(x).contiguous(memory_format=torch.channels_last), photos.labels[index].to(device)


def crop_and_flip(
    x: Float[Tensor, "N 3 H W"], recipe: Recipe, side: int, generator: torch.Generator
) -> Float[Tensor, "N 3 S S"]:
    """A random rectangle of each picture, half of them mirrored, resized to `side`."""
    n = len(x)
    area = uniform(n, recipe.smallest_crop, 1.0, generator)
    stretch = uniform(n, -math.log(recipe.aspect), math.log(recipe.aspect), generator).exp()
    width, height = (area * stretch).sqrt().clamp(max=1), (area / stretch).sqrt().clamp(max=1)
    left, top = (1 - width) * uniform(n, -1, 1, generator), (1 - height) * uniform(n, -1, 1, generator)
    mirror = uniform(n, -1, 1, generator).sign()
    zero = torch.zeros_like(width)
    theta = torch.stack([torch.stack([width * mirror, zero, left], 1), torch.stack([zero, height, top], 1)], 1)
    grid = F.affine_grid(theta, [n, 3, side, side], align_corners=False)
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


def load_checkpoint(net: nn.Module, path: Path) -> nn.Module:
    """The network, filled with a checkpoint's weights."""
    net.load_state_dict({**net.state_dict(), **load_file(path)})
    return net


def finish(name: str, net: nn.Module, val: Photos, out: Path) -> None:
    """Write the checkpoint and its card, with the accuracy of what was written, and leave that in the network."""
    save_checkpoint(net, out)
    measured = accuracy(load_checkpoint(net, out.with_suffix(".safetensors")), val)
    write_card(name, measured, val.classes, out)
    report(measured)


def write_card(name: str, measured: tuple[float, float], classes: list[dict[str, str]], out: Path) -> None:
    """What a reader of the checkpoint needs: data, accuracy, input and classes."""
    card = {
        "name": name,
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
