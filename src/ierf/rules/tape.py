"""What one forward pass did: its tensors in order, who used whom, and which of them are cuts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ierf.axes import Channels
from ierf.operations import LAYERS
from ierf.rules.bias import Affine
from ierf.rules.fields import Fields, pixel_fields, receptive_fields
from ierf.rules.primitives import Place, metered

_EXPANSIONS = frozenset(["expand", "expand_as", "broadcast_to", "broadcast_tensors", "repeat"])


class Made(NamedTuple):
    """The call that made a node, and the nodes that its relevance goes to."""

    operation: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sources: tuple[int, ...]


@dataclass(slots=True)
class Node:
    """One tensor that depends on the pixels."""

    tensor: Tensor
    place: Place
    parents: tuple[int, ...]
    axis: int
    made: Made | None = None
    """None: the input itself."""
    scalar: bool = False
    """Whether everything that comes back to this tensor is reduced to one relevance per position."""
    port: Tensor | None = None
    """The map of zeros whose gradient is relevance of this tensor's positions, beside what the tensor's own brings."""
    gate: int = 0
    """How much this looks like a gate: 3 for what normalises, 2 after a bounded activation, 1 after another, 0 else."""
    affine: Affine | None = None
    """The operation behind a tensor whose bias is still open, because a batch-norm may follow and fold it."""
    whole: Affine | None = None
    """The convolution and what this batch-norm made of it, as one affine operation."""
    settled: Tensor | None = None
    """The tensor with its bias shared, once somebody other than a batch-norm has used it."""
    folded_into: int | None = None
    """The batch-norm output with which this convolution output forms one affine operation."""
    constant: bool = False
    """Whether no relevance can flow back through it."""
    channel_taken: bool = False
    """Whether one channel was indexed out, so that `axis` is only a guess."""
    channels: tuple[Channels, ...] = ()
    """All places of the channels, where heads or a reshape have put them into other axes than `axis` alone."""
    sample_axis: int = 0
    """Where the samples are; −1 where one was taken out."""
    merged: bool = False
    """Whether samples have gone into another axis than the first."""
    lost: bool = False
    """Whether a mask has chosen among channels, so that no axis holds them."""
    masked: bool = False
    """Whether a comparison decided on it."""

    @property
    def plain(self) -> bool:
        """Whether its channels are in one axis. What a reshape has put beside them there counts as channels."""
        alone = len(self.channels) == 1 and self.channels[0].axis == self.axis
        return alone and not self.merged and self.channels[0].apart(self.tensor)

    @property
    def open(self) -> bool:
        """Whether a batch-norm may still fold this convolution in."""
        return self.affine is not None and self.affine.axis == 1

    @property
    def used(self) -> Tensor:
        """The tensor that the network went on from."""
        return self.tensor if self.settled is None else self.settled

    @property
    def operation(self) -> str:
        return self.place.operation

    @property
    def module(self) -> str:
        return self.place.module

    @property
    def is_map(self) -> bool:
        """Whether relevance has a meaning here: not inside a folded pair, not in a spectrum."""
        return self.folded_into is None and not self.tensor.is_complex()

    @property
    def map_shape(self) -> tuple[int, ...]:
        """Sizes of the axes that are positions: all but samples and channels."""
        return tuple(size for i, size in enumerate(self.tensor.shape) if i not in (0, self.axis))

    @property
    def positions(self) -> int:
        return prod(self.map_shape)


@dataclass(slots=True)
class Tape:
    """The record of a forward pass: `nodes[0]` is the input, the rest follow in the order of execution."""

    nodes: list[Node] = field(default_factory=list)
    layers: dict[str, int] = field(default_factory=dict)
    """Module name -> the node that the module returned, the last time it ran."""
    calls: dict[str, list[int]] = field(default_factory=dict)
    """Module name -> the nodes that it returned, one for each time."""
    masks: dict[int, int] = field(default_factory=dict)
    """Identity of a mask -> the node that was compared with a constant to make it."""
    output: int = 0
    _fields: list[Fields | None] = field(default_factory=list)

    def note(self, layer: str, node: int) -> None:
        """`layer` has returned `node`."""
        self.layers[layer] = node
        self.calls.setdefault(layer, []).append(node)

    def own_size(self, node: int) -> int:
        """The numbers that a node holds before they were expanded."""
        entry = self.nodes[node]
        while entry.operation in _EXPANSIONS and entry.made is not None:
            entry = self.nodes[entry.made.sources[0]]
        return entry.tensor.numel()

    def cuts(self, end: int | None = None) -> list[int]:
        """Nodes that every path from the input to `end` (default: the output) passes, in order, `end` included.

        Node k is a cut if nothing older than k is used after k.
        """
        relevant = self._ancestors(self.output if end is None else end)
        last_use = dict.fromkeys(relevant, 0)
        for k in relevant:
            for parent in self.nodes[k].parents:
                last_use[parent] = k
        found, open_until = [], 0
        for k in relevant:
            if open_until <= k:
                found.append(k)
            open_until = max(open_until, last_use[k])
        return found

    def fields(self, node: int) -> Fields | None:
        """Which pixels each position of a node can see; None where that is unbounded or not known."""
        for entry in self.nodes[len(self._fields) : node + 1]:
            self._fields.append(self._fields_of(entry))
        return self._fields[node]

    def _fields_of(self, entry: Node) -> Fields | None:
        if entry.made is None:
            return pixel_fields(entry.tensor)
        operation, args, kwargs, sources = entry.made
        parents = [(self.nodes[k].tensor, self._fields[k]) for k in sources]
        return receptive_fields(operation, args, kwargs, parents, self.nodes[sources[0]].axis, entry.tensor)

    def _ancestors(self, node: int) -> list[int]:
        seen, waiting = {node}, [node]
        while waiting:
            for parent in self.nodes[waiting.pop()].parents:
                if parent not in seen:
                    seen.add(parent)
                    waiting.append(parent)
        return sorted(seen)

    def behind_a_layer(self, nodes: Iterable[int]) -> bool:
        """Whether these nodes, or any between them and the pixels, are the output of a convolution or linear layer."""
        return any(self.nodes[k].operation in LAYERS for node in nodes for k in self._ancestors(node))

    def layer_names(self, node: int) -> Iterator[str]:
        """The modules that returned this node, outermost first."""
        return iter(sorted((name for name, k in self.layers.items() if k == node), key=lambda n: n.count(".")))

    def describe(self, node: int) -> str:
        """A name for a node that a user recognises: its layer, else the operation and where it ran."""
        name = next(self.layer_names(node), None)
        if name:
            return name
        operation, module = self.nodes[node].operation, self.nodes[node].module
        return f"{operation} in {module}" if module else operation

    def settle(self, node: int) -> Tensor:
        """The node's tensor with its bias shared, fit to go on from."""
        entry = self.nodes[node]
        if entry.settled is None:
            entry.settled = entry.tensor
            if entry.affine is not None:
                with torch.set_grad_enabled(entry.tensor.requires_grad):
                    backward, entry.settled = entry.affine.backward, entry.affine.share(entry.tensor)
                    if backward.metered and entry.settled.requires_grad:
                        entry.settled = metered(entry.settled, backward, entry.place, 1.0)
        return entry.settled
