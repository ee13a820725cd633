"""How much every concept of every layer matters to the classes, as a mean over photographs."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.graph.building.attributing import Attributing
from ierf.graph.building.taking import Layers, Taken

Photograph = tuple[Float[Tensor, "1 3 H W"], Layers]
"""Its pixels, and its layers written with concepts."""


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


def importances(work: Attributing, photographs: Iterable[Photograph]) -> Importances:
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


def _of_photograph(work: Attributing, x: Float[Tensor, "1 3 H W"], layers: Layers) -> Importances:
    with torch.no_grad():
        logits = work.model(x)[0].cpu().double()
    found = {}
    for layer, taken in layers.items():
        work.progress.begin(f"concepts of {layer}")
        found[layer] = _of_layer(work, taken)
    return Importances(found, logits, logits.softmax(0))


def _of_layer(work: Attributing, taken: Taken) -> LayerMeans:
    found = work.to_classes(taken)
    return LayerMeans(
        importance=found.values.cpu(),
        residual=found.residual.cpu(),
        logits=found.concepts.end.cpu(),
        strengths=taken.strengths.cpu(),
        prefix_strengths=taken.prefix_strengths.cpu(),
        active=float(len(taken.made.active)),
        l0=taken.l0,
        residual_share=taken.residual_share,
        kkt=taken.kkt,
        completeness_error=found.completeness_error,
    )
