"""Generalised integrated gradients, the earlier score of the same authors."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ierf.concepts import Codes
from ierf.graph.influence.edges import LOGITS, Between, Edges, fitting
from ierf.graph.influence.scores import Probabilities, Projection
from ierf.model import VisionModel
from ierf.model.following import Values


def gig(
    model: VisionModel | nn.Module,
    x: Float[Tensor, "1 3 H W"],
    source: str,
    target: str | None = None,
    *,
    source_atoms: Float[Tensor, "Q C"],
    target_atoms: Float[Tensor, "T D"] | None = None,
    classes: Sequence[int] | None = None,
    method: str = "ig",
    source_codes: Float[Tensor, "P Q"] | Codes | None = None,
    source_shift: Float[Tensor, " C"] | None = None,
    target_shift: Float[Tensor, " D"] | None = None,
    lam: float = 0.1,
    values: Values = "pre-activation",
    **options: Any,
) -> Edges:
    """`GIG(v_q → v_t) = Σ_p AT(u_pq, Σ_i ⟨M_ab(X̂)_i − shift, v_t / ‖v_t‖⟩)` (GIG, Eq. 4–5); classes by their
    probability (Eq. 7).

    Arguments and errors are those of `icat`; the target needs no codes.
    """
    between = Between.of(model, x, source, target, source_atoms, source_codes, source_shift, lam, values)
    if target in (None, LOGITS):
        return between.edges(Probabilities(between.classes(classes)), method, options)
    assert target is not None
    atoms = fitting(target_atoms, between.target, target)
    return between.edges(Projection(atoms, None if target_shift is None else target_shift.to(atoms)), method, options)
