"""What the concepts of one layer, and its residual, add to scores further on: of a concept, or of classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError
from ierf.graph.building.progress import Progress
from ierf.graph.building.residual import residual_values
from ierf.graph.building.taking import Taken, values_of
from ierf.graph.influence.attributions import Attribution, Question
from ierf.graph.influence.attributions.integrated_gradients import integrated_gradients
from ierf.graph.influence.attributions.without_scale import WithoutScaleError
from ierf.graph.influence.scores import Alignment, Logits, Score
from ierf.model import Section, VisionModel

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank

STEPS = 16
MOST_STEPS = 144


@dataclass(frozen=True, eq=False)
class Attributed:
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
class Attributing:
    """What is the same for all photographs: the network, cut once for each pair of layers."""

    model: VisionModel
    bank: "ConceptBank"
    layers: tuple[str, ...]
    classes: tuple[int, ...]
    steps: int
    example: Float[Tensor, "1 3 H W"]
    progress: Progress = field(default_factory=Progress)
    mapped: bool = False
    """Whether edges say where they act."""
    sections: dict[tuple[str, str | None], Section] = field(default_factory=dict)

    def section(self, source: str, target: str | None) -> Section:
        if (source, target) not in self.sections:
            values = values_of(self.bank)
            self.sections[source, target] = Section.of(self.model, self.example, source, target, values)
        return self.sections[source, target]

    def to_classes(self, source: Taken) -> Attributed:
        """Scores are the classes' logits."""
        return self._attributed(source, None, Logits(self.classes))

    def to_concepts(self, source: Taken, target: Taken, chosen: Sequence[int]) -> Attributed:
        """Scores are alignments with concepts of the target layer (Eq. 13)."""
        some = torch.tensor(chosen, device=target.pfvs.device)
        score = Alignment(target.concepts.atoms.to(target.pfvs)[some], target.columns(some), target.made.shift)
        return self._attributed(source, target.concepts.name, score)

    def _attributed(self, source: Taken, target: str | None, score: Score) -> Attributed:
        question = Question(self.section(source.concepts.name, target), score)
        try:
            found = integrated_gradients(source.made, question, steps=self.steps, most_steps=MOST_STEPS)
        except WithoutScaleError:
            raise IerfError(
                f"edges from {source.concepts.name} to {target} have no value: no bias lies between them and the "
                "bank has no shift there, so that scores do not depend on how much of the concepts is there; take "
                "layers with a bias between them"
            ) from None
        return Attributed(found, residual_values(question.values(source.pfvs[None])[0], found.end))
