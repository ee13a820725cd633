"""Class activation maps: a feature map A whose channels are weighed by ∂y/∂A, or by the score with each of them.

Of a transformer, A is made of the tokens of the patches, in rows and columns; class and register tokens are left out.
Where the logits are read off a class token, they do not depend on the patches of the last block's output, so A is the
last map before whose patches they depend on: what enters the last block (the usual recipe is its first norm's output,
which resolution="blocks.11.norm1" takes in a network that names it so).
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ierf.attribution.objective import Objective, explaining_logits, for_rows, logit_value, portions, values_only
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.targets import Target
from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.rules import Backward, record
from ierf.rules.call import Call

Weigh = Callable[[Float[Tensor, "N K *map"], Float[Tensor, "N K *map"]], Float[Tensor, "N K *#map"]]
"""(A, ∂y/∂A) -> the weights of the channels, everywhere or position by position."""


def class_activation_map(
    weigh: Weigh, model: VisionModel, x: Tensor, target: Target, resolution: str, encoder: str | None
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k w_k A^k)` with weights made of A and its gradient, in one forward and one backward pass."""
    with explaining_logits(model, x, target) as y:
        a, slope = _feature_map_and_slope(y, resolution, encoder)
        return weighted(weigh(a, slope), a, resolution, tuple(y.pixels.shape[2:]))


def _feature_map_and_slope(
    y: Objective, resolution: str, encoder: str | None
) -> tuple[Float[Tensor, "N K *map"], Float[Tensor, "N K *map"]]:
    """`A` and `∂y/∂A` at the map for "low" (also for "input") or "high", or at a layer by name; of tokens, the patches.

    Raises `IerfError` where the logits depend on no patch: on a layer's prefix tokens only, or on nothing there.
    """
    run = y.record(y.pixels, encoder)
    node = map_node(run, resolution)
    value = logit_value(run.logits, y.target).sum()
    (slope,) = torch.autograd.grad(value, run.tape.nodes[node].tensor, retain_graph=True, allow_unused=True)
    if slope is None:
        raise IerfError(f"the logits do not depend on the feature map at {run.tape.describe(node)!r}")
    patches = _channels_first(run, node, slope)
    if bool(slope.any()) and not bool(patches.any()):
        raise IerfError(
            f"the logits depend on no patch of {run.tape.describe(node)!r}, only on its class or register tokens; "
            f"name an earlier layer, as {run.tape.describe(run.at('low'))!r}"
        )
    return feature_map(run, node), patches


def map_node(run: RecordedPass, resolution: str) -> int:
    """The node of the feature map that a resolution means. Raises `IerfError` for a layer without positions."""
    node = run.at("low" if resolution == "input" else resolution)
    if not run.tape.nodes[node].map_shape:
        raise IerfError(f"a class activation map needs a map with positions, and {run.tape.describe(node)!r} has none")
    return node


def feature_map(run: RecordedPass, node: int) -> Float[Tensor, "N K *map"]:
    """The feature map with its channels on axis 1, as a constant; of tokens, the patches in rows and columns."""
    return _channels_first(run, node, run.pfvs(node))


def _channels_first(run: RecordedPass, node: int, values: Tensor) -> Float[Tensor, "N K *map"]:
    return run.on_grid(node, values.movedim(run.tape.nodes[node].axis, 1))


def weighted(
    weights: Float[Tensor, "N K *#map"], a: Float[Tensor, "N K *map"], resolution: str, size: tuple[int, ...]
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k w_k A^k)`; at resolution "input" scaled up bilinearly to `size`, as the authors of Grad-CAM do."""
    cam = (weights * a).sum(1).clamp_min(0)
    return cam if resolution != "input" else enlarged(cam[:, None], size)[:, 0]


def enlarged(maps: Float[Tensor, "N K h w"], size: tuple[int, ...]) -> Float[Tensor, "N K H W"]:
    """Bilinear, edges aligned. Raises `IerfError` for token sequences whose rows and columns are unknown."""
    if maps.ndim != 4 or len(size) != 2:
        raise IerfError(
            f"a feature map with positions {tuple(maps.shape[2:])} cannot be scaled up to pixels {size}; "
            'name a layer whose map has rows and columns, or ask for resolution="low"'
        )
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def spatial_sum(maps: Float[Tensor, "N K *map"]) -> Float[Tensor, "N K *ones"]:
    """Sums over positions, whose axes stay."""
    return maps.sum(tuple(range(2, maps.ndim)), keepdim=True)


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """`numerator / denominator`, 0 where the denominator is 0."""
    return numerator / denominator.masked_fill(denominator == 0, torch.inf)


def gradcam(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k α_k A^k)` with `α` the spatial mean of ∂y/∂A (Selvaraju et al., arXiv 1610.02391, Eq. 1–2).

    `A` is the encoder output for resolution "low" and "input" (scaled up), the output of the layer at "high", or of
    the layer that `resolution` names; of a transformer, its patches.
    encoder: the layer to take as the encoder output; None finds it.
    """
    return class_activation_map(_averaged, model, x, target, resolution, encoder)


def _averaged(a: Float[Tensor, "N K *map"], slope: Float[Tensor, "N K *map"]) -> Float[Tensor, "N K *#map"]:
    return slope.mean(tuple(range(2, a.ndim)), keepdim=True)


def gradcam_pp(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k w_k A^k)`, `w_k = Σ_ij α_ij ReLU(g_ij)`, `α_ij = g_ij² / (2 g_ij² + Σ_ab A_ab g_ij³)`, `g = ∂y/∂A`.

    Chattopadhyay et al., arXiv 1710.11063: the score is exp y, whose derivatives are exp(y) gⁿ. Its
    factor exp(y), the same for the whole map of a sample, is left out. Computed as `α = 1 / (2 + g Σ A)`,
    which is the same and does not underflow.

    `A` is the encoder output for resolution "low" and "input" (scaled up), the output of the layer at "high", or of
    the layer that `resolution` names; of a transformer, its patches.
    encoder: the layer to take as the encoder output; None finds it.
    """
    return class_activation_map(_counted, model, x, target, resolution, encoder)


def _counted(a: Float[Tensor, "N K *map"], slope: Float[Tensor, "N K *map"]) -> Float[Tensor, "N K *#map"]:
    return spatial_sum(quotient(slope.clamp_min(0), 2 + spatial_sum(a) * slope))


def xgradcam(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k α_k A^k)`, `α_k = Σ_ij (A_ij^k / Σ_ab A_ab^k) ∂y/∂A_ij^k` (Fu et al., arXiv 2008.02312).

    A channel whose activations sum to 0 has no weight.

    `A` is the encoder output for resolution "low" and "input" (scaled up), the output of the layer at "high", or of
    the layer that `resolution` names; of a transformer, its patches.
    encoder: the layer to take as the encoder output; None finds it.
    """
    return class_activation_map(_weighted_by_activation, model, x, target, resolution, encoder)


def _weighted_by_activation(
    a: Float[Tensor, "N K *map"], slope: Float[Tensor, "N K *map"]
) -> Float[Tensor, "N K *#map"]:
    return quotient(spatial_sum(a * slope), spatial_sum(a))


def layercam(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k ReLU(∂y/∂A_ij^k) A_ij^k)` (Jiang et al., IEEE TIP 2021).

    `A` is the encoder output for resolution "low" and "input" (scaled up), the output of the layer at "high", or of
    the layer that `resolution` names; of a transformer, its patches.
    encoder: the layer to take as the encoder output; None finds it.
    """
    return class_activation_map(_by_position, model, x, target, resolution, encoder)


def _by_position(a: Float[Tensor, "N K *map"], slope: Float[Tensor, "N K *map"]) -> Float[Tensor, "N K *#map"]:
    return slope.clamp_min(0)


@renamed(at_once="batch")
def scorecam(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    encoder: str | None = None,
    batch: int = 64,
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k w_k A^k)`, `w = softmax_k y(x ⊙ H^k)`, `H^k` = A^k scaled up to the picture and to [0, 1].

    Wang et al., arXiv 1910.01279, Algorithm 1. The score of the baseline picture, which the paper subtracts, drops out
    of the softmax. A constant channel masks everything. No gradients; one forward pass per channel.

    Args:
        encoder: the layer to take as the encoder output; None finds it.
        batch: most masked images in one pass.
    """
    with explaining_logits(model, x, target) as y:
        run = y.record(y.pixels, encoder)
        a = feature_map(run, map_node(run, resolution))
        del run
        scores, size = a.new_zeros(a.shape[:2]), tuple(y.pixels.shape[2:])
        with torch.no_grad():
            for some, channels in portions(len(a), a.shape[1], batch):
                masks = _to_unit(enlarged(a[some, channels], size))
                scores[some, channels] = y(y.pixels[some, None] * masks[:, :, None], some)
        return weighted(scores.softmax(1).view(*scores.shape, *[1] * (a.ndim - 2)), a, resolution, size)


def _to_unit(maps: Float[Tensor, "N K H W"]) -> Float[Tensor, "N K H W"]:
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return quotient(maps - low, high - low)


@renamed(at_once="batch")
def ablationcam(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    encoder: str | None = None,
    batch: int = 64,
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k w_k A^k)`, `w_k = (y − y_k) / |y|`, `y_k` = y with channel k of A set to zero (of tokens: the patches).

    Desai & Ramaswamy, WACV 2020. The paper divides by y, which is positive for the classes it explains; |y|
    keeps the meaning of the sign for the others. No gradients; one forward pass per channel.

    Args:
        encoder: the layer to take as the encoder output; None finds it.
        batch: most ablated images in one pass.
    """
    with explaining_logits(model, x, target) as y:
        run = y.record(y.pixels, encoder)
        node = map_node(run, resolution)
        a, axis, inside = feature_map(run, node), run.tape.nodes[node].axis, _inside(run, node)
        whole = logit_value(run.logits, y.target).detach()
        del run
        ablated = a.new_zeros(a.shape[:2])
        with torch.no_grad():
            for some, channels in portions(len(a), a.shape[1], batch):
                one_hot = torch.eye(a.shape[1])[channels].to(a)
                ablated[some, channels] = _without(y, node, axis, inside, some, one_hot)
        weights = quotient(whole[:, None] - ablated, whole[:, None].abs())
        return weighted(weights.view(*weights.shape, *[1] * (a.ndim - 2)), a, resolution, tuple(y.pixels.shape[2:]))


def _inside(run: RecordedPass, node: int) -> Float[Tensor, "*#map"]:
    """1 at the positions that belong to A: at all of a map, at the patches of a sequence of tokens."""
    entry, grid = run.tape.nodes[node], run.grid(node)
    if grid is None:
        return entry.tensor.new_ones([1] * len(entry.map_shape))
    return grid.to_tokens(entry.tensor.new_ones(grid.rows, grid.columns), entry.positions)


def _without(
    y: Objective,
    node: int,
    axis: int,
    inside: Float[Tensor, "*#map"],
    some: slice,
    channels: Float[Tensor, "k K"],
) -> Float[Tensor, "n k"]:
    """`y` of each sample without each of the channels, given one-hot, of the tensor at `node`."""
    n, k = some.stop - some.start, len(channels)
    removed = channels.repeat(n, 1).view(n * k, -1, *[1] * inside.ndim) * inside
    kept = (1 - removed).movedim(1, axis)
    done = False

    def ablating(call: Call) -> Any:
        nonlocal done
        output = values_only(call)
        if call.place.node != node or not isinstance(output, Tensor):
            return output
        done = True
        return output * kept

    rows = torch.arange(len(y.pixels))[some].repeat_interleave(k)
    tape = record(y.net, y.pixels[rows.to(y.pixels.device)], {}, ablating, Backward(), y.forward.recorded)
    if not done:
        raise IerfError(f"cannot set channels to zero at {tape.describe(node)!r}; name another layer")
    return logit_value(tape.settle(tape.output), for_rows(y.target, rows, len(y.pixels))).view(n, k)
