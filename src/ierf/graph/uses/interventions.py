"""Taking concepts out of a layer, or putting them in, and running the network on: does the graph's claim hold?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.graph.building.taking import values_of
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.model import VisionModel, as_vision_model, evaluating
from ierf.model.capture import Replacement, patched

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank, LayerConcepts


@dataclass(frozen=True)
class Intervention:
    """What the network says when concepts were taken out or put in."""

    deleted: tuple[str, ...]
    """Nodes' ids."""
    inserted: Mapping[str, float]
    """Nodes' ids with the coefficient that was added at every position."""
    before: Float[Tensor, "N K"]
    """Logits of the network as it is."""
    after: Float[Tensor, "N K"]
    """Logits with the change."""

    @property
    def change(self) -> Float[Tensor, "N K"]:
        """`after − before`."""
        return self.after - self.before


@dataclass(frozen=True)
class Claim:
    """For one class: what a graph says that deleted concepts are worth, and what the network lost without them."""

    label: str
    claimed: float
    """The sum of their importance."""
    lost: float
    """By how much the logit fell."""
    probability: tuple[float, float]
    """Before and after."""


def intervene(
    model: VisionModel | nn.Module,
    bank: "ConceptBank",
    x: Float[Tensor, "N 3 H W"],
    delete: str | Sequence[str] = (),
    insert: Mapping[str, float] | None = None,
) -> Intervention:
    """Run on with concepts changed: `x_p − Σ_q u_pq v_q` for those to `delete`, `x_p + c v_q` for those to `insert`.

    Names are those of a graph's nodes, "layer3.1/512", of one layer or of several; a later layer's codes are those of
    what the earlier change made of it. What no concept covers stays as it is.
    Raises `IerfError` for a name that is no concept's.
    """
    vision_model, added = as_vision_model(model), dict(insert or {})
    delete = (delete,) if isinstance(delete, str) else tuple(delete)
    names: dict[str, tuple[list[int], dict[int, float]]] = {}
    for name in delete:
        layer, index = _concept(bank, name)
        names.setdefault(layer, ([], {}))[0].append(index)
    for name, coefficient in added.items():
        layer, index = _concept(bank, name)
        names.setdefault(layer, ([], {}))[1][index] = coefficient
    edits = {layer: _edit(bank.layer(layer), *which) for layer, which in names.items()}
    with torch.no_grad(), evaluating(vision_model.net):
        before = vision_model(x)
        after = patched(vision_model, x, edits, values_of(bank)) if edits else before
    return Intervention(delete, added, before.cpu(), after.cpu())


def claims(graph: ConceptGraph, intervention: Intervention) -> list[Claim]:
    """The graph's claim about the deleted concepts of one layer beside what happened, for each of its classes.

    `Σ_q importance` is what integrated gradients assign to the concepts; the network need not lose just that, as it is
    not linear. Raises `IerfError` for concepts of several layers, whose importance cannot be summed, or none.
    """
    layers = {name.rpartition("/")[0] for name in intervention.deleted}
    if len(layers) != 1:
        raise IerfError("a claim is about concepts of one layer that were deleted; intervene at one layer at a time")
    nodes = [graph.node(name) for name in intervention.deleted]
    before, after = (logits.double().mean(0) for logits in (intervention.before, intervention.after))
    chances = [logits.double().softmax(1).mean(0) for logits in (intervention.before, intervention.after)]
    return [
        Claim(
            of_class.label,
            sum(node.importance[c] for node in nodes),
            float(before[of_class.index] - after[of_class.index]),
            (float(chances[0][of_class.index]), float(chances[1][of_class.index])),
        )
        for c, of_class in enumerate(graph.classes)
    ]


def _concept(bank: "ConceptBank", name: str) -> tuple[str, int]:
    layer, _, index = name.rpartition("/")
    if not layer or not index.isdecimal():
        raise IerfError(f"a concept is named by its layer and number, as in layer3.1/512, not {name!r}")
    return layer, bank.layer(layer).concept(int(index))


def _edit(concepts: "LayerConcepts", without: Sequence[int], added: Mapping[int, float]) -> Replacement:
    """The change of a layer's PFVs."""

    def edit(pfvs: Float[Tensor, "N P C"]) -> Float[Tensor, "N P C"]:
        atoms = concepts.atoms.to(pfvs)
        changed = pfvs
        if without:
            codes = concepts.encode(pfvs)
            gone = torch.isin(codes.indices, torch.tensor(without, device=codes.indices.device))
            lost = (codes.values * gone)[..., None] * atoms[codes.indices]
            changed = changed - lost.sum(-2).to(pfvs)
        for index, coefficient in added.items():
            changed = changed + coefficient * atoms[index]
        return changed

    return edit
