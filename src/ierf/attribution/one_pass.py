"""What one recorded pass tells of a photograph: maps of classes, the PFVs behind them and their iERFs, the account."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.attribute import RelevancePass, relevance_pass, usual_method
from ierf.attribution.conservation import Ledger, ledger
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.srd import Head
from ierf.attribution.target_seeds import one_hot
from ierf.attribution.targets import PFV, Position
from ierf.attribution.token_grid import TokenGrid
from ierf.model import VisionModel
from ierf.rules import Backward

RESOLUTIONS = ("low", "high", "input")

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


@dataclass(frozen=True, eq=False)
class PFVField:
    """A PFV that matters for a class, and the pixels that caused it."""

    pfv: RelevantPFV
    map_shape: tuple[int, ...]
    """Of the layer: (rows, columns), or (tokens,)."""
    ierf: Float[Tensor, "H W"]
    """Sums to 1."""
    grid: TokenGrid | None = None
    """Where the patches are among tokens."""

    @property
    def cell(self) -> tuple[int, int] | None:
        """(row, column) of its place in the picture; None for a token of no patch."""
        if self.grid is not None:
            return self.grid.cell(self.position[0])
        return (self.position[0], self.position[1]) if len(self.position) == 2 else None

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the layer's map; of tokens those of the patches, (1, 1) where they are unknown."""
        if self.grid is not None:
            return self.grid.rows, self.grid.columns
        return (self.map_shape[0], self.map_shape[1]) if len(self.map_shape) == 2 else (1, 1)

    @property
    def layer(self) -> str:
        return self.pfv.layer

    @property
    def position(self) -> tuple[int, ...]:
        """(row, column) in the layer's map, or (token,)."""
        return self.pfv.position

    @property
    def relevance(self) -> float:
        """What the PFV is worth to the first class explained."""
        return self.pfv.relevance

    @property
    def share(self) -> float:
        """Its relevance as a share of the layer's positive relevance, in [0, 1] for a PFV that speaks for the class."""
        return self.pfv.share


class Told(NamedTuple):
    """What one pass tells of one sample, on the CPU."""

    logits: Float[Tensor, " K"]
    maps: dict[int, dict[str, Float[Tensor, "h w"]]]
    """Class -> resolution -> map."""
    fields: list[PFVField]
    """PFVs that matter for the first class, layer by layer."""
    ledger: Ledger
    """Of the first class."""


def told_by_one_pass(
    model: VisionModel,
    x: Float[Tensor, "1 3 H W"],
    choose: Callable[[Float[Tensor, " K"]], Sequence[int]],
    method: str,
    resolutions: Sequence[str] | None = None,
    pfvs: Sequence[PFV] | None = None,
    *,
    head: Head | None = None,
    encoder: str | None = None,
    **rules: Any,
) -> Told:
    """One forward pass; per class one backward pass that stops at all resolutions (SRD: and one through the head).

    choose: the classes to explain, from the logits. pfvs: those whose iERFs are wanted; None: the strongest of three
    layers. head: of SRD. rules: options of the method's rules.
    """
    of_class: dict[str, Any] = {} if head is None else {"head": head}
    with relevance_pass(model, x, method, rules, encoder, Backward(metered=True, many=True)) as run:
        logits = only(run.logits)
        stops = _stops(run, resolutions)
        starts = {index: run.start(index, **of_class) for index in choose(logits)}
        maps = {
            index: {
                name: only(run.on_grid(node, m))
                for (name, node), m in zip(stops.items(), run.carry(*start, list(stops.values())), strict=True)
            }
            for index, start in starts.items()
        }
        node, gradient = next(iter(starts.values()))
        if pfvs is None:
            found = strongest_pfvs(run, node, gradient, layers_over_depth(run, node))
        else:
            found = relevant_pfvs(run, node, gradient, pfvs)
        return Told(logits, maps, _fields(run, found), ledger(run, node, gradient))


def _stops(run: RelevancePass, resolutions: Sequence[str] | None) -> dict[str, int]:
    """Where each map is read off; by default the three resolutions, without those that are one and the same map."""
    if resolutions is not None:
        return {name: run.at(name) for name in resolutions}
    stops: dict[str, int] = {}
    for name in ("input", "low", "high"):
        if (node := run.at(name)) not in stops.values():
            stops[name] = node
    return {name: stops[name] for name in RESOLUTIONS if name in stops}


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


def _fields(run: RelevancePass, found: Sequence[RelevantPFV]) -> list[PFVField]:
    """The PFVs with their iERFs, layer by layer: one batch of backward passes for each."""
    by_layer: dict[str, list[RelevantPFV]] = {}
    for pfv in found:
        by_layer.setdefault(pfv.layer, []).append(pfv)
    return [each for layer, pfvs in by_layer.items() for each in _fields_of_layer(run, layer, pfvs)]


def _fields_of_layer(run: RelevancePass, layer: str, pfvs: Sequence[RelevantPFV]) -> list[PFVField]:
    node = run.layer(layer)
    shape = run.tape.nodes[node].map_shape
    hot = torch.stack([one_hot(pfv.position, (1, *shape), layer) for pfv in pfvs])
    (ierfs,) = run.carry(node, run.cotangent(node, hot.to(run.pfvs(node))), [0])
    return [PFVField(pfv, shape, only(ierf), run.grid(node)) for pfv, ierf in zip(pfvs, ierfs, strict=True)]


def only(batch: Float[Tensor, "1 ..."]) -> Tensor:
    """The one sample's part, on the CPU, free of the pass that made it."""
    return batch.detach()[0].cpu()


class LayerGrid(NamedTuple):
    """A layer that every path through the network passes, and the rows and columns of its positions."""

    name: str
    rows: int
    columns: int


def layer_grids(run: RelevancePass) -> list[LayerGrid]:
    """The layers from the pixels to the encoder output that have rows and columns."""
    nodes = [k for k in run.tape.cuts() if 0 < k <= run.low and run.tape.nodes[k].positions > 1]
    names = {k: next(run.tape.layer_names(k), "") for k in nodes}
    grids = [LayerGrid(name, *_rows_and_columns(run.tape.nodes[k].map_shape, run.grid(k))) for k, name in names.items()]
    return [grid for grid in grids if grid.name and grid.rows]


def patch_grid(model: VisionModel, layer: str) -> TokenGrid | None:
    """Rows and columns of a layer's patches among its tokens, as a pass of noise shows them; None: it has none."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, *model.preprocess.shape, generator=generator).to(model.device, model.dtype)
    with relevance_pass(model, noise, usual_method(model), {}) as run:
        return run.grid(run.layer(layer))


def _rows_and_columns(shape: tuple[int, ...], grid: Any) -> tuple[int, int]:
    """(0, 0) where a map has none."""
    if grid is not None:
        return grid.rows, grid.columns
    return (shape[0], shape[1]) if len(shape) == 2 else (0, 0)
