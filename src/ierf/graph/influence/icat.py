"""Interlayer concept attribution: what each concept of one layer does for concepts of a later one, or for classes.

ICAT (arXiv 2605.00474, Eq. 13–14) and GIG, the earlier score of the same authors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ierf.concepts import Codes, lasso
from ierf.errors import IerfError, UnknownNameError
from ierf.graph.elements import LOGITS
from ierf.graph.influence.baselines import (
    coefficient_size,
    deeplift,
    gradient_x_input,
    kernel_shap,
    lrp,
    random,
)
from ierf.graph.influence.integrated_gradients import integrated_gradients
from ierf.graph.influence.layer_objective import Attribution, LayerObjective, Reconstruction
from ierf.graph.influence.scores import Alignment, Logits, Probabilities, Projection, Score
from ierf.model import Section, Values, VisionModel, as_vision_model, capture, evaluating

METHODS: Mapping[str, Callable[..., Attribution]] = {
    "ig": integrated_gradients,
    "gradient_x_input": gradient_x_input,
    "deeplift": deeplift,
    "lrp": lrp,
    "kernel_shap": kernel_shap,
    "random": random,
    "coefficient_size": coefficient_size,
}
"""Attributions of a concept's coefficients, `AT(u_pq, S)`, by name."""

ScoreName = Literal["alignment", "projection"]
"""What edges lead to: `Alignment` and `Logits` (ICAT), or `Projection` and `Probabilities` (GIG)."""


@dataclass(frozen=True, eq=False)
class Edges:
    """From all concepts of the source to the targets; those without a coefficient in the image have 0."""

    attribution: Attribution
    method: str

    @property
    def values(self) -> Float[Tensor, "Q T"]:
        """`Σ_p AT(u_pq, S_t)` (arXiv 2605.00474, Eq. 14), signed."""
        return self.attribution.x.spread(self.attribution.values.T)

    @cached_property
    def by_position(self) -> Float[Tensor, "Q T P"]:
        """`AT(u_pq, S_t)`. Raises `IerfError` for KernelSHAP, which takes concepts away at all positions at once."""
        products = self.attribution.products
        if self.attribution.slopes is not None:
            products = self.attribution.x.products(self.attribution.slopes)
        if products is None:
            raise IerfError(f"{self.method!r} attributes to whole concepts; take another method for positions")
        return self.attribution.x.spread(products.permute(2, 0, 1))

    @property
    def active(self) -> Int[Tensor, " A"]:
        """Concepts of the source that have a coefficient in the image."""
        return self.attribution.x.active

    @property
    def score(self) -> Float[Tensor, " T"]:
        """`S(X̂)`."""
        return self.attribution.end

    @property
    def start(self) -> Float[Tensor, " T"]:
        """`S(0⁺)`: of the shift alone."""
        return self.attribution.start

    @property
    def completeness_error(self) -> Float[Tensor, " T"]:
        """`|Σ_q values − (S(X̂) − S(0⁺))| / |S(X̂) − S(0⁺)|`."""
        return self.attribution.completeness_error

    @property
    def steps(self) -> Int[Tensor, " T"] | None:
        """How many points integrated gradients took for each target."""
        return self.attribution.steps


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
    score: ScoreName = "alignment",
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
        score: "alignment", ICAT's; "projection", GIG's: see `gig`.
        values: which PFVs the concepts describe, see `ierf.model.capture`.
        options: of the method: `steps`, `tolerance`, `most_steps` (ig), `samples` (kernel_shap), `seed` (random,
            kernel_shap).

    Raises an `IerfError` where the network cannot be cut, and for atoms and codes that do not fit.
    """
    if score not in get_args(ScoreName):
        raise UnknownNameError("score", score, get_args(ScoreName))
    if score == "projection" and target_codes is not None:
        raise IerfError("projections take no coefficients of the target; leave target_codes out, or take alignments")
    between = Between.of(model, x, source, target, source_atoms, source_codes, source_shift, lam, values)
    if target in (None, LOGITS):
        of_classes = Logits if score == "alignment" else Probabilities
        return between.edges(of_classes(between.classes(classes)), method, options)
    assert target is not None
    atoms = fitting(target_atoms, between.target, target)
    shift = None if target_shift is None else target_shift.to(atoms)
    if score == "projection":
        return between.edges(Projection(atoms, shift), method, options)
    codes = coded(between.target, atoms, shift, lam) if target_codes is None else target_codes
    dense = codes.dense() if isinstance(codes, Codes) else codes
    if dense.shape != (len(between.target), len(atoms)):
        raise IerfError(
            f"the target's codes are (positions, targets) = {(len(between.target), len(atoms))}, "
            f"not {tuple(dense.shape)}"
        )
    return between.edges(Alignment(atoms, dense.to(atoms), shift), method, options)


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

    It is `icat` with `score="projection"`, whose arguments and errors it has; the target needs no codes.
    """
    return icat(
        model,
        x,
        source,
        target,
        source_atoms=source_atoms,
        target_atoms=target_atoms,
        classes=classes,
        method=method,
        source_codes=source_codes,
        source_shift=source_shift,
        target_shift=target_shift,
        score="projection",
        lam=lam,
        values=values,
        **options,
    )


@dataclass(frozen=True, eq=False)
class Between:
    """One image at the source, written with concepts, and the layers from there to the target."""

    section: Section
    x: Reconstruction
    target: Float[Tensor, "R D"]
    """The target's PFVs in the untouched image, or its logits (1, K)."""

    @classmethod
    def of(
        cls,
        model: VisionModel | nn.Module,
        image: Float[Tensor, "1 3 H W"],
        source: str,
        target: str | None,
        atoms: Float[Tensor, "Q C"],
        codes: Float[Tensor, "P Q"] | Codes | None,
        shift: Float[Tensor, " C"] | None,
        lam: float,
        values: Values,
    ) -> "Between":
        """The cut, tried out. Codes are the Lasso's with `lam` where they are not given."""
        model = as_vision_model(model)
        if image.ndim not in (3, 4) or (image.ndim == 4 and len(image) != 1):
            raise IerfError(f"edges are those of one image, (1, 3, H, W), not {tuple(image.shape)}; go through a batch")
        image = image.to(model.device, model.dtype).reshape(1, *image.shape[-3:])
        target = None if target == LOGITS else target
        with torch.no_grad():
            section = Section.of(model, image, source, target, values)
            found = capture(model, image, [source] if target is None else [source, target], values)
            own = found[source].pfvs[0]
            if target is not None:
                after = found[target].pfvs[0]
            else:
                with evaluating(model.net):
                    after = model(image)
        atoms = fitting(atoms, own, source)
        shift = None if shift is None else shift.to(own)
        used = coded(own, atoms, shift, lam) if codes is None else codes
        return cls(section, Reconstruction.of(used, atoms, shift), after)

    def edges(self, score: Score, method: str, options: Mapping[str, Any]) -> Edges:
        """The attributions of a score. Raises `UnknownNameError` for a method or an option that does not exist."""
        if method not in METHODS:
            raise UnknownNameError("attribution of concepts", method, METHODS)
        known = list(signature(METHODS[method]).parameters)[2:]
        for name in options:
            if name not in known:
                raise UnknownNameError(f"option of {method!r}", name, known)
        return Edges(METHODS[method](self.x, LayerObjective(self.section, score), **options), method)

    def classes(self, chosen: Sequence[int] | None) -> list[int]:
        """The classes asked for, or the predicted one. Raises `IerfError` for a class that does not exist."""
        count = self.target.shape[1]
        classes = [int(self.target.argmax())] if chosen is None else [int(c) for c in chosen]
        if not classes or not all(0 <= c < count for c in classes):
            raise IerfError(f"the network has classes 0 to {count - 1}; asked for {classes}")
        return classes


def fitting(atoms: Float[Tensor, "K C"] | None, pfvs: Float[Tensor, "P C"], layer: str) -> Float[Tensor, "K C"]:
    """Atoms in the type and place of the PFVs. Raises `IerfError` where there are none, or of other channels."""
    if atoms is None or atoms.ndim != 2 or atoms.shape[1] != pfvs.shape[1]:
        got = "none" if atoms is None else str(tuple(atoms.shape))
        raise IerfError(f"the concept vectors of {layer!r} are (number, {pfvs.shape[1]}); got {got}")
    return atoms.to(pfvs)


def coded(
    pfvs: Float[Tensor, "P C"], atoms: Float[Tensor, "K C"], shift: Float[Tensor, " C"] | None, lam: float
) -> Codes:
    """The Lasso's coefficients of PFVs, less the shift (Eq. 12)."""
    return lasso(pfvs if shift is None else pfvs - shift, atoms, lam).sparse
