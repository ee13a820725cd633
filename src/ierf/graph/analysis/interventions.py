"""Taking concepts out of a layer, or putting them in, and running the network on: does the graph's claim hold?

`intervene` changes some concepts of a photograph's layers. `interlayer_curves` takes all concepts of a layer out, or
puts them in, in the order of their attributions: interlayer insertion and deletion (arXiv 2605.00474, VI-C).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.graph.building.encoding import Photographs, encode, open_photographs, values_of
from ierf.graph.concept_graph import ConceptGraph
from ierf.graph.influence.layer_objective import LayerObjective, Reconstruction
from ierf.graph.influence.scores import Logits, cosines, projections
from ierf.model import Replacement, Section, VisionModel, as_vision_model, evaluating, patched

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank, LayerConcepts


Strength = Callable[[Float[Tensor, "B P C"]], Float[Tensor, "B T"]]
"""How much of each target a forward pass shows, from the source layer's PFVs."""


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
    refit: bool = False,
) -> Intervention:
    """Run on with concepts changed: `x_p − Σ_q u_pq v_q` for those to `delete`, `x_p + c v_q` for those to `insert`.

    Names are those of a graph's nodes, "layer3.1/512" or "layer3.1/group77", of one layer or of several; a later
    layer's codes are those of what the earlier change made of it. What no concept covers stays as it is.

    refit: codes of least squares on the concepts that the Lasso chose, as graphs of groups have them.

    Raises `IerfError` for a name that is no concept's, and for a group to insert.
    """
    vision_model, added = as_vision_model(model), dict(insert or {})
    delete = (delete,) if isinstance(delete, str) else tuple(delete)
    names: dict[str, tuple[list[int], dict[int, float]]] = {}
    for name in delete:
        layer, members = concepts_of(bank, name)
        names.setdefault(layer, ([], {}))[0].extend(members)
    for name, coefficient in added.items():
        layer, members = concepts_of(bank, name)
        if "group" in name.rpartition("/")[2]:
            raise IerfError(f"{name!r} has no vector of its own to put in; insert its concepts")
        names.setdefault(layer, ([], {}))[1][members[0]] = coefficient
    edits = {layer: _edit(bank.layer(layer), *which, refit) for layer, which in names.items()}
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


@dataclass(frozen=True, eq=False)
class LayerTest:
    """What a graph claims of each node of a layer, beside what the network lost without it."""

    nodes: tuple[str, ...]
    """Ids."""
    claimed: Float[Tensor, "N C"]
    """Importances for the classes."""
    lost: Float[Tensor, "N C"]
    """`logit(X) − logit(X − Σ_{k∈g} u_k v_k)`, the mean over photographs."""

    @property
    def rank_correlation(self) -> float:
        """Spearman's, the mean over classes; NaN for fewer than two nodes."""
        ranks = _ranks(self.claimed), _ranks(self.lost)
        a, b = (each - each.mean(0) for each in ranks)
        return float(((a * b).sum(0) / (a.square().sum(0) * b.square().sum(0)).sqrt()).mean())

    @property
    def slope(self) -> float:
        """Of the effect by the claim, through the origin: 1 where the network loses just what was claimed."""
        return float((self.claimed * self.lost).sum() / self.claimed.square().sum())


@dataclass(frozen=True)
class ClaimTest:
    """Every node of a graph taken out, one at a time: do the claims foretell what happens?"""

    layers: Mapping[str, LayerTest]
    """From the pixels on."""

    @property
    def rank_correlation(self) -> float:
        """The mean over layers."""
        return _mean([layer.rank_correlation for layer in self.layers.values()])

    @property
    def slope(self) -> float:
        """The mean over layers."""
        return _mean([layer.slope for layer in self.layers.values()])

    def summary(self) -> list[str]:
        """A sentence for each layer, from the classes down."""
        return [
            f"{name}: taking out each of {len(layer.nodes)} nodes, effects follow claims with a rank correlation of "
            f"{layer.rank_correlation:.2f} and a slope of {layer.slope:.2f}."
            for name, layer in reversed(tuple(self.layers.items()))
        ]


def check_claims(
    graph: ConceptGraph, model: VisionModel | nn.Module, bank: "ConceptBank", photographs: Photographs
) -> ClaimTest:
    """Take every concept or group of a graph out of its layer, one at a time, and run the network on.

    What no concept covers stays as it is. Own directions, which no bank has, are left out.
    """
    vision_model = as_vision_model(model)
    source = open_photographs(vision_model, photographs)
    rows = {layer: [node for node in graph.row(layer) if node.of_bank] for layer in graph.layers}
    members = {layer: [concepts_of(bank, node.id)[1] for node in row] for layer, row in rows.items()}
    score = Logits([node.index for node in graph.classes])
    lost = {layer: torch.zeros(len(row), len(graph.classes), dtype=torch.float64) for layer, row in rows.items()}
    refit = bool(graph.settings.get("refit", False))
    with torch.no_grad(), evaluating(vision_model.net):
        sections = {
            layer: Section.of(vision_model, source.x(0), layer, None, values_of(bank)) for layer in graph.layers
        }
        for i in range(len(source)):
            for layer, here in encode(vision_model, bank, source.x(i), graph.layers, refit).items():
                without = here.pfvs - here.parts(members[layer])
                logits = (
                    LayerObjective(sections[layer], score).values(torch.cat([here.pfvs[None], without])).cpu().double()
                )
                lost[layer] += (logits[0] - logits[1:]) / len(source)
    claimed = {
        layer: torch.tensor([node.importance for node in row], dtype=torch.float64) for layer, row in rows.items()
    }
    ids = {layer: tuple(node.id for node in row) for layer, row in rows.items()}
    return ClaimTest({layer: LayerTest(ids[layer], claimed[layer], lost[layer]) for layer, row in rows.items() if row})


def _ranks(values: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """From 0; equal values share the mean of theirs."""
    below, same = values[:, None] > values[None], values[:, None] == values[None]
    return below.double().sum(1) + (same.double().sum(1) - 1) / 2


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


@dataclass(frozen=True, eq=False)
class Curves:
    """A target's strength as concepts come or go, divided by its strength with all of them."""

    counts: Int[Tensor, " S"]
    """How many of the active concepts were put in, or taken out; from 0 to all."""
    deletion: Float[Tensor, "T S"]
    insertion: Float[Tensor, "T S"]


def area(counts: Int[Tensor, " S"], heights: Float[Tensor, "*batch S"]) -> Float[Tensor, " *batch"]:
    """The area under a curve over the share of concepts, by the trapezoid rule."""
    return torch.trapezoid(heights.double(), counts.double() / counts[-1], dim=-1)


def largest_cosine(
    y: Float[Tensor, "B P C"], atoms: Float[Tensor, "T C"], shift: Float[Tensor, " C"] | None = None
) -> Float[Tensor, "B T"]:
    """`max_i cos(y_i − shift, v_t)` (arXiv 2605.00474, Sec. VI-C1)."""
    return cosines(y, atoms, shift).amax(1)


def largest_projection(
    y: Float[Tensor, "B P C"], atoms: Float[Tensor, "T C"], shift: Float[Tensor, " C"] | None = None
) -> Float[Tensor, "B T"]:
    """`max_i ⟨y_i − shift, v_t / ‖v_t‖⟩` (GIG, Sec. 4.2.3)."""
    return projections(y, atoms, shift).amax(1)


@renamed(at_once="batch")
def interlayer_curves(
    x: Reconstruction,
    strength: Strength,
    values: Float[Tensor, "T A"],
    *,
    most_points: int = 33,
    batch: int = 32,
) -> Curves:
    """Source concepts deleted from X̂, or inserted into the shift alone, in descending order of `values`.

    Each target has its own order and its own forward passes, `batch` of all targets together.

    Args:
        strength: `max_i cos` or the largest projection of the target layer, after the section.
        values: the attribution of each active concept to each target, summed over positions.
        most_points: points of a curve; all counts of concepts if there are fewer.

    Raises `IerfError` for values that are not one per target and active concept.
    """
    active = len(x.active)
    if values.ndim != 2 or values.shape[1] != active:
        raise IerfError(f"there are {active} active concepts, so values are (T, {active}), not {tuple(values.shape)}")
    counts = torch.linspace(0, active, min(active + 1, most_points)).round().long()
    ranks = values.argsort(stable=True, dim=1, descending=True).argsort(1).cpu()
    first = ranks[:, None] < counts[:, None]
    shown = torch.cat([~first, first], 1).to(x.codes.device)
    found = _strengths(x, strength, shown, batch)
    untouched = found[:, :1]
    deleted, inserted = (found / untouched).chunk(2, 1)
    return Curves(counts, deleted, inserted)


def _strengths(x: Reconstruction, strength: Strength, shown: Tensor, batch: int) -> Float[Tensor, "T S"]:
    """Of each target with the concepts in its own rows of `shown` (T, S, A)."""
    n_targets, n_points, _ = shown.shape
    own = torch.arange(n_targets, device=shown.device).repeat_interleave(n_points)
    found = []
    with torch.no_grad():
        for kept, target in zip(torch.split(shown.flatten(0, 1), batch), torch.split(own, batch), strict=True):
            found.append(strength(x.with_only(kept)).gather(1, target[:, None])[:, 0])
    return torch.cat(found).view(n_targets, n_points)


def concepts_of(bank: "ConceptBank", name: str) -> tuple[str, list[int]]:
    """The layer of a node and the concepts that it stands for. Raises `IerfError` for a name that is no concept's."""
    layer, _, index = name.rpartition("/")
    group = index.startswith("group")
    number = index.removeprefix("group")
    if index.startswith("own"):
        raise IerfError(
            f"{name!r} is a direction of one photograph's residual, which no bank has; its node says what "
            "the classes lose without it"
        )
    if not layer or not number.isdecimal():
        raise IerfError(
            f"a concept is named by its layer and number, as in layer3.1/512, a group as layer3.1/group77, not {name!r}"
        )
    concepts = bank.layer(layer)
    return layer, concepts.hierarchy.members(int(number)) if group else [concepts.concept(int(number))]


def _edit(concepts: "LayerConcepts", without: Sequence[int], added: Mapping[int, float], refit: bool) -> Replacement:
    """The change of a layer's PFVs."""

    def edit(pfvs: Float[Tensor, "N P C"]) -> Float[Tensor, "N P C"]:
        atoms = concepts.atoms.to(pfvs)
        changed = pfvs
        if without:
            codes = concepts.encode(pfvs, refit)
            gone = torch.isin(codes.indices, torch.tensor(without, device=codes.indices.device))
            lost = (codes.values * gone)[..., None] * atoms[codes.indices]
            changed = changed - lost.sum(-2).to(pfvs)
        for index, coefficient in added.items():
            changed = changed + coefficient * atoms[index]
        return changed

    return edit
