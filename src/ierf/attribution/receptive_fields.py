"""Instance-specific effective receptive fields: for each of many PFVs, the pixels that caused it."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.attribution.srd import SRDPass, check_positions, srd_pass
from ierf.attribution.stencils import fields_by_stencils, stretches, worth
from ierf.attribution.targets import Position
from ierf.errors import IerfError
from ierf.model import VisionModel, as_vision_model
from ierf.rules import SRDRules
from ierf.rules.layout import Field

_NUMBERS = 1 << 26
"""At most about this many numbers at once where iERFs are put together from stencils (256 MiB in float32)."""


def effective_receptive_fields(
    model: VisionModel | nn.Module,
    x: Float[Tensor, "N 3 H W"],
    layer: str,
    positions: Sequence[Position] | None = None,
    *,
    bias: Literal["norm", "uniform", "drop"] = "norm",
    unknown: Literal["raise", "gradient"] = "raise",
    batch: int = 4,
) -> Float[Tensor, "N P H W"]:
    """The iERF of each PFV of `layer` at `positions` (row, column): a signed map over the pixels that sums to 1.

    `iERF_j = Σ_i μ_ij iERF_i`, with one-hot maps at the pixels (arXiv 2605.00474, Eq. 2), computed backwards from
    relevance 1 at `j`. One forward pass serves all positions; positions whose theoretical receptive fields cannot
    overlap share one backward pass, and backward passes run in batches.

    Args:
        positions: all positions of the layer, in row-major order, if None.
        bias, unknown: as in `ierf.attribute` with method "srd".
        batch: backward passes at once, which bounds the memory.

    The result takes `N · P · H · W` floats; ask for positions in portions where that is too much.
    """
    vision_model = as_vision_model(model)
    with srd_pass(vision_model, x, SRDRules(bias, unknown)) as run:
        return _fields(run, run.layer(layer), layer, positions, batch)


def _fields(
    run: SRDPass, node: int, layer: str, positions: Sequence[Position] | None, batch: int
) -> Float[Tensor, "N P H W"]:
    entry, pixels = run.tape.nodes[node], run.pfvs(0)
    size = entry.map_shape
    if positions is None:
        wanted = torch.cartesian_prod(*map(torch.arange, size)).view(-1, len(size))
    else:
        wanted = _as_rows(positions, len(size), layer)
    check_positions(wanted, size, layer)
    windows = pixel_windows(wanted, entry.fields, run.tape.nodes[0].map_shape)
    passes = groups_without_overlap(windows)
    way = stretches(run, node)
    if way is not None and worth(run, way, len(passes)):
        return fields_by_stencils(run, way, wanted, max(1, _NUMBERS // (16 * pixels[:, 0].numel())))
    result = pixels.new_zeros(len(pixels), len(wanted), *run.tape.nodes[0].map_shape)
    for members in _portions(passes, batch):
        relevance = pixels.new_zeros(len(members), len(pixels), *size)
        for i, group in enumerate(members):
            here: tuple[Any, ...] = (i, slice(None), *wanted[group].unbind(1))
            relevance[here] = 1
        (maps,) = run.carry(node, relevance, [0])
        for shared, group in zip(maps, members, strict=True):
            for p in group:
                window: tuple[Any, ...] = tuple(slice(low, high) for low, high in windows[p].tolist())
                result[(slice(None), p, *window)] = shared[(slice(None), *window)]
    return result


def _as_rows(positions: Sequence[Position], axes: int, layer: str) -> Tensor:
    try:
        return torch.as_tensor(positions, dtype=torch.long).reshape(len(positions), axes)
    except (TypeError, ValueError, RuntimeError) as error:
        raise IerfError(f"positions of {layer!r} are {axes} numbers each, as in [(7, 9)]; got {positions!r}") from error


def pixel_windows(positions: Tensor, fields: tuple[Field, ...] | None, size: tuple[int, ...]) -> Tensor:
    """For each position the pixels [low, high) that it can see, (P, axes, 2); all pixels where that is unknown."""
    full = torch.tensor([[0, side] for side in size])
    if fields is None or len(fields) != positions.shape[1]:
        return full.expand(len(positions), -1, -1)
    stride, low, high = torch.tensor([[f.stride, f.low, f.high] for f in fields]).unbind(1)
    start = positions * stride
    return torch.stack([start + low, start + high + 1], -1).clamp(full[:, :1], full[:, 1:])


def groups_without_overlap(windows: Tensor) -> list[list[int]]:
    """Positions sorted greedily into as few groups as come easily, no two windows of a group overlapping."""
    low, high = windows.unbind(-1)
    if len(windows) > 1 and bool((windows == windows[0]).all()):
        return [[p] for p in range(len(windows))]
    groups: list[list[int]] = []
    for p in range(len(windows)):
        for group in groups:
            apart = (low[group] >= high[p]) | (high[group] <= low[p])
            if bool(apart.any(1).all()):
                group.append(p)
                break
        else:
            groups.append([p])
    return groups


def _portions(groups: list[list[int]], size: int) -> Iterator[list[list[int]]]:
    for i in range(0, len(groups), size):
        yield groups[i : i + size]
