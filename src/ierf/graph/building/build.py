"""Building a concept graph: which concepts, and how much each matters to those of the next layer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.graph.building.assembling import account, class_nodes, layer_nodes
from ierf.graph.building.attributing import STEPS, Attributing
from ierf.graph.building.choosing import SHARED, TOP, Choice, choose
from ierf.graph.building.illustrating import illustrated
from ierf.graph.building.importances import Photograph, importances
from ierf.graph.building.joining import joined
from ierf.graph.building.null import DRAWS, random_concepts
from ierf.graph.building.photographs import Photographs, open_photographs
from ierf.graph.building.progress import Progress, Told
from ierf.graph.building.taking import Layers, take
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.model import VisionModel, as_vision_model, evaluating

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank

__all__ = ["Photographs", "build", "important"]

KEEP = 0.9


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
    progress: Told | None = None,
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
        pictures: whether nodes get exemplars and, for a single photograph, their places and pixels on it, and edges
            where they act.
        progress: called before each step, see `ierf.graph.building.progress`.

    Raises:
        IerfError: a layer that another path of the network goes around, a class, layer or concept that does not exist.
    """
    vision_model = as_vision_model(model)
    names = tuple(layers or bank.layers)
    if not set(bank.layers) <= set(vision_model.layers):
        bank.check_model(vision_model)
    source = open_photographs(vision_model, photographs)
    with evaluating(vision_model.net):
        indices = _classes(vision_model, source.x(0), classes)
        single = len(source) == 1
        total = (1 if single else 2 * len(source)) + 2 * len(names) * len(source) + pictures * len(names)
        counted = Progress(progress, total)
        work = Attributing(vision_model, bank, names, indices, steps, source.x(0), counted, single and pictures)

        def taking(x: Tensor) -> Layers:
            counted.begin(f"coefficients of {len(names)} layers")
            return take(vision_model, bank, x, names)

        taken = taking(source.x(0)) if single else None

        def photos() -> Iterator[Photograph]:
            for i in range(len(source)):
                x = source.x(i)
                yield x, taken or taking(x)

        found = importances(work, photos())
        choices = {
            layer: _with(choose(means.importance, top, shared), (also or {}).get(layer, ()), bank, layer)
            for layer, means in found.layers.items()
        }
        random_of = {layer: random_concepts(bank.layer(layer).atoms.cpu(), draws, seed) for layer in names}
        pairs = joined(work, photos(), choices, random_of)
    graph = ConceptGraph(
        model=vision_model.name,
        photo=source.name,
        photographs=len(source),
        layers=names,
        nodes=(*class_nodes(vision_model, found, indices), *layer_nodes(found.layers, choices)),
        edges=tuple(edge for pair in pairs for edge in pair.edges),
        accounts=tuple(account(found.layers[layer], choices[layer], layer, pairs) for layer in names),
        settings={
            "method": "ig",
            "steps": steps,
            "top": top,
            "shared": shared,
            "draws": draws,
            "seed": seed,
            "extractor": bank.plan.extractor,
            "lam": {layer: bank.layer(layer).lam for layer in names},
            "patches_only": _patches_only(bank, names),
        },
        view=source.view,
    ).pruned(keep)
    return illustrated(graph, vision_model, bank, source, taken, counted) if pictures else graph


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
        work = Attributing(vision_model, bank, names, _classes(vision_model, x, classes), steps, x)
        found = importances(work, [(x, take(vision_model, bank, x, names))])
    return {layer: choose(means.importance, top, shared).all for layer, means in found.layers.items()}


def _classes(model: VisionModel, x: Tensor, classes: Sequence[str | int] | None) -> tuple[int, ...]:
    with torch.no_grad():
        logits = model(x)[0]
    if classes is None:
        return tuple(logits.topk(min(2, len(logits))).indices.tolist())
    if isinstance(classes, str):
        return (model.class_index(classes, len(logits)),)
    if not classes:
        raise IerfError("a graph needs a class to lead to; classes=None takes the two most probable")
    return tuple(dict.fromkeys(model.class_index(c, len(logits)) for c in classes))


def _patches_only(bank: "ConceptBank", layers: Sequence[str]) -> bool:
    """Whether there are tokens in front of patches, and concepts were found without them."""
    there = any(bank.layer(layer).prefix_tokens for layer in layers)
    return there and not bank.plan.store.sampling.get("prefix_tokens", False)


def _with(choice: Choice, more: Sequence[int], bank: "ConceptBank", layer: str) -> Choice:
    """The choice with more concepts. Raises `IerfError` for one that does not exist."""
    return Choice(tuple(dict.fromkeys([*choice.own, *map(bank.layer(layer).concept, more)])), choice.shared)
