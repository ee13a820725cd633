"""What an attribution between two layers of one image starts from, and what it gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ierf.concepts import Codes, lasso
from ierf.errors import IerfError, UnknownNameError
from ierf.graph.influence.attributions import METHODS, Attribution, Question
from ierf.graph.influence.reconstruction import Reconstruction
from ierf.graph.influence.scores import Score
from ierf.model import Section, VisionModel, as_vision_model, capture, evaluating
from ierf.model.following import Values

LOGITS = "logits"
"""The name of the target that is no layer: classes are its concepts."""


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
        return Edges(METHODS[method](self.x, Question(self.section, score), **options), method)

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
