"""Class activation maps without gradients: each channel is weighed by what the score is with it, or without it."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.batching import portions
from ierf.attribution.cam import enlarged, feature_map, map_node, quotient, weighted
from ierf.attribution.objective import Objective, explaining_logits, for_rows, logit_value, values_only
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.targets import Target
from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.rules import Backward, record
from ierf.rules.call import Call


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
