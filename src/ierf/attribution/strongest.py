"""Which PFVs carry the most relevance, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.recorded import RecordedPass
from ierf.attribution.target_seeds import one_hot
from ierf.attribution.targets import PFV, Position

_NO_FEATURES = ("pad", "dropout")
"""Operations whose output holds no PFVs but those of their input."""


@dataclass(frozen=True)
class RelevantPFV:
    """One PFV and what it is worth to a target."""

    layer: str
    position: Position
    relevance: float
    share: float
    """Its relevance as a share of the layer's positive relevance."""


def layers_over_depth(run: RecordedPass, start: int, count: int = 3) -> list[str]:
    """The last layer of each of the `count` coarsest scales up to the node `start`, in the order of the network.

    Only layers that every path passes and that have more than one position. Sizes within a factor of about √2 of a
    power of two below the input's are one scale; a network with fewer scales gives evenly spaced layers, and so does
    one of tokens, whose blocks are all of one scale.
    """
    nodes = run.tape.nodes
    cuts = [k for k in run.tape.cuts() if 0 < k <= start and nodes[k].operation not in _NO_FEATURES]
    names = {k: next(run.tape.layer_names(k), "") for k in cuts if nodes[k].positions > 1}
    layers = {k: name for k, name in names.items() if name}
    tokens = [k for k in layers if run.grid(k) is not None]
    last_of_scale = {round(log2(nodes[0].positions / nodes[k].positions) / 2): k for k in layers}
    if tokens or len(last_of_scale) < count:
        chosen = _evenly(tokens or list(layers), count)
    else:
        chosen = sorted(last_of_scale.values())[-count:]
    return [layers[k] for k in chosen]


def _evenly(nodes: Sequence[int], count: int) -> list[int]:
    spaced = [-(-len(nodes) * i // count) - 1 for i in range(1, count + 1)]
    return [nodes[i] for i in dict.fromkeys(spaced) if nodes]


def strongest_pfvs(
    run: RecordedPass, start: int, gradient: Float[Tensor, "1 ..."], layers: Sequence[str], count: int = 3
) -> list[RelevantPFV]:
    """The PFVs with the most positive relevance: up to `count` of each layer, no two of a layer side by side.

    One backward pass serves all layers. `gradient` carries that of one sample at the node `start`.
    """
    maps = run.carry(start, gradient, [run.layer(layer) for layer in layers])
    return [pfv for layer, values in zip(layers, maps, strict=True) for pfv in _peaks(layer, values[0], count)]


def relevant_pfvs(
    run: RecordedPass, start: int, gradient: Float[Tensor, "1 ..."], pfvs: Sequence[PFV]
) -> list[RelevantPFV]:
    """What given PFVs, at one position each, are worth. Raises `IerfError` for a position outside its layer's map."""
    nodes = [run.layer(pfv.layer) for pfv in pfvs]
    hot = [
        one_hot(pfv.position, (1, *run.tape.nodes[node].map_shape), pfv.layer, run.grid(node))[0]
        for node, pfv in zip(nodes, pfvs, strict=True)
    ]
    maps = run.carry(start, gradient, nodes)
    return [
        _worth(pfv.layer, values[0], tuple(where.nonzero()[0].tolist()))
        for pfv, values, where in zip(pfvs, maps, hot, strict=True)
    ]


def _peaks(layer: str, values: Tensor, count: int) -> list[RelevantPFV]:
    left = values.clone()
    found: list[RelevantPFV] = []
    apart = [max(1, side // 6) for side in values.shape]
    while len(found) < count and bool((left > 0).any()):
        position = tuple(int(i) for i in torch.unravel_index(left.argmax(), left.shape))
        found.append(_worth(layer, values, position))
        left[tuple(slice(max(0, i - d), i + d + 1) for i, d in zip(position, apart, strict=True))] = 0
    return found


def _worth(layer: str, values: Tensor, position: Position) -> RelevantPFV:
    relevance, evidence = float(values[position]), float(values.clamp_min(0).sum())
    return RelevantPFV(layer, position, relevance, relevance / evidence if evidence else 0.0)
