"""All iERFs of a layer for the price of a few backward passes (arXiv 2605.00474, Eq. 2 and 3).

At an activation that every path passes, relevance is one scalar per position: whatever comes back is reduced to
`R_j = ⟨a_j, g_j⟩`. Between two such layers the sharing ratios `μ_ij` are therefore plain numbers, a small window of
them for each position (the stencil), and `R_i = Σ_j μ_ij R_j` no longer touches a channel. A stencil is read off by
carrying relevance 1 from positions whose windows do not overlap, all at once, or computed where the stretch is a single
convolution; then any number of iERFs follows by sums over windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ierf.attribution.recorded import RecordedPass
from ierf.rules.bias import Affine
from ierf.rules.fields import Field
from ierf.rules.primitives import inverse_square
from ierf.rules.sharing_ratio import sharing_ratios
from ierf.rules.window import Window

NUMBERS = 1 << 26
"""At most this many numbers at once (256 MiB in float32)."""


@dataclass(frozen=True)
class Stretch:
    """The part of the network between two scalar layers, `after` downstream of `before`.

    On each axis position `p` of `after` sees positions `stride·p + low … stride·p + high` of `before`.
    """

    before: int
    after: int
    fields: tuple[Field, ...]
    size: tuple[int, ...]
    """Size of the map of `before`."""
    positions: tuple[int, ...]
    """Size of the map of `after`."""
    affine: Affine | None = None
    """What lies between, where that is one convolution with its activation function."""

    @property
    def window(self) -> Window:
        n = len(self.fields)
        kernel = tuple(f.high - f.low + 1 for f in self.fields)
        return Window(kernel, tuple(f.stride for f in self.fields), (0,) * n, (1,) * n)

    @property
    def spacing(self) -> tuple[int, ...]:
        """The distance at which the windows of two positions no longer overlap."""
        widths = [-(-(f.high - f.low + 1) // f.stride) for f in self.fields]
        return tuple(map(min, widths, self.positions))

    @property
    def numbers(self) -> int:
        """How many sharing ratios a sample has here."""
        return self.window.taps * prod(self.positions)

    @property
    def passes(self) -> int:
        """Backward passes through this stretch that read off its stencil, or work that is worth one."""
        return 1 if self.affine is not None else prod(self.spacing)

    @property
    def _canvas(self) -> list[tuple[int, int]]:
        """Cells to add in front of and behind `before`'s map on each axis, so that every window lies inside."""
        sides = zip(self.fields, self.size, self.positions, strict=True)
        return [(-f.low, (p - 1) * f.stride + f.high + 1 - s) for f, s, p in sides]

    def read(self, relevance: Tensor) -> Tensor:
        """`(N, *size)` -> `(N, window, *positions)`: what lies in each position's window."""
        padded = F.pad(relevance, [side for pair in reversed(self._canvas) for side in pair])
        window = self.window
        return window.gather(padded[:, None].expand(-1, window.taps, *padded.shape[1:]))

    def spread(self, values: Tensor) -> Tensor:
        """The inverse sum: `(N, window, *positions)` -> `(N, *size)`."""
        canvas = tuple(s + front + behind for s, (front, behind) in zip(self.size, self._canvas, strict=True))
        summed = self.window.scatter(values, canvas)[:, 0]
        return F.pad(summed, [-side for pair in reversed(self._canvas) for side in pair])


def stretches(run: RecordedPass, start: int) -> list[Stretch] | None:
    """The way from `start` down to the pixels in stretches between scalar layers; None if windows are not known."""
    nodes = run.tape.nodes
    scalar = [k for k in run.tape.cuts(start) if k in (0, start) or nodes[k].scalar]
    found = []
    for before, after in pairwise(scalar):
        fields = _relative(run.tape.fields(before), run.tape.fields(after))
        if fields is None or len(nodes[before].map_shape) != len(fields) or len(nodes[after].map_shape) != len(fields):
            return None
        one = _convolution(run, before, after)
        found.append(Stretch(before, after, fields, nodes[before].map_shape, nodes[after].map_shape, one))
    return found[::-1]


def _convolution(run: RecordedPass, before: int, after: int) -> Affine | None:
    """The only operation between two layers but for the activation function; None if it is not a convolution."""
    nodes = run.tape.nodes
    if not nodes[after].scalar or len(nodes[after].parents) != 1:
        return None
    v = nodes[nodes[after].parents[0]]
    affine = v.whole or v.affine
    if affine is None or affine.window is None or set(affine.window.dilation) != {1} or type(affine) is not Affine:
        return None
    return affine if affine.a is nodes[before].used else None


def _relative(before: tuple[Field, ...] | None, after: tuple[Field, ...] | None) -> tuple[Field, ...] | None:
    if before is None or after is None:
        return None
    return tuple(
        Field(b.stride // a.stride, (b.low - a.low) // a.stride, (b.high - a.high) // a.stride)
        for a, b in zip(before, after, strict=True)
    )


def worth(run: RecordedPass, way: Sequence[Stretch], passes: int) -> bool:
    """Whether reading stencils is cheaper than `passes` full backward passes, by the numbers that each one moves.

    Never where a stencil would not fit into the memory that is allowed.
    """
    if max(stretch.numbers for stretch in way) * len(run.pfvs(0)) > NUMBERS:
        return False
    cost = [sum(run.tape.nodes[k].tensor.numel() for k in range(s.before + 1, s.after + 1)) for s in way]
    return sum(c * s.passes for c, s in zip(cost, way, strict=True)) < passes * sum(cost)


def stencil(run: RecordedPass, stretch: Stretch) -> Tensor:
    """The sharing ratios of a stretch, `(N, window, *positions)`."""
    if stretch.affine is not None:
        with torch.no_grad():
            speaks = inverse_square(run.pfvs(stretch.after), 1) > 0
            return speaks * sharing_ratios(stretch.affine, run.pfvs(run.tape.nodes[stretch.after].parents[0]))
    n = len(run.pfvs(0))
    ratios = run.pfvs(0).new_zeros(n, stretch.window.taps, *stretch.positions)
    spacing = stretch.spacing
    for offset in torch.cartesian_prod(*map(torch.arange, spacing)).view(-1, len(spacing)).tolist():
        comb: tuple[Any, ...] = (..., *(slice(o, None, step) for o, step in zip(offset, spacing, strict=True)))
        relevance = ratios.new_zeros(n, *stretch.positions)
        relevance[comb] = 1
        (carried,) = run.carry(stretch.after, run.cotangent(stretch.after, relevance), [stretch.before])
        ratios[comb] = stretch.read(carried)[comb]
    return ratios


def fields_by_stencils(run: RecordedPass, way: Sequence[Stretch], positions: Tensor) -> Tensor:
    """iERFs of the PFVs at `positions` (P, axes) of the first stretch's upper layer, (N, P, *pixels)."""
    n, size = len(run.pfvs(0)), way[0].positions
    at_once = max(1, NUMBERS // (n * max(stretch.numbers for stretch in way)))
    ratios = [stencil(run, stretch) for stretch in way]
    portions = []
    for some in torch.split(positions, at_once):
        maps = torch.zeros(n, len(some), *size, dtype=ratios[0].dtype, device=ratios[0].device)
        here: tuple[Any, ...] = (slice(None), torch.arange(len(some)), *some.unbind(1))
        maps[here] = 1
        for stretch, mu in zip(way, ratios, strict=True):
            maps = spread(mu, stretch, maps)
        portions.append(maps)
    return torch.cat(portions, 1)


def spread(ratios: Tensor, stretch: Stretch, maps: Tensor) -> Tensor:
    """`R_i = Σ_j μ_ij R_j` for P maps of each sample, some at once: `(N, P, *positions)` -> `(N, P, *size)`."""
    at_once = max(1, NUMBERS // (len(maps) * stretch.numbers))
    parts = []
    for some in torch.split(maps, at_once, 1):
        weighted = ratios[:, None] * some[:, :, None]
        parts.append(stretch.spread(weighted.flatten(0, 1)).reshape(*some.shape[:2], *stretch.size))
    return torch.cat(parts, 1)
