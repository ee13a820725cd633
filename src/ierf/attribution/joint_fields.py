"""iERFs that start at several layers: they share the way down to the pixels.

What comes down from K maps to a layer crosses the stretch below it K times, or once for each pass that reads its
stencil (`ierf.attribution.stencils`), whichever is less. The more layers lie above, the more the stencil saves.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.recorded import RecordedPass
from ierf.attribution.stencils import NUMBERS, Stretch, spread, stencil, stretches

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
