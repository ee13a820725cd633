"""Interlayer concept attribution: what each concept of one layer does for concepts of a later one, or for classes."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ierf.concepts import Codes
from ierf.errors import IerfError
from ierf.graph.influence.edges import LOGITS, Between, Edges, coded, fitting
from ierf.graph.influence.scores import Alignment, Logits
from ierf.model import VisionModel
from ierf.model.following import Values


def icat(
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
    target_codes: Float[Tensor, "R T"] | Codes | None = None,
    source_shift: Float[Tensor, " C"] | None = None,
    target_shift: Float[Tensor, " D"] | None = None,
    lam: float = 0.1,
    values: Values = "pre-activation",
    **options: Any,
) -> Edges:
    """`ICAT(v_q → v_t) = Σ_p AT(u_pq, S_t)`, `S_t = Σ_i u_it cos(M_ab(X̂)_i, v_t)` (arXiv 2605.00474, Eq. 13–14).

    X̂ = U V + shift takes the place of the source's PFVs and runs through the layers between (`ierf.model.Section`).
    Of X̂ only U V is scaled; the shift stays, so that S(0⁺) is the score of the shift alone. With a target shift,
    `M_ab(X̂)_i − shift` is compared: the target's atoms and codes start from there. Classes are targets by their
    logit, which gives the importance of nodes (Sec. VI-A2).

    Args:
        x: one image.
        target: a later layer; None or "logits" for `classes`.
        target_atoms: the concepts of the later layer that edges go to.
        classes: default: the predicted class.
        method: one of `ierf.graph.METHODS`.
        source_codes, target_codes: coefficients of this image, all positions row-major; default: the Lasso's over the
            atoms given here, with `lam`.
        values: which PFVs the concepts describe, see `ierf.model.capture`.
        options: of the method: `steps`, `tolerance`, `most_steps` (ig), `samples` (kernel_shap), `seed` (random,
            kernel_shap).

    Raises an `IerfError` where the network cannot be cut, and for atoms and codes that do not fit.
    """
    between = Between.of(model, x, source, target, source_atoms, source_codes, source_shift, lam, values)
    if target in (None, LOGITS):
        return between.edges(Logits(between.classes(classes)), method, options)
    assert target is not None
    atoms = fitting(target_atoms, between.target, target)
    shift = None if target_shift is None else target_shift.to(atoms)
    codes = coded(between.target, atoms, shift, lam) if target_codes is None else target_codes
    dense = codes.dense() if isinstance(codes, Codes) else codes
    if dense.shape != (len(between.target), len(atoms)):
        raise IerfError(
            f"the target's codes are (positions, targets) = {(len(between.target), len(atoms))}, "
            f"not {tuple(dense.shape)}"
        )
    return between.edges(Alignment(atoms, dense.to(atoms), shift), method, options)
