"""Building a concept graph (VI): which concepts, and how much each matters to those of the next layer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from ierf.errors import IerfError, UnknownNameError
from ierf.graph.building.encoding import EncodedLayers, Photographs, encode, open_photographs, patches_only
from ierf.graph.building.group_graph import GroupSettings, group_graphs
from ierf.graph.building.layer_attribution import Attributor, EncodedPhotograph, importances
from ierf.graph.building.layer_edges import layer_edges, random_concepts
from ierf.graph.building.nodes import (
    NodeSelection,
    class_nodes,
    layer_account,
    layer_nodes,
    select_nodes,
    with_pictures,
)
from ierf.graph.concept_graph import (
    BUDGET,
    DRAWS,
    KEEP,
    MOST_STEPS,
    SHARED,
    STEPS,
    TOP,
    ConceptGraph,
    NodesName,
)
from ierf.model import VisionModel, as_vision_model, evaluating
from ierf.progress import Progress, StepCounter

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank


def build(
    model: VisionModel | nn.Module,
    bank: "ConceptBank",
    photographs: Photographs,
    classes: Sequence[str | int] | None = None,
    layers: Sequence[str] | None = None,
    *,
    nodes: NodesName | None = None,
    budget: int = BUDGET,
    refit: bool = True,
    top: int | None = None,
    shared: int | None = None,
    also: Mapping[str, Sequence[int]] | None = None,
    steps: int = STEPS,
    most_steps: int = MOST_STEPS,
    keep: float | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    pictures: bool = True,
    progress: Progress | None = None,
) -> ConceptGraph:
    """The Interlayer Concept Graph of a photograph, or the mean of those of many, see `ConceptGraph.build`."""
    if kind_of_nodes(nodes, top=top, shared=shared, also=also) == "groups":
        (graph,) = build_groups(
            model,
            bank,
            [photographs],
            classes,
            layers,
            budget=budget,
            refit=refit,
            steps=steps,
            most_steps=most_steps,
            draws=draws,
            seed=seed,
            pictures=pictures,
            progress=progress,
        )
        return graph if keep is None else graph.pruned(keep)
    top, shared = TOP if top is None else top, SHARED if shared is None else shared
    keep = KEEP if keep is None else keep
    vision_model = as_vision_model(model)
    names = tuple(layers or bank.layers)
    if not set(bank.layers) <= set(vision_model.layers):
        bank.check_model(vision_model)
    source = open_photographs(vision_model, photographs)
    with evaluating(vision_model.net):
        indices = _classes(vision_model, source.x(0), classes)
        single = len(source) == 1
        total = (1 if single else 2 * len(source)) + 2 * len(names) * len(source) + pictures * len(names)
        counted = StepCounter(progress, total)
        work = Attributor(
            vision_model, bank, names, indices, steps, source.x(0), counted, most_steps, single and pictures
        )

        def encoding(x: Tensor) -> EncodedLayers:
            counted.begin(f"coefficients of {len(names)} layers")
            return encode(vision_model, bank, x, names)

        encoded = encoding(source.x(0)) if single else None

        def photos() -> Iterator[EncodedPhotograph]:
            for i in range(len(source)):
                x = source.x(i)
                yield x, encoded or encoding(x)

        found = importances(work, photos())
        selected = {
            layer: _with(select_nodes(means.importance, top, shared), (also or {}).get(layer, ()), bank, layer)
            for layer, means in found.layers.items()
        }
        random_of = {layer: random_concepts(bank.layer(layer).atoms.cpu(), draws, seed) for layer in names}
        pairs = layer_edges(work, photos(), selected, random_of)
    graph = ConceptGraph(
        model=vision_model.name,
        photo=source.name,
        photographs=len(source),
        layers=names,
        nodes=(*class_nodes(vision_model, found, indices), *layer_nodes(found.layers, selected)),
        edges=tuple(edge for pair in pairs for edge in pair.edges),
        accounts=tuple(
            layer_account(
                found.layers[layer],
                selected[layer],
                layer,
                [pair.completeness_error for pair in pairs if pair.source == layer],
            )
            for layer in names
        ),
        settings={
            "method": "ig",
            "steps": steps,
            "top": top,
            "shared": shared,
            "draws": draws,
            "seed": seed,
            "extractor": bank.plan.extractor,
            "lam": {layer: bank.layer(layer).lam for layer in names},
            "patches_only": patches_only(bank, names),
        },
        view=source.view,
    ).pruned(keep)
    return with_pictures(graph, vision_model, bank, source, encoded, counted) if pictures else graph


def kind_of_nodes(nodes: NodesName | None, **of_concepts: Any) -> NodesName:
    """What was asked for: groups, but where options of single concepts are given.

    Raises `UnknownNameError` for another name, and `IerfError` for groups with such options.
    """
    given = [name for name, value in of_concepts.items() if value is not None]
    if nodes is None:
        return "concepts" if given else "groups"
    if nodes not in get_args(NodesName):
        raise UnknownNameError("kind of nodes", nodes, get_args(NodesName))
    if nodes == "groups" and given:
        raise IerfError(f"{', '.join(given)} belong to nodes='concepts'; groups hold all concepts, see budget")
    return nodes


def build_groups(
    model: VisionModel | nn.Module,
    bank: "ConceptBank",
    photographs: Sequence[Photographs],
    classes: Sequence[str | int] | None,
    layers: Sequence[str] | None,
    *,
    budget: int = BUDGET,
    refit: bool = True,
    steps: int = STEPS,
    most_steps: int = MOST_STEPS,
    draws: int = DRAWS,
    seed: int = 0,
    pictures: bool = True,
    progress: Progress | None = None,
) -> list[ConceptGraph]:
    """A graph of groups of each of `photographs`, a photograph or many, all with the same groups."""
    if budget < 1:
        raise IerfError(f"a row has at least one group, not {budget}")
    settings = GroupSettings(budget, refit, steps, most_steps, draws, seed)
    vision_model = as_vision_model(model)
    names = tuple(layers or bank.layers)
    if not set(bank.layers) <= set(vision_model.layers):
        bank.check_model(vision_model)
    sources = [open_photographs(vision_model, each) for each in photographs]
    with evaluating(vision_model.net):
        x = sources[0].x(0)
        indices = _classes(vision_model, x, classes)
        count = sum(map(len, sources))
        counted = StepCounter(progress, count + len(names) * (count + len(sources) * (1 + pictures)))
        single = pictures and all(len(source) == 1 for source in sources)
        work = Attributor(vision_model, bank, names, indices, settings.steps, x, counted, settings.most_steps, single)
        return group_graphs(work, sources, settings, pictures)


def important_concepts(
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
        work = Attributor(vision_model, bank, names, _classes(vision_model, x, classes), steps, x)
        found = importances(work, [(x, encode(vision_model, bank, x, names))])
    return {layer: select_nodes(means.importance, top, shared).all for layer, means in found.layers.items()}


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


def _with(selection: NodeSelection, more: Sequence[int], bank: "ConceptBank", layer: str) -> NodeSelection:
    """The selection with more concepts. Raises `IerfError` for one that does not exist."""
    return NodeSelection(
        tuple(dict.fromkeys([*selection.own, *map(bank.layer(layer).concept, more)])), selection.shared
    )
