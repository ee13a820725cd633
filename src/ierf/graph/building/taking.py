"""What a bank's concepts make of photographs: each layer's PFVs, their codes, and what the codes give back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.graph.building.residual import residual_share
from ierf.graph.influence.reconstruction import Reconstruction
from ierf.model import VisionModel
from ierf.model.capture import capture
from ierf.model.following import Values

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank, LayerConcepts


@dataclass(frozen=True, eq=False)
class Taken:
    """One layer of one photograph, written with concepts."""

    concepts: "LayerConcepts"
    pfvs: Float[Tensor, "P C"]
    made: Reconstruction
    """`X̂ = U V + shift`."""
    l0: float
    """Concepts with a coefficient at a position, on average."""
    kkt: float
    """The largest KKT residual of a code, relative to λ."""

    @property
    def residual_share(self) -> float:
        """`‖X − X̂‖ / ‖X − shift‖`."""
        return residual_share(self.pfvs, self.made.full, self.made.shift)

    @property
    def strengths(self) -> Float[Tensor, " K"]:
        """`Σ_p |u_pk|`."""
        return self.made.spread(self.made.codes.abs().sum(0))

    @property
    def prefix_strengths(self) -> Float[Tensor, " K"]:
        """The part of `strengths` that lies at tokens in front of the patches."""
        return self.made.spread(self.made.codes[: self.concepts.prefix_tokens or 0].abs().sum(0))

    def columns(self, concepts: Int[Tensor, " Q"]) -> Float[Tensor, "P Q"]:
        """The coefficients of some concepts at all positions; 0 for those that are not active."""
        places = self.made.active[:, None] == concepts.to(self.made.active.device)
        return self.made.codes @ places.to(self.made.codes)


def take(
    model: VisionModel, bank: "ConceptBank", x: Float[Tensor, "1 3 H W"], layers: Sequence[str]
) -> dict[str, Taken]:
    """The codes of every layer, from one forward pass."""
    with torch.no_grad():
        found = capture(model, x, layers, values_of(bank))
        return {layer: _coded(bank.layer(layer), found[layer].pfvs[0]) for layer in layers}


def values_of(bank: "ConceptBank") -> Values:
    """What the bank's PFVs are; layers without an activation at their end have "output" in any bank."""
    return "pre-activation" if any(bank.layer(n).values == "pre-activation" for n in bank.layers) else "output"


def _coded(concepts: "LayerConcepts", pfvs: Float[Tensor, "P C"]) -> Taken:
    from ierf.concepts import lasso

    atoms, shift = concepts.atoms.to(pfvs), concepts.shift.to(pfvs)
    found = lasso(pfvs - shift, atoms, concepts.lam, concepts.positive)
    made = Reconstruction.of(found.sparse, atoms, shift)
    return Taken(concepts, pfvs, made, float(found.l0.mean()), float(found.kkt.max()))


Layers = Mapping[str, Taken]
