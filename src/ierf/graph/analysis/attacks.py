"""Adversarial photographs: pixels changed by at most ε so that the network names another class.

FGSM: one step along the sign of the loss's gradient (arXiv 1412.6572). PGD: many small ones, each projected back into
the ε-cube (arXiv 1706.06083). The whole of it happens in the photograph's own 8-bit pixels, so that the saved file
still fools the network.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from ierf.errors import IerfError, UnknownNameError
from ierf.files import write
from ierf.graph.picture.drawing import png
from ierf.model import ImageLike, Preprocess, VisionModel, as_image, as_vision_model, evaluating

ATTACKS = ("fgsm", "pgd")
EPSILON = 4.0
PGD_STEPS = 20


@dataclass(frozen=True)
class Adversarial:
    """A photograph before and after an attack, and what the network says of both."""

    clean: Image.Image
    """The photograph at the size that the model resizes it to, so that it is not resampled again."""
    picture: Image.Image
    """The same, attacked; differs inside of the part that the network sees."""
    before: Float[Tensor, " K"]
    """The clean photograph's logits."""
    after: Float[Tensor, " K"]
    target: int | None
    """The class that was aimed at; None: any but the first."""
    epsilon: float
    """In steps of 8-bit pixels."""

    @property
    def fooled(self) -> bool:
        """Whether the network now names the target, or another class than before."""
        named = int(self.after.argmax())
        return named != int(self.before.argmax()) if self.target is None else named == self.target

    def save(self, path: str | Path) -> Path:
        """Write the attacked photograph as PNG, which keeps every pixel. Raises `IerfError` for another suffix."""
        path = Path(path)
        check_png(path)
        return write(path, png(self.picture))


def check_png(path: Path) -> None:
    """Raises `IerfError` for another suffix than ".png"."""
    if path.suffix.lower() != ".png":
        raise IerfError(f"an attacked photograph is saved as PNG, which keeps every pixel, not as {path.name!r}")


def attack(
    model: VisionModel | nn.Module,
    photo: ImageLike,
    target: str | int | None = None,
    method: str = "pgd",
    epsilon: float = EPSILON,
    steps: int = PGD_STEPS,
) -> Adversarial:
    """Change a photograph by at most `epsilon` (of 255) at every pixel so that the network names `target`.

    Args:
        target: a class to lower the cross-entropy of; None: raise that of the class that is named now.
        method: "fgsm", one step of size ε, or "pgd", `steps` of size 2.5 ε / steps.
        epsilon: rounded down to whole 8-bit steps, as nothing between them can be saved.

    The network's own prediction on the result is in `.after`, computed from the 8-bit pixels as the saved file is read.
    Raises `IerfError` for an ε below one step or a class that does not exist.
    """
    vision_model = as_vision_model(model)
    if method not in ATTACKS:
        raise UnknownNameError("attack", method, ATTACKS)
    if epsilon < 1:
        raise IerfError(f"8-bit pixels change by 1 of 255 at least, so epsilon cannot be {epsilon:g}; take 1 or more")
    if steps < 1:
        raise IerfError(f"an attack takes at least one step, not {steps}")
    if vision_model.preprocess.channels != 3:
        raise IerfError(f"an attack changes RGB pixels; this network takes {vision_model.preprocess.channels} channels")
    scene = _scene(vision_model.preprocess, as_image(photo))
    seen = vision_model.preprocess.view(scene)
    with evaluating(vision_model.net):
        before = _logits(vision_model, scene)
        index = None if target is None else vision_model.class_index(target, len(before))
        goal = int(before.argmax()) if index is None else index
        descend = partial(_step, vision_model, goal=goal, away=index is None)
        pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1).to(vision_model.device, torch.float32)
        n, size = (1, float(int(epsilon))) if method == "fgsm" else (steps, max(1.0, 2.5 * epsilon / steps))
        changed = _perturbed(pixels, descend, int(epsilon), n, size)
        picture = _placed(vision_model.preprocess, scene, changed)
        return Adversarial(scene, picture, before, _logits(vision_model, picture), index, float(int(epsilon)))


def _perturbed(
    pixels: Float[Tensor, "3 H W"], gradient: Callable[[Tensor], Tensor], epsilon: int, steps: int, size: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Steps of `size` against the sign of the loss's gradient, inside of the ε-cube and of 0 … 255, rounded."""
    low, high = (pixels - epsilon).clamp(0, 255), (pixels + epsilon).clamp(0, 255)
    changed = pixels
    for _ in range(steps):
        changed = torch.clamp(changed - size * gradient(changed).sign(), low, high)
    result: np.ndarray = changed.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return result


def _step(model: VisionModel, pixels: Float[Tensor, "3 H W"], *, goal: int, away: bool) -> Float[Tensor, "3 H W"]:
    """The gradient of the cross-entropy of class `goal` by the pixels; its negative to go away from the class."""
    with torch.enable_grad():
        leaf = pixels.detach().requires_grad_()
        mean, std = (part.to(leaf) for part in model.preprocess.statistics)
        logits = model(((leaf / 255 - mean) / std)[None].to(model.dtype))
        loss = nn.functional.cross_entropy(logits.float(), torch.tensor([goal], device=logits.device))
        (gradient,) = torch.autograd.grad(-loss if away else loss, leaf)
    return gradient


def _logits(model: VisionModel, picture: Image.Image) -> Float[Tensor, " K"]:
    with torch.no_grad():
        return model(model.prepare(picture))[0].float().cpu()


def _scene(preprocess: Preprocess, photo: Image.Image) -> Image.Image:
    """The part of a photograph that the model resizes to itself: a square of its short side, or what it squashes to."""
    if preprocess.resize is None:
        return preprocess.view(photo)
    side = max(*preprocess.size, preprocess.resize)
    return replace(preprocess, size=(side, side)).view(photo)


def _placed(preprocess: Preprocess, scene: Image.Image, seen: UInt8[np.ndarray, "H W 3"]) -> Image.Image:
    """`scene` with other pixels in the part that the network sees."""
    height, width = preprocess.size
    corner = round((scene.width - width) / 2), round((scene.height - height) / 2)
    picture = scene.copy()
    picture.paste(Image.fromarray(seen), corner)
    return picture
