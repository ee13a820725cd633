"""Watching a forward pass: which tensors depend on the pixels, which activation function they enter, who returned them.

A place in a forward pass is named by ordinals (the n-th activation function, the n-th call of a module), which are the
same in every pass of a network, whatever the batch.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Generic, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.operations import ACTIVATIONS, in_place, map_tensors, tensors_in, written_to
from ierf.recorder import Geometry, Mark, Marks, Recorder

Values = Literal["pre-activation", "output"]
"""Of a layer that ends with an activation function: what enters that, or what the layer returns."""

FACTORIES = frozenset(
    "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty "
    "new_tensor".split()
)
"""Make a constant of a tensor's shape and type."""
_LARGER_OR_SMALLER = frozenset(["maximum", "minimum"])
"""Activation functions where one of the two is a constant."""


@dataclass(frozen=True)
class Site:
    """Where a layer's PFVs are in the forward pass of a network."""

    layer: str
    call: int
    """Which call of the layer, of those that return what depends on the pixels, counted from 1: the last."""
    activation: int | None
    """Which activation function of the pass the PFVs enter; None: they are the layer's output."""
    axis: int
    """Of the channels."""
    shape: tuple[int, ...]
    """Of the layer's tensor, without the samples."""

    @property
    def values(self) -> Values:
        return "output" if self.activation is None else "pre-activation"

    @property
    def channels(self) -> int:
        return self.shape[self.axis - 1]

    @property
    def map(self) -> tuple[int, ...]:
        """Sizes of the position axes; () for pooled features, which have one position."""
        return self.shape[: self.axis - 1] + self.shape[self.axis :]

    @property
    def positions(self) -> int:
        return prod(self.map)

    def pfvs(self, tensor: Tensor) -> Float[Tensor, "N P C"]:
        """All positions of the layer's tensor, row-major; all tokens of a sequence."""
        return tensor.movedim(self.axis, -1).reshape(len(tensor), self.positions, self.channels)

    def tensor(self, pfvs: Float[Tensor, "N P C"]) -> Tensor:
        """The layer's tensor of these PFVs, a copy. Raises `IerfError` for other positions or channels."""
        if pfvs.ndim != 3 or pfvs.shape[1:] != (self.positions, self.channels):
            raise IerfError(
                f"the PFVs at {self.layer!r} are (N, {self.positions}, {self.channels}), all positions row-major, "
                f"not {tuple(pfvs.shape)}"
            )
        placed = pfvs.reshape(len(pfvs), *self.map, self.channels).movedim(-1, self.axis)
        return placed.clone(memory_format=torch.contiguous_format)


class Entering(NamedTuple):
    """What enters an activation function, and which one of the pass that is."""

    activation: int
    tensor: Tensor


class Operation(NamedTuple):
    """A call on at least one tensor that depends on the pixels."""

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    followed: list[Tensor]
    """Those among the arguments that depend on the pixels."""
    entering: Entering | None
    """Set if this is an activation function."""
    written: Tensor | None
    """The tensor that is changed in place."""

    def run(self) -> Any:
        return self.func(*self.args, **self.kwargs)


def check_values(values: str) -> None:
    """Raises `UnknownNameError` for anything but "pre-activation" and "output"."""
    if values not in get_args(Values):
        raise UnknownNameError("kind of PFV values", values, get_args(Values))


class Following(Recorder, Generic[Mark]):
    """Inside this context, what depends on the pixels is known and activation functions are counted.

    The base of what captures, replaces and cuts; by itself it changes nothing. `start` is called with the pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self._marks: Marks[Mark] = Marks(self._shown, self._changed)
        self._calls: Counter[str] = Counter()
        self._activations = 0

    def start(self, x: Tensor) -> Tensor:
        """The pixels that the network is to be given."""
        with self.aside():
            self._marks[x] = self._first(x)
        return x

    def _seen(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = map_tensors(self.current, (args, kwargs))
        followed = [t for t in tensors_in(args, kwargs) if t in self._marks]
        if not followed:
            return func(*args, **kwargs)
        written = written_to(name, func, args, kwargs)
        name = name[:-1] if in_place(name) else name
        entering = None
        if _is_activation(name, args, kwargs, followed):
            (x,) = followed
            entering = Entering(self._activations, self._entering(self._activations, x))
            self._activations += 1
            args, kwargs = map_tensors(lambda t: entering.tensor if t is x else t, (args, kwargs))
            followed = [entering.tensor]
            written = entering.tensor if written is x else written
        operation = Operation(name, func, args, kwargs, followed, entering, written)
        output = self._run(operation)
        if written is not None:
            self._marks.written(written)
        if name not in FACTORIES:
            for tensor in tensors_in(output, () if written is None else written):
                if tensor.is_floating_point() or tensor.is_complex():
                    self._note(operation, tensor)
        return output

    def _note(self, operation: Operation, tensor: Tensor) -> None:
        """`tensor` is what an operation returned or wrote to."""
        if self._marks.exactly(tensor) is None:
            self._marks[tensor] = self._mark(operation, tensor)

    def check_calls(self, layer: str, calls: int, samples: int) -> None:
        """Raises `IerfError` where a layer has not run as often as for one sample: its call is then another place."""
        if self._calls[layer] != calls:
            raise IerfError(
                f"the layer {layer!r} runs {self._calls[layer]} times for {samples} samples and {calls} times for one; "
                "give one sample at a time, or take a layer around the loop"
            )

    def current(self, tensor: Tensor) -> Tensor:
        """What a tensor stands for."""
        return tensor

    def _entering(self, activation: int, x: Tensor) -> Tensor:
        """What enters the activation function of this number in the place of `x`."""
        return x

    def _run(self, operation: Operation) -> Any:
        """The result of an operation on tensors that depend on the pixels."""
        return operation.run()

    def _first(self, x: Tensor) -> Mark:
        """What is noted of the pixels."""
        raise NotImplementedError

    def _mark(self, operation: Operation, output: Tensor) -> Mark:
        """What is noted of a tensor that an operation returned."""
        raise NotImplementedError

    def _shown(self, mark: Mark, cells: Geometry, tensor: Tensor) -> Mark:
        """What is known of a tensor by a mark of other cells of its storage."""
        return mark

    def _changed(self, mark: Mark) -> Mark:
        """What is left of a mark where the memory of its tensor was written to."""
        return mark

    def _left(self, name: str, output: Any) -> Any:
        tensor = next((t for t in map(self.current, tensors_in(output)) if t in self._marks), None)
        if not name or tensor is None:
            return None
        self._calls[name] += 1
        replaced = self._returned(name, self._calls[name], tensor)
        return replaced if isinstance(output, Tensor) and replaced is not output else None

    def _returned(self, layer: str, call: int, tensor: Tensor) -> Tensor:
        """What stands for the first tensor in what a layer returns."""
        return tensor

    @property
    def _where(self) -> str:
        """Where the pass is, for messages."""
        return f" in {self._module!r}" if self._module else ""


def _is_activation(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], followed: list[Tensor]) -> bool:
    if len(followed) != 1:
        return False
    first = args[0] if args else kwargs.get("input")
    return (name in ACTIVATIONS and first is followed[0]) or name in _LARGER_OR_SMALLER
