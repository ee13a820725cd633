"""A forward pass that was recorded, and where in it a resolution or a layer is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.rules import Backward, Tape, as_cotangent, as_relevance

_AFFINE = ("linear", "addmm", "conv1d", "conv2d", "conv3d")


@dataclass(eq=False)
class RecordedPass:
    """One forward pass on its tape, ready to be walked back from anywhere to anywhere upstream."""

    tape: Tape
    backward: Backward
    encoder_layer: str | None = None

    @property
    def logits(self) -> Tensor:
        return self.tape.settle(self.tape.output)

    @cached_property
    def encoder(self) -> int:
        """The encoder output: the last feature map that every path passes and that an affine operation still follows.

        The head's own adaptive pooling does not count as a feature map.
        """
        if self.encoder_layer is not None:
            return self.layer(self.encoder_layer)
        nodes, cuts = self.tape.nodes, self.tape.cuts()
        last = max((k for k in range(len(nodes)) if nodes[k].operation in _AFFINE), default=0)
        maps = [
            k for k in cuts[1:] if k < last and nodes[k].positions > 1 and not nodes[k].operation.startswith("adaptive")
        ]
        if not maps:
            raise IerfError(
                "found no feature map with more than one position between the pixels and the logits; "
                "name the encoder's last layer with encoder="
            )
        return maps[-1]

    def layer(self, name: str) -> int:
        """The node of a layer's output; of a convolution that a batch-norm follows, that of the pair."""
        if name not in self.tape.layers:
            raise UnknownNameError("layer", name, self.tape.layers)
        k = self.tape.layers[name]
        folded = self.tape.nodes[k].folded_into
        return k if folded is None else folded

    def at(self, resolution: str) -> int:
        """The node at which a backward pass stops: "low", "high", "input" or a layer's name.

        high: going back from the encoder output, the first map of at least 1/8 of the input's side that is a cut
        (a padded copy of a map does not count).
        """
        if resolution == "input":
            return 0
        if resolution == "low":
            return self.encoder
        if resolution != "high":
            return self.layer(resolution)
        nodes = self.tape.nodes
        size = nodes[0].map_shape
        for k in reversed([k for k in self.tape.cuts() if k <= self.encoder]):
            shape = nodes[k].map_shape
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
        output, sources = self.tape.settle(start), [self._source(stop, start) for stop in stops]

        def vjp(cotangent: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(output, sources, cotangent, retain_graph=True, allow_unused=True)

        found = torch.func.vmap(vjp)(gradient) if gradient.ndim > output.ndim else vjp(gradient)
        for stop, at_stop in zip(stops, found, strict=True):
            if at_stop is None:
                raise IerfError(
                    f"{self.tape.describe(stop)!r} does not lie between the pixels and {self.tape.describe(start)!r}, "
                    "so no relevance reaches it"
                )
        return [g for g in found if g is not None]

    def _source(self, stop: int, start: int) -> Tensor:
        """The tensor to differentiate by; a backward pass that stops where it starts needs the very same one."""
        return self.tape.settle(stop) if stop == start else self.tape.nodes[stop].tensor
