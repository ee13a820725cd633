"""The nodes of a graph: which concepts are chosen (VI, Fig. 9), what is known of them, their pictures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution import attribute, usual_method
from ierf.attribution.targets import Relevance
from ierf.errors import IerfError
from ierf.graph.building.encoding import EncodedLayer, EncodedLayers, OpenedPhotographs
from ierf.graph.building.layer_attribution import Importances, LayerMeans
from ierf.graph.concept_graph import SHARED, TOP, ConceptGraph
from ierf.graph.elements import LOGITS, RESIDUAL, Cells, ConceptFacts, LayerAccount, Node
from ierf.graph.picture.drawing import jpeg
from ierf.model import VisionModel
from ierf.progress import StepCounter

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank

_EXEMPLARS = 10
_CLASSES = 6
_NEAREST = 5
_AT_ONCE = 16


@dataclass(frozen=True)
class NodeSelection:
    """Concepts of one layer, in the order in which they were chosen."""

    own: tuple[int, ...]
    """Among the most important of a class."""
    shared: tuple[int, ...]
    """Important to every class; may be among `own` too."""

    @property
    def all(self) -> tuple[int, ...]:
        """Each concept once."""
        return tuple(dict.fromkeys(self.own + self.shared))


def select_nodes(importance: Float[Tensor, "T K"], top: int = TOP, shared: int = SHARED) -> NodeSelection:
    """The `top` concepts of each class by importance, and the `shared` ones by their least importance over classes.

    A concept without positive importance is not chosen. With one class nothing is shared. (VI, Fig. 9)
    """
    own = tuple(dict.fromkeys(k for of_class in importance for k in _best(of_class, top)))
    common = _best(importance.amin(0), shared) if len(importance) > 1 else ()
    return NodeSelection(own, common)


def _best(values: Float[Tensor, " K"], count: int) -> tuple[int, ...]:
    """The places of the largest positive values, the largest first."""
    found = values.topk(min(count, len(values)))
    return tuple(k for k, value in zip(found.indices.tolist(), found.values.tolist(), strict=True) if value > 0)


def class_nodes(model: VisionModel, found: Importances, classes: Sequence[int]) -> list[Node]:
    """One for each class, with its mean logit and probability."""
    return [
        Node(
            LOGITS,
            "class",
            c,
            model.label(c),
            tuple(float(found.logits[c]) if other == c else 0.0 for other in classes),
            float(found.probabilities[c]),
        )
        for c in classes
    ]


def layer_nodes(means: Mapping[str, LayerMeans], selected: Mapping[str, NodeSelection]) -> Iterator[Node]:
    """The chosen concepts and the residual of each layer, from the classes down."""
    for layer in reversed(tuple(selected)):
        here = means[layer]
        prefix_shares = here.prefix_strengths / here.strengths.where(here.strengths > 0, 1)
        for q in selected[layer].all:
            yield Node(
                layer,
                "concept",
                q,
                f"#{q}",
                tuple(here.importance[:, q].tolist()),
                float(here.strengths[q]),
                shared=q in selected[layer].shared,
                prefix_share=float(prefix_shares[q]),
            )
        residual = tuple(here.residual.tolist())
        yield Node(layer, "residual", RESIDUAL, "residual", residual, here.residual_share)


def layer_account(here: LayerMeans, selection: NodeSelection, layer: str, of_edges: Sequence[float]) -> LayerAccount:
    """What the layer's chosen concepts leave out; influences come with pruning.

    of_edges: the completeness errors of the edges out of the layer.
    """
    sizes = here.importance.abs()
    totals = sizes.sum(1)
    kept = sizes[:, list(selection.all)].sum(1) / totals.where(totals > 0, 1)
    return LayerAccount(
        layer=layer,
        concepts=here.importance.shape[1],
        active=here.active,
        l0=here.l0,
        residual_share=here.residual_share,
        kkt=here.kkt,
        completeness_error=max([here.completeness_error, *of_edges]),
        logits=tuple(here.logits.tolist()),
        score_kept=tuple(kept.tolist()),
        influence_kept=0.0,
        influence_residual=0.0,
    )


def with_pictures(
    graph: ConceptGraph,
    model: VisionModel,
    bank: "ConceptBank",
    photos: OpenedPhotographs,
    encoded: EncodedLayers | None,
    progress: StepCounter,
) -> ConceptGraph:
    """The graph with pictures; `encoded` has the layers of the only photograph, None if there are several."""
    nodes = {node.id: node for node in graph.nodes}
    for layer in graph.layers:
        progress.begin(f"pictures of {layer}")
        concepts = [node for node in graph.row(layer) if node.kind == "concept"]
        for node in concepts:
            nodes[node.id] = replace(
                node, exemplars=_exemplars(bank, layer, node.index), facts=concept_facts(bank, layer, node.index)
            )
        if encoded is not None and concepts:
            for node, *cells in _grounded(model, photos.x(0), encoded[layer], concepts):
                nodes[node.id] = replace(nodes[node.id], map=cells[0], ierf=cells[1])
    return replace(graph, nodes=tuple(nodes.values()))


def _exemplars(bank: "ConceptBank", layer: str, concept: int) -> tuple[bytes, ...]:
    """The parts of photographs that are nearest to a concept; none where bank and store have no pictures."""
    with suppress(IerfError):
        return tuple(map(jpeg, bank.exemplar_pictures(layer, concept, _EXEMPLARS)))
    return ()


def concept_facts(bank: "ConceptBank", layer: str, concept: int) -> ConceptFacts:
    """What the bank knows of a concept."""
    known = bank.layer(layer)
    shares = list(known.class_shares.of(concept).items())[:_CLASSES]
    return ConceptFacts(
        frequency=float(known.frequencies[concept]),
        strength=float(known.strengths[concept]),
        relevance=float(known.relevances[concept]),
        classes=tuple((bank.label(label), share) for label, share in shares),
        nearest=tuple(known.nearest(concept, _NEAREST)),
        cosines=tuple(known.cosines[concept, :_EXEMPLARS].tolist()),
    )


def _grounded(
    model: VisionModel, x: Float[Tensor, "1 3 H W"], encoded: EncodedLayer, nodes: Sequence[Node]
) -> list[tuple[Node, Cells, Cells]]:
    """Each node with `u_pq` over the layer's positions, and the relevance that starts there carried to the pixels."""
    maps = encoded.columns(torch.tensor([node.index for node in nodes])).T
    ierfs = coefficient_ierfs(model, x, encoded, maps)
    return [
        (node, Cells.of(encoded.on_map(u)), Cells.of(ierf)) for node, u, ierf in zip(nodes, maps, ierfs, strict=True)
    ]


def coefficient_ierfs(
    model: VisionModel, x: Float[Tensor, "1 3 H W"], encoded: EncodedLayer, maps: Float[Tensor, "B P"]
) -> Float[Tensor, "B H W"]:
    """The pixels' share in each map of coefficients: its iERF, the sum over positions of `u_p · iERF_p`."""
    return torch.cat([_ierfs(model, x, encoded, some) for some in torch.split(maps, _AT_ONCE)])


def _ierfs(
    model: VisionModel, x: Float[Tensor, "1 3 H W"], encoded: EncodedLayer, maps: Float[Tensor, "B P"]
) -> Float[Tensor, "B H W"]:
    size = encoded.concepts.map
    start = maps if encoded.concepts.prefix_tokens is not None or len(size) < 2 else maps.reshape(-1, *size)
    target = Relevance(encoded.concepts.name, start.to(x))
    found = attribute(model, x.expand(len(maps), -1, -1, -1), target, usual_method(model))
    return found.detach().cpu()
