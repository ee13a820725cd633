"""Instance-specific effective receptive fields: for each of many PFVs, the pixels that caused it (Eq. 2)."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ierf.attribution.attribute import RelevancePass, relevance_pass, usual_method
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.stencils import NUMBERS, Stretch, fields_by_stencils, spread, stencil, stretches, worth
from ierf.attribution.target_seeds import check_positions
from ierf.attribution.targets import Position
from ierf.attribution.token_grid import TokenGrid
from ierf.errors import IerfError, UnknownNameError
from ierf.model import VisionModel, as_vision_model
from ierf.rules import Backward
from ierf.rules.fields import Field

RESOLUTIONS = ("input", "patch")


def effective_receptive_fields(
    model: VisionModel | nn.Module,
    x: Float[Tensor, "N 3 H W"],
    layer: str,
    positions: Sequence[Position | int] | None = None,
    *,
    method: str | None = None,
    resolution: Literal["input", "patch"] = "input",
    batch: int = 4,
    **options: Any,
) -> Float[Tensor, "N P h w"]:
    """The iERF of each PFV of `layer` at `positions`: a signed map over the pixels, or a score for each patch.

    A feature map's position is (row, column), a token's its index, prefix tokens included, or a patch's (row, column).
    One forward pass serves all positions.

    "srd", the default for networks without attention: `iERF_j = Σ_i μ_ij iERF_i`, with one-hot maps at the pixels
    (arXiv 2605.00474, Eq. 2). Each sums to 1 with `bias="norm"`, unless relevance leaks at dead PFVs. Few positions are
    carried back one by one, those whose theoretical receptive fields cannot overlap in one pass; many come from
    stencils of sharing ratios, see `ierf.attribution.stencils`.

    "attnlrp", the default for networks with attention, and "cp_lrp": relevance 1 starts at the token, `a_k² / ‖a‖²` at
    its channel k.
    At resolution "patch" the score of a patch is `‖R_q‖₂` over the channels of its token where patches have become
    tokens (Sec. III-D): a map of rows and columns, not signed.

    Args:
        positions: all positions of the layer, in row-major order, if None.
        options: of the method's rules: bias (srd), conv_gamma and linear_gamma (attnlrp, cp_lrp), unknown.
        batch: backward passes at once, which bounds the memory.

    The result takes `N · P · H · W` floats; ask for positions in portions where that is too much.
    """
    vision_model = as_vision_model(model)
    if resolution not in RESOLUTIONS:
        raise UnknownNameError("resolution of iERFs", resolution, RESOLUTIONS)
    with relevance_pass(
        vision_model, x, method or usual_method(vision_model), options, backward=Backward(many=True)
    ) as run:
        node = run.layer(layer)
        wanted = _positions(run, node, layer, positions)
        return _pixels(run, node, wanted, batch) if resolution == "input" else _patches(run, node, wanted, batch)


def _positions(
    run: RelevancePass, node: int, layer: str, positions: Sequence[Position | int] | None
) -> Int[Tensor, "P axes"]:
    size = run.tape.nodes[node].map_shape
    if positions is None:
        return torch.cartesian_prod(*map(torch.arange, size)).view(-1, len(size))
    wanted = _as_rows(positions, len(size), layer, run.grid(node))
    check_positions(wanted, size, layer)
    return wanted


def _pixels(run: RelevancePass, node: int, wanted: Int[Tensor, "P axes"], batch: int) -> Float[Tensor, "N P H W"]:
    entry, fields, pixels = run.tape.nodes[node], run.tape.fields(node), run.pfvs(0)
    windows = pixel_windows(wanted, fields, run.tape.nodes[0].map_shape)
    passes = groups_without_overlap(wanted, fields, entry.map_shape)
    way = stretches(run, node)
    if way is not None and worth(run, way, len(passes)):
        return fields_by_stencils(run, way, wanted)
    result = pixels.new_zeros(len(pixels), len(wanted), *run.tape.nodes[0].map_shape)
    for members in _portions(passes, batch):
        (maps,) = run.carry(node, _hot(run, node, [wanted[group] for group in members]), [0])
        for shared, group in zip(maps, members, strict=True):
            for p in group:
                window: tuple[Any, ...] = tuple(slice(low, high) for low, high in windows[p].tolist())
                result[(slice(None), p, *window)] = shared[(slice(None), *window)]
    return result


def _patches(run: RelevancePass, node: int, wanted: Int[Tensor, "P axes"], batch: int) -> Float[Tensor, "N P h w"]:
    """`‖R_q‖₂` of every patch's token."""
    first = run.first_tokens(node)
    entry, scores = run.tape.nodes[first], []
    for some in torch.split(wanted, batch):
        (gradient,) = run.back(node, _hot(run, node, list(some[:, None])), [first])
        scores.append(run.on_grid(first, (gradient * run.pfvs(first)).norm(dim=entry.axis + 1)))
    return torch.cat(scores).transpose(0, 1)


def _hot(run: RelevancePass, node: int, groups: Sequence[Int[Tensor, "p axes"]]) -> Float[Tensor, "B N ..."]:
    """For each group of positions the gradient that carries relevance 1 at every one of them."""
    relevance = run.pfvs(node).new_zeros(len(groups), len(run.pfvs(node)), *run.tape.nodes[node].map_shape)
    for i, group in enumerate(groups):
        here: tuple[Any, ...] = (i, slice(None), *group.unbind(1))
        relevance[here] = 1
    return run.cotangent(node, relevance)


def _as_rows(positions: Sequence[Position | int], axes: int, layer: str, grid: TokenGrid | None) -> Tensor:
    try:
        given = torch.as_tensor(positions, dtype=torch.long)
        if grid is not None and given.shape[1:] == (2,):
            return grid.index(given)
        return given.reshape(len(positions), axes)
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


# iERFs that start at several layers: they share the way down to the pixels.

Maps = Mapping[int, Float[Tensor, "N D *map"]]
"""Node -> relevance at its positions, D maps for each sample."""


def joint_fields(run: RecordedPass, starts: Maps) -> dict[int, Float[Tensor, "N D H W"]]:
    """The relevance of each pixel for the maps of every node."""
    way = stretches(run, max(starts))
    if way is None or not {s.after for s in way}.issuperset(starts):
        return {node: carried(run, node, maps, 0) for node, maps in starts.items()}
    here: dict[int, Tensor] = {}
    for by_stencil, leg in _legs(run, way, starts):
        upper, lower = leg[0].after, leg[-1].before
        below = {k: carried(run, upper, maps, lower) for k, maps in here.items() if not by_stencil}
        new = [k for k in starts if lower < k <= upper]
        if by_stencil:
            here |= {k: starts[k] for k in new}
            counts = [maps.shape[1] for maps in here.values()]
            whole = spread(stencil(run, leg[0]), leg[0], torch.cat(list(here.values()), 1))
            below = dict(zip(here, torch.split(whole, counts, 1), strict=True))
        else:
            below |= {k: carried(run, k, starts[k], lower) for k in new}
        here = below
    return {node: here[node] for node in starts}


def carried(run: RecordedPass, node: int, maps: Float[Tensor, "N D *map"], stop: int) -> Float[Tensor, "N D *stop"]:
    """The relevance that the maps of `node` bring to `stop`, by one backward pass for each of them."""
    return torch.stack([run.carry(node, run.cotangent(node, one), [stop])[0] for one in maps.unbind(1)], 1)


def _legs(run: RecordedPass, way: Sequence[Stretch], starts: Maps) -> Iterator[tuple[bool, list[Stretch]]]:
    """Stretches to cross by their stencils, one by one, and runs of such as backward passes cross at once."""

    def by_stencil(stretch: Stretch) -> bool:
        crossing = sum(maps.shape[1] for node, maps in starts.items() if node >= stretch.after)
        return stretch.passes < crossing and stretch.numbers * len(run.pfvs(0)) <= NUMBERS

    for chosen, some in groupby(way, by_stencil):
        if chosen:
            yield from ((True, [stretch]) for stretch in some)
        else:
            yield False, list(some)
