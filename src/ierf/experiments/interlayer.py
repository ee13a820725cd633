"""Which attribution finds the concepts that a later layer needs: interlayer insertion and deletion (VI-C, Fig. 11)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.graph import METHODS, Alignment, Question, Reconstruction, interlayer_curves, largest_cosine
from ierf.model import Section, VisionModel, capture

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank


@dataclass(frozen=True)
class InterlayerAreas:
    """Areas under the curves of one attribution, one for each image and target."""

    method: str
    deletion: Float[Tensor, " A"]
    insertion: Float[Tensor, " A"]
    completeness_error: Float[Tensor, " A"]


def interlayer_areas(
    model: VisionModel,
    bank: "ConceptBank",
    images: Iterable[Float[Tensor, "1 3 H W"]],
    source: str,
    target: str,
    methods: Sequence[str] = ("ig", "gradient_x_input", "deeplift", "lrp", "coefficient_size", "random"),
    targets: int = 3,
    points: int = 33,
) -> list[InterlayerAreas]:
    """For each image the `targets` concepts of the later layer with the largest sum of coefficients."""
    before, after = bank.layer(source), bank.layer(target)
    found: dict[str, list[Tensor]] = {method: [] for method in methods}
    section: Section | None = None
    for x in images:
        with torch.no_grad():
            section = section or Section.of(model, x, source, target, before.values)
            pfvs = {name: one.pfvs[0] for name, one in capture(model, x, [source, target], before.values).items()}
        rebuilt = Reconstruction.of(before.encode(pfvs[source]), before.atoms.to(pfvs[source]), before.shift)
        codes, shift = after.encode(pfvs[target]).dense(), after.shift.to(pfvs[target])
        chosen = codes.sum(0).topk(targets).indices
        atoms = after.atoms.to(codes)[chosen]
        question = Question(section, Alignment(atoms, codes[:, chosen], shift))
        strength = partial(_strength, section, atoms, shift)
        for method in methods:
            edges = METHODS[method](rebuilt, question)
            curves = interlayer_curves(rebuilt, strength, edges.values, most_points=points)
            found[method].append(
                torch.stack([curves.deletion_auc, curves.insertion_auc, edges.completeness_error]).cpu()
            )
    return [InterlayerAreas(method, *torch.cat(areas, 1)) for method, areas in found.items()]


def _strength(
    section: Section, atoms: Float[Tensor, "T D"], shift: Float[Tensor, " D"], pfvs: Float[Tensor, "B P C"]
) -> Float[Tensor, "B T"]:
    return largest_cosine(section(pfvs), atoms, shift)
