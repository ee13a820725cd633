"""What a model says of many variants of its pictures, a bounded number at a time."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.metrics.maps import at_pixels
from ierf.model import VisionModel, evaluating

Target = None | int | Sequence[int] | Int[Tensor, " N"]
"""The class whose score counts, one for all samples or one each; None is the class predicted for the untouched x."""

Score = Literal["logit", "probability"]
"""What of that class: its logit, or its softmax."""

Baseline = float | Float[Tensor, "#N 3 H W"]
"""What stands where pixels are taken away: one number, or pixels that broadcast over x (a blurred copy, a colour)."""

Variant = Callable[[Int[Tensor, " B"], Int[Tensor, " B"]], Float[Tensor, "B 3 H W"]]
"""The pictures that variants `s` make of samples `i`."""


def scores(
    model: VisionModel,
    pixels: Float[Tensor, "N 3 H W"],
    target: Target,
    variants: int,
    variant: Variant,
    *,
    score: Score = "logit",
    at_once: int = 64,
) -> Float[Tensor, "N S"]:
    """The score of each sample's class for `variants` variants of it, at most `at_once` pictures in one forward pass.

    Evaluation mode, no gradients; the model comes back as it was. At least float32.

    Raises:
        IerfError: no such score or class, a number of targets that does not fit, outputs that are no logits.
    """
    if score not in get_args(Score):
        raise UnknownNameError("score", score, get_args(Score))
    if at_once < 1:
        raise IerfError(f"at_once is at least 1, not {at_once}")
    with evaluating(model.net), torch.no_grad():
        chosen = _classes(model, pixels, target, at_once)
        values = []
        for pair in torch.split(torch.arange(len(pixels) * variants, device=pixels.device), at_once):
            i, s = pair // variants, pair % variants
            logits = _logits(model, variant(i, s))
            of_class = chosen[i, None]
            if int(of_class.max()) >= logits.shape[1]:
                raise IerfError(f"there is no class {int(of_class.max())}: the model has {logits.shape[1]} classes")
            values.append((logits.softmax(1) if score == "probability" else logits).gather(1, of_class)[:, 0])
        return torch.cat(values).view(len(pixels), variants)


def pictures(x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 H W"]:
    """`x` without its gradients. Raises `IerfError` if it is no batch of pictures."""
    if not isinstance(x, Tensor) or x.ndim != 4 or 0 in x.shape or not x.is_floating_point():
        got = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise IerfError(
            f"expected a float tensor of pixels (N, C, H, W), got {got}; VisionModel.prepare makes one of a photograph"
        )
    return x.detach()


def maps_of(map: Float[Tensor, "N h w"], pixels: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N H W"]:
    """One map per picture, at its pixels. Raises `IerfError` if there are more or fewer maps than pictures."""
    if len(map) != len(pixels):
        raise IerfError(f"{len(map)} maps for {len(pixels)} pictures; give one map per picture")
    height, width = pixels.shape[2:]
    return at_pixels(map.detach().to(pixels.device), (height, width))


def baseline_of(pixels: Float[Tensor, "N 3 H W"], baseline: Baseline) -> Float[Tensor, "N 3 H W"]:
    """The baseline of each picture. Raises `IerfError` if it does not broadcast."""
    given = torch.as_tensor(baseline).to(pixels)
    try:
        return given.expand_as(pixels)
    except RuntimeError:
        shapes = f"{tuple(given.shape)}, the pixels {tuple(pixels.shape)}"
        raise IerfError(f"a baseline is one number or pixels like those explained; it has the shape {shapes}") from None


def _classes(model: VisionModel, pixels: Tensor, target: Target, at_once: int) -> Int[Tensor, " N"]:
    if target is None:
        return torch.cat([_logits(model, some).argmax(1) for some in torch.split(pixels, at_once)])
    index = torch.as_tensor(target, device=pixels.device)
    if index.is_floating_point() or index.dtype == torch.bool or index.ndim > 1:
        raise IerfError(f"a target is a class index, or one per picture, not {target!r}")
    if index.numel() not in (1, len(pixels)):
        raise IerfError(f"{index.numel()} targets for {len(pixels)} pictures; give one, or one per picture")
    if int(index.min()) < 0:
        raise IerfError(f"there is no class {int(index.min())}: classes are counted from 0")
    return index.long().expand(len(pixels))


def _logits(model: VisionModel, images: Tensor) -> Float[Tensor, "B K"]:
    logits = model(images)
    if logits.ndim != 2:
        raise IerfError(f"the network returns {tuple(logits.shape)}, where logits (N, classes) were expected")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
