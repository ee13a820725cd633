"""What the concepts of one layer, and its residual, add to scores further on; importances for the classes (VI-A2)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError
from ierf.graph.building.encoding import EncodedLayer, EncodedLayers, values_of
from ierf.graph.concept_graph import MOST_STEPS
from ierf.graph.influence.integrated_gradients import ScaleInvarianceError, integrated_gradients
from ierf.graph.influence.layer_objective import Attribution, LayerObjective
from ierf.graph.influence.scores import Alignment, Logits, Score
from ierf.model import Section, VisionModel
from ierf.progress import StepCounter

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank

EncodedPhotograph = tuple[Float[Tensor, "1 3 H W"], EncodedLayers]
"""Its pixels, and its layers written with concepts."""


@dataclass(frozen=True, eq=False)
class LayerAttribution:
    """What one layer's concepts and its residual add to each target's score."""

    concepts: Attribution
    residual: Float[Tensor, " T"]

    @property
    def values(self) -> Float[Tensor, "T K"]:
        """`Σ_p AT(u_pk, S_t)` of all concepts."""
        return self.concepts.x.spread(self.concepts.values.T).T

    @property
    def slopes(self) -> Float[Tensor, "T P C"]:
        """`∫ ∂S_t / ∂X̂_p dα`."""
        assert self.concepts.slopes is not None
        return self.concepts.slopes

    @property
    def completeness_error(self) -> float:
        """The largest of a target whose score changes at all."""
        return float(self.concepts.completeness_error.max())


@dataclass(frozen=True)
class Attributor:
    """What is the same for all photographs: the network, cut once for each pair of layers."""

    model: VisionModel
    bank: "ConceptBank"
    layers: tuple[str, ...]
    classes: tuple[int, ...]
    steps: int
    example: Float[Tensor, "1 3 H W"]
    progress: StepCounter = field(default_factory=StepCounter)
    most_steps: int = MOST_STEPS
    mapped: bool = False
    """Whether edges say where they act."""
    sections: dict[tuple[str, str | None], Section] = field(default_factory=dict)

    def section(self, source: str, target: str | None) -> Section:
        if (source, target) not in self.sections:
            values = values_of(self.bank)
            self.sections[source, target] = Section.of(self.model, self.example, source, target, values)
        return self.sections[source, target]

    def to_classes(self, source: EncodedLayer) -> LayerAttribution:
        """Scores are the classes' logits."""
        return self._attributed(source, None, Logits(self.classes))

    def to_concepts(self, source: EncodedLayer, target: EncodedLayer, chosen: Sequence[int]) -> LayerAttribution:
        """Scores are alignments with concepts of the target layer (Eq. 13)."""
        some = torch.tensor(chosen, device=target.pfvs.device)
        score = Alignment(target.concepts.atoms.to(target.pfvs)[some], target.columns(some), target.made.shift)
        return self._attributed(source, target.concepts.name, score)

    def of_whole(self, source: EncodedLayer, target: str | None, score: Score) -> Attribution:
        """What concepts and residual of a layer add to the network's own scores, see `EncodedLayer.whole`."""
        objective = LayerObjective(self.section(source.concepts.name, target), score)
        try:
            return integrated_gradients(source.whole, objective, steps=self.steps, most_steps=self.most_steps)
        except ScaleInvarianceError:
            raise _without_bias(source.concepts.name, target) from None

    def _attributed(self, source: EncodedLayer, target: str | None, score: Score) -> LayerAttribution:
        objective = LayerObjective(self.section(source.concepts.name, target), score)
        try:
            found = integrated_gradients(source.made, objective, steps=self.steps, most_steps=self.most_steps)
        except ScaleInvarianceError:
            raise _without_bias(source.concepts.name, target) from None
        return LayerAttribution(found, residual_values(objective.values(source.pfvs[None])[0], found.end))


def _without_bias(source: str, target: str | None) -> IerfError:
    return IerfError(
        f"edges from {source} to {target or 'the classes'} have no value: no bias lies between them and the bank has "
        "no shift there, so that scores do not depend on how much of the concepts is there; take layers with a bias "
        "between them"
    )


def residual_values(of_layer: Float[Tensor, " T"], of_concepts: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """`S(X) − S(X̂)` for each target: what the score gains from the part of the layer that no concept covers.

    With integrated gradients `Σ_q AT_q = S(X̂) − S(0)`, so that concepts and residual add up to `S(X) − S(0)`.
    """
    return of_layer - of_concepts


@dataclass(eq=False)
class LayerMeans:
    """Means over photographs for one layer; of `kkt` and `completeness_error` the largest."""

    importance: Float[Tensor, "T K"]
    """`Σ_p AT(u_pk, logit_t)`."""
    residual: Float[Tensor, " T"]
    logits: Float[Tensor, " T"]
    """With X̂ in the place of X."""
    strengths: Float[Tensor, " K"]
    prefix_strengths: Float[Tensor, " K"]
    active: float
    l0: float
    residual_share: float
    kkt: float
    completeness_error: float

    def add(self, other: "LayerMeans", share: float) -> None:
        """Another photograph's, which is this share of them all."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            worst = name in ("kkt", "completeness_error")
            setattr(self, name, max(mine, value) if worst else mine * (1 - share) + value * share)


@dataclass(eq=False)
class Importances:
    """Of all layers, and what the network says of the photographs."""

    layers: dict[str, LayerMeans]
    logits: Float[Tensor, " K"]
    probabilities: Float[Tensor, " K"]


def importances(work: Attributor, photographs: Iterable[EncodedPhotograph]) -> Importances:
    """Means over one photograph or more; one at a time is in memory."""
    found: Importances | None = None
    for number, (x, layers) in enumerate(photographs, 1):
        here = _of_photograph(work, x, layers)
        if found is None:
            found = here
            continue
        share = 1 / number
        found.logits = found.logits * (1 - share) + here.logits * share
        found.probabilities = found.probabilities * (1 - share) + here.probabilities * share
        for layer, means in found.layers.items():
            means.add(here.layers[layer], share)
    assert found is not None
    return found


def _of_photograph(work: Attributor, x: Float[Tensor, "1 3 H W"], layers: EncodedLayers) -> Importances:
    with torch.no_grad():
        logits = work.model(x)[0].cpu().double()
    found = {}
    for layer, encoded in layers.items():
        work.progress.begin(f"concepts of {layer}")
        found[layer] = _of_layer(work, encoded)
    return Importances(found, logits, logits.softmax(0))


def _of_layer(work: Attributor, encoded: EncodedLayer) -> LayerMeans:
    found = work.to_classes(encoded)
    return LayerMeans(
        importance=found.values.cpu(),
        residual=found.residual.cpu(),
        logits=found.concepts.end.cpu(),
        strengths=encoded.strengths.cpu(),
        prefix_strengths=encoded.prefix_strengths.cpu(),
        active=float(len(encoded.made.active)),
        l0=encoded.l0,
        residual_share=encoded.residual_share,
        kkt=encoded.kkt,
        completeness_error=found.completeness_error,
    )
