"""What all metrics share: definitions by preset, maps at the pixels, and scores of variants of the pictures."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.errors import IerfError, UnknownNameError
from ierf.model import VisionModel, evaluating

Preset = Literal["paper", "quantus"]
"""arXiv 2605.00474, VII-G; or the defaults of Quantus 0.6 where these differ."""


def check_preset(preset: str) -> None:
    """Raise `UnknownNameError` for a preset that does not exist."""
    if preset not in get_args(Preset):
        raise UnknownNameError("preset", preset, get_args(Preset))


def normalise_map(map: Float[Tensor, "*N h w"]) -> Float[Tensor, "*N h w"]:
    """`φ / max|φ|`, sample by sample (arXiv 2605.00474, VII-G): within [−1, 1], where the paper clamps.

    A map of zeros stays one; a map with a value that is not finite becomes NaN.
    """
    largest = map.abs().amax((-2, -1), keepdim=True)
    return map / largest.where(largest != 0, 1)


def at_pixels(map: Float[Tensor, "N h w"], size: tuple[int, int]) -> Float[Tensor, "N H W"]:
    """Maps of another size than the pixels' brought to it, bilinearly, as figures show them.

    Every metric does so before anything else. Raises `IerfError` for a tensor that holds no maps.
    """
    if map.ndim != 3 or 0 in map.shape[1:]:
        raise IerfError(f"maps are a tensor (samples, rows, columns), not {tuple(map.shape)}")
    map = map.to(torch.promote_types(map.dtype, torch.float32))
    if map.shape[1:] == size:
        return map
    return F.interpolate(map[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def constant(map: Float[Tensor, "N h w"]) -> Bool[Tensor, " N"]:
    """Which maps are the same everywhere: they prefer no pixel."""
    low, high = map.flatten(1).aminmax(dim=1)
    return low == high


def finite(map: Float[Tensor, "N h w"]) -> Bool[Tensor, " N"]:
    """Which samples have a map without NaN and infinity; the others have no score."""
    return map.isfinite().flatten(1).all(1)


LogitFunction = Callable[[Tensor], Float[Tensor, " N"]]
"""A function of the network's output, with one number per sample."""

Target = None | int | str | Sequence[int | str] | Int[Tensor, " N"] | LogitFunction
"""The class whose score counts, by index or name, one for all samples or one each; None: that predicted for x.

A function of the output, `lambda y: y[:, 3] - y[:, 5]`, is itself the score. `ierf.targets.Logit` is the class that it
names; targets at a layer are no score of the output.
"""

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
    batch: int = 64,
) -> Float[Tensor, "N S"]:
    """The score of each sample's class for `variants` variants of it, at most `batch` pictures in one forward pass.

    Evaluation mode, no gradients; the model comes back as it was. At least float32.

    Raises:
        IerfError: no such score or class, a number of targets that does not fit, outputs that are no logits.
    """
    if score not in get_args(Score):
        raise UnknownNameError("score", score, get_args(Score))
    if batch < 1:
        raise IerfError(f"batch is at least 1, not {batch}")
    target = model.indexed(getattr(target, "index", target) if type(target).__name__ == "Logit" else target)
    if callable(target) and score != "logit":
        raise IerfError(f"a target that is a function of the output is its own score; score={score!r} is of a class")
    with evaluating(model.net), torch.no_grad():
        chosen = None if callable(target) else _classes(model, pixels, target, batch)
        values = []
        for pair in torch.split(torch.arange(len(pixels) * variants, device=pixels.device), batch):
            i, s = pair // variants, pair % variants
            if chosen is None:
                values.append(_of_function(model(variant(i, s)), target))
                continue
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


def _classes(model: VisionModel, pixels: Tensor, target: Target, batch: int) -> Int[Tensor, " N"]:
    if target is None:
        return torch.cat([_logits(model, some).argmax(1) for some in torch.split(pixels, batch)])
    try:
        index = torch.as_tensor(target, device=pixels.device)
    except (TypeError, ValueError, RuntimeError):
        raise IerfError(
            "a target of a metric is a class index, one per picture, or a function of the network's output, "
            f"not {target!r}"
        ) from None
    floating = index.is_floating_point() and index.numel() > 0
    if floating or index.dtype == torch.bool or index.ndim > 1:
        raise IerfError(f"a target is a class index, or one per picture, not {target!r}")
    if not index.numel() or index.numel() not in (1, len(pixels)):
        raise IerfError(f"{index.numel()} targets for {len(pixels)} pictures; give one, or one per picture")
    if int(index.min()) < 0:
        raise IerfError(f"there is no class {int(index.min())}: classes are counted from 0")
    return index.long().expand(len(pixels))


def _of_function(output: Tensor, function: Any) -> Float[Tensor, " B"]:
    value = function(output)
    if not isinstance(value, Tensor) or value.shape != output.shape[:1]:
        got = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
        raise IerfError(f"a target function returns one number per picture, ({len(output)},), not {got}")
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _logits(model: VisionModel, images: Tensor) -> Float[Tensor, "B K"]:
    logits = model(images)
    if logits.ndim != 2:
        raise IerfError(f"the network returns {tuple(logits.shape)}, where logits (N, classes) were expected")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
