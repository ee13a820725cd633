"""Where edges act: their values position by position."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.graph.building.illustrating import on_map
from ierf.graph.building.taking import Taken
from ierf.graph.structure.cells import Cells

SIDE = 14
"""Cells on a side, at most: there are far more edges than nodes."""

Places = dict[tuple[int, int], Cells]
"""By the places of source and target in their rows."""


def acting(taken: Taken, slopes: Float[Tensor, "T P C"], chosen: Sequence[int]) -> Places:
    """`AT(u_pq, S_t) = u_pq ⟨∫ ∂S_t/∂X̂_p dα, v_q⟩` of each chosen concept and target, over rows and columns."""
    some = torch.tensor(chosen, dtype=torch.long, device=taken.pfvs.device)
    along = torch.einsum("tpc,qc->qtp", slopes, taken.concepts.atoms.to(slopes)[some])
    values = (taken.columns(some).T[:, None] * along).cpu()
    return {
        (q, t): Cells.of(on_map(taken, of_edge), SIDE)
        for q, of_source in enumerate(values)
        for t, of_edge in enumerate(of_source)
    }
