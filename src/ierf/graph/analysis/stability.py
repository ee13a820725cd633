"""How stable a graph is: the same photograph flipped or a little noisy, and banks of other seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ierf.errors import IerfError
from ierf.extras import extra
from ierf.graph.analysis.interventions import concepts_of
from ierf.graph.building.build import build_groups
from ierf.graph.building.encoding import Photographs, encode, open_photographs
from ierf.graph.concept_graph import ConceptGraph
from ierf.model import VisionModel, as_vision_model, evaluating

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank

NOISE = 4 / 255
"""The standard deviation of the noise, of the range of a pixel."""
ALIKE = 0.5
"""Groups of two banks are the same from this cosine of their parts of the layer on."""


@dataclass(frozen=True)
class Stability:
    """How much of the classes' scores passes the same groups when one thing is changed."""

    change: str
    """"flipped", "noisy", or the name of another bank."""
    shared: Mapping[str, float]
    """For each layer `Σ_g min(f_g, f'_g)` over `½ Σ_g (f_g + f'_g)`, with the flow f through group g in both graphs."""

    @property
    def summary(self) -> str:
        """A sentence, from the classes down."""
        shares = ", ".join(f"{share:.0%} of {layer}" for layer, share in reversed(tuple(self.shared.items())))
        return f"{self.change}: the same groups carry {shares}."


def stability(
    model: VisionModel | nn.Module,
    bank: "ConceptBank",
    photograph: Photographs,
    classes: Sequence[str | int] | None = None,
    layers: Sequence[str] | None = None,
    *,
    others: Mapping[str, "ConceptBank"] | None = None,
    noise: float = NOISE,
    seed: int = 0,
    **options: Any,
) -> list[Stability]:
    """The flow that a graph of groups shares with those of the flipped and the noisy photograph, and of other banks.

    A changed photograph is written with the same bank and the same groups. Groups of another bank are matched one to
    one by the cosine of their parts `Σ_{k∈g} u_k v_k` of the layer (Hungarian method); pairs below 0.5 share nothing.

    Args:
        others: banks of the same layers, such as of other seeds, by a name.
        noise: the standard deviation of Gaussian noise, of the range of a pixel.
        seed: of the noise.
        options: of `ConceptGraph.build`: `budget`, `refit`, `steps`.

    Raises an `IerfError` for several photographs, and for banks without one of the layers.
    """
    vision_model = as_vision_model(model)
    source = open_photographs(vision_model, photograph)
    if len(source) != 1:
        raise IerfError(f"stability is that of one photograph's graph, these are {len(source)}")
    x = source.x(0)
    names = tuple(layers or bank.layers)
    changed = {"flipped": x.flip(-1), "noisy": x + _noise(vision_model, x, noise, seed)}
    options = {"pictures": False, "draws": 0, **options}
    wanted = classes if classes is not None else _most_probable(vision_model, x)
    first, *graphs = build_groups(vision_model, bank, [x, *changed.values()], wanted, names, **options)
    found = [
        Stability(change, {layer: _shared(_flows(first, layer), _flows(graph, layer)) for layer in names})
        for change, graph in zip(changed, graphs, strict=True)
    ]
    for name, other in (others or {}).items():
        (graph,) = build_groups(vision_model, other, [x], wanted, names, **options)
        pairs = _matched(vision_model, x, (bank, first), (other, graph))
        found.append(Stability(name, {layer: _shared(*_paired(first, graph, layer, pairs)) for layer in names}))
    return found


def _noise(model: VisionModel, x: Float[Tensor, "1 C H W"], size: float, seed: int) -> Float[Tensor, "1 C H W"]:
    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)) * size
    return drawn.to(x) / torch.tensor(model.preprocess.std).view(-1, 1, 1).to(x)


def _most_probable(model: VisionModel, x: Float[Tensor, "1 C H W"]) -> list[int]:
    with torch.no_grad(), evaluating(model.net):
        logits = model(x)[0]
    return logits.topk(min(2, len(logits))).indices.tolist()


def _flows(graph: ConceptGraph, layer: str) -> dict[str, float]:
    return {node.id: node.influence for node in graph.row(layer) if node.of_bank}


def _shared(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    both = sum(min(flow, second.get(name, 0.0)) for name, flow in first.items())
    return 2 * both / max(sum(first.values()) + sum(second.values()), 1e-30)


def _paired(
    first: ConceptGraph, second: ConceptGraph, layer: str, pairs: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, float]]:
    """The flows of a layer, those of the second graph under the names of what they are matched with in the first."""
    renamed = {pairs.get(name, f"only {name}"): flow for name, flow in _flows(second, layer).items()}
    return _flows(first, layer), renamed


def _matched(
    model: VisionModel,
    x: Float[Tensor, "1 C H W"],
    first: tuple["ConceptBank", ConceptGraph],
    second: tuple["ConceptBank", ConceptGraph],
) -> dict[str, str]:
    """Nodes of the second graph with their partners in the first."""
    optimize = extra("scipy.optimize", "concepts")
    pairs: dict[str, str] = {}
    with torch.no_grad(), evaluating(model.net):
        encoded = [
            encode(model, bank, x, graph.layers, bool(graph.settings["refit"])) for bank, graph in (first, second)
        ]
    for layer in first[1].layers:
        ids, parts = [], []
        for (bank, graph), found in zip((first, second), encoded, strict=True):
            ids.append(list(_flows(graph, layer)))
            members = [concepts_of(bank, name)[1] for name in ids[-1]]
            parts.append(normalize(found[layer].parts(members).flatten(1).cpu().double()))
        cosines = parts[0] @ parts[1].T
        for i, j in zip(*optimize.linear_sum_assignment(cosines.numpy(), maximize=True), strict=True):
            if cosines[i, j] >= ALIKE:
                pairs[ids[1][j]] = ids[0][i]
    return pairs
