"""Building a concept graph: which concepts, and how much each matters to those of the next layer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.graph.building.choosing import SHARED, TOP, Choice, choose
from ierf.graph.building.illustrating import illustrated
from ierf.graph.building.null import DRAWS, p_values, random_concepts
from ierf.graph.building.photographs import Photographs, open_photographs
from ierf.graph.building.residual import residual_values
from ierf.graph.building.taking import Layers, Taken, take, values_of
from ierf.graph.influence.attributions import Attribution, Question
from ierf.graph.influence.attributions.integrated_gradients import integrated_gradients
from ierf.graph.influence.scores import Alignment, Logits, Score
from ierf.graph.structure.account import LayerAccount
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.edge import Edge
from ierf.graph.structure.node import LOGITS, RESIDUAL, Node, node_id
from ierf.model import Section, VisionModel, as_vision_model, evaluating

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank

__all__ = ["Photographs", "build", "important"]

KEEP = 0.9
STEPS = 16
MOST_STEPS = 144


def build(
    model: VisionModel | nn.Module,
    bank: "ConceptBank",
    photographs: Photographs,
    classes: Sequence[str | int] | None = None,
    layers: Sequence[str] | None = None,
    *,
    top: int = TOP,
    shared: int = SHARED,
    also: Mapping[str, Sequence[int]] | None = None,
    steps: int = STEPS,
    keep: float = KEEP,
    draws: int = DRAWS,
    seed: int = 0,
    pictures: bool = True,
) -> ConceptGraph:
    """The Interlayer Concept Graph of a photograph, or the mean of those of many (arXiv 2605.00474, section VI).

    Nodes are, in each layer, the `top` concepts of each class and the `shared` ones by `Σ_p AT(u_pq, logit_c)`, and the
    residual. Edges are ICAT with integrated gradients (Eq. 13–16) between consecutive `layers`: the score of a concept
    t is `Σ_i u_it cos(X̃_i − shift, v_t)`, that of a class its logit, and what is scaled from 0 to 1 is the part of X̂
    that concepts make, while the shift stays.

    Args:
        photographs: prepared pixels (N, 3, H, W), a photograph, or a sequence of photographs. Of many, one after the
            other is in memory, and each is looked at twice.
        classes: names or indices; None: the two most probable of the first photograph.
        layers: those of the bank if None, in the bank's order, which must be that of the network.
        also: more concepts that become nodes, for each layer.
        steps: of integrated gradients; three or nine times as many where attributions do not add up within 1e-3.
        keep: the share of the flow between two layers whose edges are kept, see `ConceptGraph.pruned`.
        draws: random concepts against which edges are tested.
        pictures: whether nodes get exemplars and, for a single photograph, their places and pixels on it.

    Raises:
        IerfError: a layer that another path of the network goes around, a class, layer or concept that does not exist.
    """
    vision_model = as_vision_model(model)
    names = tuple(layers or bank.layers)
    source = open_photographs(vision_model, photographs)
    with evaluating(vision_model.net):
        indices = _classes(vision_model, source.x(0), classes)
        work = _Work(vision_model, bank, names, indices, steps, source.x(0))
        taken = take(vision_model, bank, source.x(0), names) if len(source) == 1 else None

        def photos() -> Iterator[Layers]:
            for i in range(len(source)):
                yield taken or take(vision_model, bank, source.x(i), names)

        with torch.no_grad():
            logits = torch.cat([vision_model(source.x(i)).float() for i in range(len(source))])
        sums = _importances(work, photos())
        choices = {
            layer: _with(choose(sums[layer].importance, top, shared), (also or {}).get(layer, ()), bank, layer)
            for layer in names
        }
        pairs = _pairs(work, photos(), choices, random_of={a: _random(bank, a, draws, seed) for a in names})
    graph = ConceptGraph(
        model=vision_model.name,
        photo=source.name,
        photographs=len(source),
        layers=names,
        nodes=(*_class_nodes(vision_model, logits, indices), *_nodes(sums, choices, names)),
        edges=tuple(edge for pair in pairs for edge in pair.edges),
        accounts=tuple(_account(sums[layer], choices[layer], layer, pairs) for layer in names),
        settings={
            "method": "ig",
            "steps": steps,
            "top": top,
            "shared": shared,
            "draws": draws,
            "seed": seed,
            "extractor": bank.plan.extractor,
            "lam": {layer: bank.layer(layer).lam for layer in names},
        },
        view=source.view,
    ).pruned(keep)
    return illustrated(graph, vision_model, bank, source, taken) if pictures else graph


def important(
    model: VisionModel | nn.Module,
    bank: "ConceptBank",
    photo: Photographs,
    classes: Sequence[str | int],
    layers: Sequence[str] | None = None,
    *,
    top: int = TOP,
    shared: int = SHARED,
    steps: int = STEPS,
) -> dict[str, tuple[int, ...]]:
    """The concepts of each layer that `build` would choose, without the edges between them."""
    vision_model, names = as_vision_model(model), tuple(layers or bank.layers)
    x = open_photographs(vision_model, photo).x(0)
    with evaluating(vision_model.net):
        work = _Work(vision_model, bank, names, _classes(vision_model, x, classes), steps, x)
        sums = _importances(work, iter([take(vision_model, bank, x, names)]))
    return {layer: choose(sums[layer].importance, top, shared).all for layer in names}


@dataclass(frozen=True)
class _Work:
    """What is the same for all photographs: the network, cut once for each pair of layers."""

    model: VisionModel
    bank: "ConceptBank"
    layers: tuple[str, ...]
    classes: tuple[int, ...]
    steps: int
    example: Tensor
    sections: dict[tuple[str, str | None], Section] = field(default_factory=dict)

    def section(self, source: str, target: str | None) -> Section:
        if (source, target) not in self.sections:
            values = values_of(self.bank)
            self.sections[source, target] = Section.of(self.model, self.example, source, target, values)
        return self.sections[source, target]

    def of_classes(self, source: Taken) -> "_Attributed":
        """Scores are the classes' logits."""
        return self._attributed(source, None, Logits(self.classes))

    def of_concepts(self, source: Taken, target: Taken, chosen: Sequence[int]) -> "_Attributed":
        """Scores are alignments with concepts of the target layer (Eq. 13)."""
        some = torch.tensor(chosen, device=target.pfvs.device)
        score = Alignment(target.concepts.atoms.to(target.pfvs)[some], target.columns(some), target.made.shift)
        return self._attributed(source, target.concepts.name, score)

    def _attributed(self, source: Taken, target: str | None, score: Score) -> "_Attributed":
        question = Question(self.section(source.concepts.name, target), score)
        found = integrated_gradients(source.made, question, steps=self.steps, most_steps=MOST_STEPS)
        return _Attributed(found, residual_values(question.values(source.pfvs[None])[0], found.end))


@dataclass(frozen=True, eq=False)
class _Attributed:
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


@dataclass(eq=False)
class _Sums:
    """Means over the photographs for one layer."""

    importance: Float[Tensor, "T K"]
    residual: Float[Tensor, " T"]
    logits: Float[Tensor, " T"]
    strengths: Float[Tensor, " K"]
    active: float
    l0: float
    residual_share: float
    kkt: float
    completeness_error: float

    def add(self, other: "_Sums", share: float) -> None:
        """Another photograph's, which is this share of them all."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            worst = name in ("kkt", "completeness_error")
            setattr(self, name, max(mine, value) if worst else mine * (1 - share) + value * share)


def _importances(work: _Work, photos: Iterator[Layers]) -> dict[str, _Sums]:
    found: dict[str, _Sums] = {}
    for number, photo in enumerate(photos, 1):
        for layer, taken in photo.items():
            here = _of_layer(work, taken)
            if layer in found:
                found[layer].add(here, 1 / number)
            else:
                found[layer] = here
    return found


def _of_layer(work: _Work, taken: Taken) -> _Sums:
    found = work.of_classes(taken)
    return _Sums(
        importance=found.values.cpu(),
        residual=found.residual.cpu(),
        logits=found.concepts.end.cpu(),
        strengths=taken.strengths.cpu(),
        active=float(len(taken.made.active)),
        l0=taken.l0,
        residual_share=taken.residual_share,
        kkt=taken.kkt,
        completeness_error=found.completeness_error,
    )


@dataclass(frozen=True, eq=False)
class _Pair:
    source: str
    edges: tuple[Edge, ...]
    completeness_error: float


@dataclass(eq=False)
class _PairSums:
    """Means over the photographs for one pair of layers; the residual is the last source."""

    values: Float[Tensor, "Q+1 T"]
    totals: Float[Tensor, " T"]
    sensitivity: Float[Tensor, "Q T C"]
    completeness_error: float

    def add(self, other: "_PairSums", share: float) -> None:
        self.values = self.values * (1 - share) + other.values * share
        self.totals = self.totals * (1 - share) + other.totals * share
        self.sensitivity = self.sensitivity * (1 - share) + other.sensitivity * share
        self.completeness_error = max(self.completeness_error, other.completeness_error)


def _pairs(
    work: _Work, photos: Iterator[Layers], choices: Mapping[str, Choice], random_of: Mapping[str, Tensor]
) -> list[_Pair]:
    ways = [*pairwise(work.layers), (work.layers[-1], None)]
    found: dict[str, _PairSums] = {}
    for number, photo in enumerate(photos, 1):
        for a, b in ways:
            if b is not None and not choices[b].all:
                continue
            here = _pair_sums(
                work.of_classes(photo[a]) if b is None else work.of_concepts(photo[a], photo[b], choices[b].all),
                photo[a],
                choices[a].all,
            )
            if a in found:
                found[a].add(here, 1 / number)
            else:
                found[a] = here
    targets = {
        a: [node_id(LOGITS, c) for c in work.classes] if b is None else [node_id(b, t) for t in choices[b].all]
        for a, b in ways
    }
    return [_pair(work, a, choices[a].all, targets[a], found[a], random_of[a]) for a, _ in ways if a in found]


def _pair_sums(found: _Attributed, taken: Taken, chosen: Sequence[int]) -> _PairSums:
    some = torch.tensor(chosen, dtype=torch.long, device=taken.pfvs.device)
    return _PairSums(
        torch.cat([found.values[:, some].T, found.residual[None]]).cpu(),
        (found.values.abs().sum(1) + found.residual.abs()).cpu(),
        torch.einsum("pq,tpc->qtc", taken.columns(some), found.slopes).cpu(),
        found.completeness_error,
    )


def _pair(
    work: _Work, source: str, chosen: Sequence[int], targets: Sequence[str], sums: _PairSums, random: Tensor
) -> _Pair:
    atoms = work.bank.layer(source).atoms[list(chosen)].cpu()
    p = p_values(sums.values[:-1], sums.sensitivity, atoms.norm(dim=1), random)
    largest = float(sums.values.abs().max())
    names = [node_id(source, q) for q in (*chosen, RESIDUAL)]
    edges = []
    for s, name in enumerate(names):
        for t, target in enumerate(targets):
            value, total = float(sums.values[s, t]), float(sums.totals[t])
            if value:
                chance = float(p[s, t]) if s < len(chosen) else None
                edges.append(Edge(name, target, value, abs(value) / largest, abs(value) / total, chance))
    return _Pair(source, tuple(edges), sums.completeness_error)


def _random(bank: "ConceptBank", layer: str, draws: int, seed: int) -> Float[Tensor, "R C"]:
    return random_concepts(bank.layer(layer).atoms.cpu(), draws, seed)


def _classes(model: VisionModel, x: Tensor, classes: Sequence[str | int] | None) -> tuple[int, ...]:
    with torch.no_grad():
        logits = model(x)[0]
    if classes is None:
        return tuple(logits.topk(min(2, len(logits))).indices.tolist())
    if not classes:
        raise IerfError("a graph needs a class to lead to; classes=None takes the two most probable")
    return tuple(dict.fromkeys(model.class_index(c, len(logits)) for c in classes))


def _with(choice: Choice, more: Sequence[int], bank: "ConceptBank", layer: str) -> Choice:
    """The choice with more concepts. Raises `IerfError` for one that does not exist."""
    return Choice(tuple(dict.fromkeys([*choice.own, *map(bank.layer(layer).concept, more)])), choice.shared)


def _class_nodes(model: VisionModel, logits: Float[Tensor, "N K"], classes: Sequence[int]) -> list[Node]:
    chances, mean = logits.double().softmax(1).mean(0), logits.double().mean(0)
    return [
        Node(
            LOGITS,
            "class",
            c,
            model.label(c),
            tuple(float(mean[c]) if other == c else 0.0 for other in classes),
            float(chances[c]),
        )
        for c in classes
    ]


def _nodes(sums: Mapping[str, _Sums], choices: Mapping[str, Choice], layers: Sequence[str]) -> Iterator[Node]:
    for layer in reversed(layers):
        here = sums[layer]
        for q in choices[layer].all:
            importance = tuple(here.importance[:, q].tolist())
            yield Node(
                layer,
                "concept",
                q,
                f"#{q}",
                importance,
                float(here.strengths[q]),
                shared=q in choices[layer].shared,
            )
        residual = tuple(here.residual.tolist())
        yield Node(layer, "residual", RESIDUAL, "residual", residual, here.residual_share)


def _account(here: _Sums, choice: Choice, layer: str, pairs: Sequence[_Pair]) -> LayerAccount:
    sizes = here.importance.abs()
    totals = sizes.sum(1)
    kept = sizes[:, list(choice.all)].sum(1) / totals.where(totals > 0, 1)
    return LayerAccount(
        layer=layer,
        concepts=here.importance.shape[1],
        active=here.active,
        l0=here.l0,
        residual_share=here.residual_share,
        kkt=here.kkt,
        completeness_error=max([here.completeness_error, *(p.completeness_error for p in pairs if p.source == layer)]),
        logits=tuple(here.logits.tolist()),
        score_kept=tuple(kept.tolist()),
        influence_kept=0.0,
        influence_residual=0.0,
    )
