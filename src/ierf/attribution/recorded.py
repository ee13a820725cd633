"""A forward pass that was recorded, and where in it a resolution or a layer is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self

import torch
from torch import Tensor

from ierf.attribution.model_context import running
from ierf.attribution.token_grid import TokenGrid, token_grid
from ierf.axes import RESHAPES
from ierf.errors import IerfError, UnknownNameError
from ierf.model import Outputs, VisionModel
from ierf.operations import ACTIVATIONS, CONVOLUTIONS, TRANSPOSED
from ierf.rules import AttnLRPRules, Backward, SRDRules, Tape, as_cotangent, as_relevance, injected, record

Rules = SRDRules | AttnLRPRules
_CONVOLVING = CONVOLUTIONS | TRANSPOSED
_AFFINE = ("linear", "addmm", "matmul", "einsum", "tensordot", *_CONVOLVING)
_REARRANGEMENTS = RESHAPES | frozenset("permute transpose movedim moveaxis swapaxes mT T".split())
_REDUCTIONS = frozenset("mean sum amax amin max min logsumexp".split())
_PICKING = ("__getitem__", "select", "narrow", "gather", "index_select", "take_along_dim")


@dataclass(eq=False)
class RecordedPass:
    """One forward pass on its tape, ready to be walked back from anywhere to anywhere upstream."""

    tape: Tape
    backward: Backward
    encoder_layer: str | None = None
    tape_of: Callable[[Tensor], Tape] | None = None
    """The tape of the same network, by the same rules, on other pixels."""
    outputs: Outputs = "classes"
    """What the network returns."""

    @classmethod
    @contextmanager
    def of(
        cls, model: VisionModel, x: Tensor, rules: Rules, encoder: str | None = None, backward: Backward | None = None
    ) -> Iterator[Self]:
        """The forward pass of `model` on `x` under `rules`; the model is in evaluation mode until the context is left.

        backward: its switches; `metered` makes a ledger possible, `many` batches of backward passes.
        """
        with running(model, x) as (forward, pixels):
            switches = backward or Backward()
            tape_of = partial(
                record,
                model.net,
                rules=rules.table(),
                fallback=rules.fallback,
                backward=switches,
                forward=forward.recorded,
                plain=forward.plain,
            )
            yield cls(tape_of(pixels), switches, encoder, tape_of, model.outputs)

    @property
    def logits(self) -> Tensor:
        return self.tape.settle(self.tape.output)

    @cached_property
    def encoder(self) -> int:
        """The encoder output: the last feature map that every path passes and that an affine operation still follows.

        A map that was only rearranged, or pooled over some of its positions, does not count as another, nor do the
        heads of an attention pooling.
        """
        if self.encoder_layer is not None:
            if len(set(self.tape.calls.get(self.encoder_layer, ()))) > 1:
                raise IerfError(
                    f"the layer {self.encoder_layer!r} runs {len(self.tape.calls[self.encoder_layer])} times in one "
                    "pass, and relevance would start at the last of them alone; name a layer behind which they are "
                    "joined, or explain by method='attnlrp', which starts at the output"
                )
            return self.layer(self.encoder_layer)
        nodes, cuts = self.tape.nodes, self.tape.cuts()
        last = max((k for k in range(len(nodes)) if nodes[k].operation in _AFFINE), default=0)
        maps = [k for k in cuts[1:] if k < last and nodes[k].positions > 1 and self._has_features(k)]
        grids = {k: grid for k in maps if (grid := self.grid(k)) is not None}
        if grids:
            last_tokens, grid = max(grids.items())
            convolved = next((k for k in range(last_tokens + 1, last) if nodes[k].operation in _CONVOLVING), last)
            inside = [k for k in maps if last_tokens < k < convolved and not nodes[k].plain]
            maps = [k for k in maps if k not in inside or grid.is_shape_of(nodes[k].map_shape)]
        if not maps:
            raise IerfError(
                "found no feature map with more than one position between the pixels and the logits; "
                "name the encoder's last layer with encoder="
            )
        return maps[-1]

    def _has_features(self, node: int) -> bool:
        """Whether a node is a map of each sample: not one rearranged, nor pooled along some of the picture's axes."""
        entry, axes = self.tape.nodes[node], len(self.tape.nodes[0].map_shape)
        if entry.sample_axis != 0:
            return False
        if entry.operation in _REARRANGEMENTS:
            return any(self.tape.nodes[k].sample_axis != 0 for k in entry.parents)
        pooled = entry.operation in _REDUCTIONS and len(entry.map_shape) < axes
        return not pooled and not entry.operation.startswith("adaptive")

    @cached_property
    def low(self) -> int:
        """The map for resolution "low": the encoder output, or the last one before whose patches the logits depend on.

        Where logits are read off a class token, only that token of the encoder output has an influence; that of the
        patches ends at the input of the last block's first norm.
        """
        if self.encoder_layer is not None or (grid := self.grid(self.encoder)) is None:
            return self.encoder
        logits = self.logits
        weights = torch.linspace(1, 2, logits.numel()).view_as(logits).to(logits)
        for k in reversed([k for k in self.tape.cuts() if 0 < k <= self.encoder]):
            if self.grid(k) != grid:
                break
            entry = self.tape.nodes[k]
            with self.backward.as_gradient():
                (slope,) = torch.autograd.grad(logits, entry.tensor, weights, retain_graph=True)
            if bool(grid.to_map(slope.movedim(entry.axis, 1)).any()):
                return k
        return self.encoder

    def grid(self, node: int) -> TokenGrid | None:
        """Rows and columns of the patches among the tokens of `node`; None for other maps and where it is unknown."""
        return token_grid(self.tape, node)

    def on_grid(self, node: int, values: Tensor) -> Tensor:
        """Values at the positions of a map, (..., T) for tokens: with the rows and columns of the patches, if known."""
        grid = self.grid(node)
        return values if grid is None else grid.to_map(values)

    @cached_property
    def reads_positions(self) -> bool:
        """Whether the outputs are read off single positions of the encoder output: dense outputs, or one picked out."""
        if self.logits.ndim > 2:
            return True
        nodes = self.tape.nodes
        behind = {self.encoder}
        for k in range(self.encoder + 1, self.tape.output + 1):
            entry = nodes[k]
            sources = [p for p in entry.parents if p in behind]
            if not sources:
                continue
            behind.add(k)
            fewer = entry.positions < nodes[sources[0]].positions and len(nodes[sources[0]].map_shape) > 1
            if fewer and entry.operation in _PICKING:
                return True
        return False

    def layer(self, name: str) -> int:
        """The node of a layer's output; of a convolution that a batch-norm follows, that of the pair."""
        if name not in self.tape.layers:
            raise UnknownNameError("layer", name, self.tape.layers)
        k = self.tape.layers[name]
        folded = self.tape.nodes[k].folded_into
        return k if folded is None else folded

    def entering(self, node: int) -> int:
        """The node of what entered the activation function that made a node; of any other, the node itself."""
        entry = self.tape.nodes[node]
        return entry.parents[0] if entry.operation in ACTIVATIONS and len(entry.parents) == 1 else node

    def at(self, resolution: str) -> int:
        """The node at which a backward pass stops: "low", "high", "input" or a layer's name.

        high: going back from there, the first map of at least 1/8 of the input's side, by rows and columns, that is a
        cut (a padded copy of a map does not count).
        """
        if resolution == "input":
            return 0
        if resolution == "low":
            return self.low
        if resolution != "high":
            return self.layer(resolution)
        nodes = self.tape.nodes
        size = nodes[0].map_shape
        for k in reversed([k for k in self.tape.cuts() if k <= self.low]):
            grid = self.grid(k)
            shape = nodes[k].map_shape if grid is None else (grid.rows, grid.columns)
            if nodes[k].operation == "pad" or not nodes[k].is_map:
                continue
            if len(shape) == len(size) and all(8 * side >= full for side, full in zip(shape, size, strict=True)):
                return k
        return 0

    def pfvs(self, node: int) -> Tensor:
        return self.tape.nodes[node].tensor.detach()

    def cotangent(self, node: int, relevance: Tensor) -> Tensor:
        """The gradient at a node that carries one relevance per position, (N, H, W) or (B, N, H, W)."""
        return as_cotangent(relevance, self.pfvs(node), self.tape.nodes[node].axis)

    def carry(self, start: int, gradient: Tensor, stops: Sequence[int]) -> list[Tensor]:
        """The relevance that `gradient` at `start` brings to each position of the maps of `stops`."""
        gradients = self.back(start, gradient, stops)
        nodes = self.tape.nodes
        return [as_relevance(g, self.pfvs(k), nodes[k].axis) for k, g in zip(stops, gradients, strict=True)]

    def back(self, start: int, gradient: Tensor, stops: Sequence[int]) -> list[Tensor]:
        """The gradients at `stops`, by the rules of this pass; `R = a ⊙ g`.

        `gradient` has the shape of the tensor at `start`, with one axis more in front for a batch of backward passes.
        """
        if not stops:
            return []
        output, entries = self.tape.settle(start), [self.tape.nodes[k] for k in stops]
        ported = [k for k, entry in enumerate(entries) if entry.port is not None]
        sources = [entry.used for entry in entries] + [port for entry in entries if (port := entry.port) is not None]

        def vjp(cotangent: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(output, sources, cotangent, retain_graph=True, allow_unused=True)

        found = list(torch.func.vmap(vjp)(gradient) if gradient.ndim > output.ndim else vjp(gradient))
        for k, sent in zip(ported, found[len(stops) :], strict=True):
            if sent is not None:
                through_port = injected(self.pfvs(stops[k]), sent, entries[k].axis)
                found[k] = through_port if (direct := found[k]) is None else direct + through_port
        for stop, at_stop in zip(stops, found, strict=False):
            if at_stop is None:
                raise IerfError(
                    f"{self.tape.describe(stop)!r} does not lie between the pixels and {self.tape.describe(start)!r}, "
                    "so no relevance reaches it"
                )
        return [g for g in found[: len(stops)] if g is not None]

    def first_tokens(self, node: int) -> int:
        """The first map of tokens, one for each patch, that every path to `node` passes."""
        tokens = [k for k in self.tape.cuts(node) if k > 0 and self.grid(k) is not None]
        if not tokens:
            raise IerfError(f"no patches become tokens before {self.tape.describe(node)!r}; ask for the pixels instead")
        return tokens[0]
