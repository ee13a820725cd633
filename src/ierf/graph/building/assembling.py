"""Nodes and accounts of a graph, from what was found."""

from collections.abc import Iterator, Mapping, Sequence

from ierf.graph.building.choosing import Choice
from ierf.graph.building.importances import Importances, LayerMeans
from ierf.graph.building.joining import Pair
from ierf.graph.structure.account import LayerAccount
from ierf.graph.structure.node import LOGITS, RESIDUAL, Node
from ierf.model import VisionModel


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


def layer_nodes(means: Mapping[str, LayerMeans], choices: Mapping[str, Choice]) -> Iterator[Node]:
    """The chosen concepts and the residual of each layer, from the classes down."""
    for layer in reversed(tuple(choices)):
        here = means[layer]
        prefix_shares = here.prefix_strengths / here.strengths.where(here.strengths > 0, 1)
        for q in choices[layer].all:
            yield Node(
                layer,
                "concept",
                q,
                f"#{q}",
                tuple(here.importance[:, q].tolist()),
                float(here.strengths[q]),
                shared=q in choices[layer].shared,
                prefix_share=float(prefix_shares[q]),
            )
        residual = tuple(here.residual.tolist())
        yield Node(layer, "residual", RESIDUAL, "residual", residual, here.residual_share)


def account(here: LayerMeans, choice: Choice, layer: str, pairs: Sequence[Pair]) -> LayerAccount:
    """What the layer's chosen concepts leave out; influences come with pruning."""
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
