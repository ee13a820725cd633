"""A forward pass that was recorded, and where in it a resolution or a layer is."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.rules import Backward, Tape

_AFFINE = ("linear", "addmm", "conv1d", "conv2d", "conv3d")


@dataclass(eq=False)
class RecordedPass:
    """One forward pass on its tape, whose nodes are found by resolution or by the layer's name."""

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
