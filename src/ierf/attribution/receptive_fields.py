"""Instance-specific effective receptive fields: for each of many PFVs, the pixels that caused it."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.attribution.srd import SRDPass, srd_pass
from ierf.attribution.starts import check_positions
from ierf.attribution.stencils import fields_by_stencils, stretches, worth
from ierf.attribution.targets import Position
from ierf.errors import IerfError
from ierf.model import VisionModel, as_vision_model
from ierf.rules import SRDRules
from ierf.rules.layout import Field


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
    """The iERF of each PFV of `layer` at `positions` (row, column): a signed map over the pixels.

    `iERF_j = Σ_i μ_ij iERF_i`, with one-hot maps at the pixels (arXiv 2605.00474, Eq. 2). Each sums to 1 with
    `bias="norm"`, unless relevance leaks at dead PFVs. One forward pass serves all positions. Few are carried back one
    by one, those whose theoretical receptive fields cannot overlap in one pass; many come from stencils of sharing
    ratios, see `ierf.attribution.stencils`.

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
    passes = groups_without_overlap(wanted, entry.fields, size)
    way = stretches(run, node)
    if way is not None and worth(run, way, len(passes)):
        return fields_by_stencils(run, way, wanted)
    result = pixels.new_zeros(len(pixels), len(wanted), *run.tape.nodes[0].map_shape)
    for members in _portions(passes, batch):
        relevance = pixels.new_zeros(len(members), len(pixels), *size)
        for i, group in enumerate(members):
            here: tuple[Any, ...] = (i, slice(None), *wanted[group].unbind(1))
            relevance[here] = 1
        (maps,) = run.carry(node, run.cotangent(node, relevance), [0])
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


def groups_without_overlap(
    positions: Tensor, fields: tuple[Field, ...] | None, size: tuple[int, ...]
) -> list[list[int]]:
    """Positions (P, axes) in as few groups as come easily, such that no two of a group see a common pixel.

    Greedy: each position joins the first group in which no earlier one is nearer than the width of a window.
    """
    if fields is None or len(fields) != positions.shape[1]:
        return [[p] for p in range(len(positions))]
    reach = [(f.high - f.low) // f.stride for f in fields]
    if all(r >= side for r, side in zip(reach, size, strict=True)):
        return [[p] for p in range(len(positions))]
    groups: list[list[int]] = []
    taken = np.zeros((64, *size), dtype=bool)
    for p, position in enumerate(positions.tolist()):
        if taken[(slice(None), *position)].all():
            taken = np.concatenate([taken, np.zeros_like(taken)])
        group = int(taken[(slice(None), *position)].argmin())
        if group == len(groups):
            groups.append([])
        groups[group].append(p)
        near: tuple[Any, ...] = tuple(slice(max(0, i - r), i + r + 1) for i, r in zip(position, reach, strict=True))
        taken[(group, *near)] = True
    return groups


def _portions(groups: list[list[int]], size: int) -> Iterator[list[list[int]]]:
    for i in range(0, len(groups), size):
        yield groups[i : i + size]
