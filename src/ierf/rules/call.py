"""One intercepted operation as its rule sees it, and what happens to one without a rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor

from ierf.axes import Channels, Layout, layout_of
from ierf.operations import map_tensors, tensors_in
from ierf.rules.bias import Affine
from ierf.rules.primitives import Backward, Place, constant, unruled
from ierf.rules.tape import Node, Tape

Unknown = Literal["raise", "gradient"]
UNKNOWN: tuple[str, ...] = get_args(Unknown)
"""What an operation without a rule does once relevance reaches it: "raise", or "gradient" to pass it by its plain
gradient (the ledger shows what that leaks)."""


class Value(NamedTuple):
    """What one operation returned."""

    operation: str
    module: str
    tensor: Tensor


Trace = list[Value]


@dataclass(slots=True)
class Call:
    """One intercepted operation, ready for its rule: `func(*args, **kwargs)` computes what the network asked for."""

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tracked: dict[int, int]
    """Identity of an argument -> its node on the tape."""
    tape: Tape
    backward: Backward
    place: Place
    samples: int = 1
    """Pictures in the pass."""
    axis: int | None = None
    """Of the output's channels, where that is known before."""
    scalar: bool = False
    """Whether the rule reduces relevance to one number per position."""
    port: Tensor | None = None
    """Where relevance can be sent to the positions of the output, see `ierf.rules.sharing_ratio`."""
    constant: bool = False
    """Whether the rule passes no relevance on."""
    held: list[int] = field(default_factory=list)
    """Nodes that this operation uses as constants."""
    affine: Affine | None = None
    """What the rule leaves open for a batch-norm to fold."""
    whole: Affine | None = None
    """The affine operation that the output is of, with what the rule has folded."""
    folds: int | None = None
    """The node that the rule has folded into its output."""

    @property
    def nodes(self) -> list[int]:
        """The nodes of the arguments that depend on the pixels, each once."""
        return list(dict.fromkeys(self.tracked.values()))

    def port_of(self, tensor: Tensor) -> Tensor | None:
        """The port of an argument; none where a ledger wants to see what comes back to the tensor itself."""
        node = self.node_of(tensor)
        return None if node is None or self.backward.metered else node.port

    def node_of(self, tensor: Any) -> Node | None:
        """The tape's entry of an argument; None for weights and other constants."""
        k = self.tracked.get(id(tensor))
        return None if k is None else self.tape.nodes[k]

    def own_size(self, tensor: Tensor) -> int:
        """The numbers in an argument, before they were expanded."""
        k = self.tracked.get(id(tensor))
        return tensor.numel() if k is None else self.tape.own_size(k)

    def hold(self, tensor: Tensor) -> Tensor:
        """The same values as a constant: no relevance flows back through them."""
        self.held.append(self.tracked[id(tensor)])
        return constant(tensor, self.backward)

    def activations(self) -> list[Tensor]:
        """The arguments that depend on the pixels, as often as they are given."""
        return [t for t in tensors_in(self.args, self.kwargs) if id(t) in self.tracked]

    def masks(self) -> list[int]:
        """The nodes that masks among the arguments were made of, by comparing them with constants."""
        return [k for t in tensors_in(self.args, self.kwargs) if (k := self.tape.masks.get(id(t))) is not None]

    def channels_of(self, output: Tensor) -> tuple[Channels, ...]:
        """Where the channels of an output are."""
        if self.axis is not None:
            return Layout.along(self.axis, output).channels
        main = self.activations()[0]
        node = self.tape.nodes[self.tracked[id(main)]]
        known = Layout(node.axis, node.channels, node.channel_taken)
        return layout_of(self.name, self.args, self.kwargs, main, known, output).channels

    def given(self, *names: str) -> dict[str, Any]:
        """The arguments by name, however they were passed; `names` are the function's first parameters."""
        return dict(zip(names, self.args, strict=False)) | self.kwargs

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def run(self, hold: Sequence[Tensor] = ()) -> Any:
        """The operation itself, with the activations in `hold` as constants."""
        args, kwargs = self.args, self.kwargs
        for tensor in hold:
            held = self.hold(tensor)
            args, kwargs = map_tensors(partial(replaced, tensor, held), (args, kwargs))
        return self.func(*args, **kwargs)


Rule = Callable[[Call], Any]
"""What an operation does under the mode: computes its output such that autograd takes the method's way back."""


def replaced(old: Tensor, new: Tensor, tensor: Tensor) -> Tensor:
    """`new` for `old`, anything else as it is."""
    return new if tensor is old else tensor


def fallback(unknown: Unknown, call: Call) -> Any:
    """An operation without a rule: computed as it is, an error once relevance wants to pass through it."""
    output = call.run()
    if unknown == "gradient":
        call.place.operation += " (plain gradient)"
        return output
    way_out = 'pass unknown="gradient" to let relevance through it by the plain gradient (the ledger shows what leaks)'
    return map_tensors(lambda t: unruled(t, call.backward, call.place, way_out) if t.requires_grad else t, output)
