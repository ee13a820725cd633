"""Watching a forward pass: which tensors depend on the pixels, which activation function they enter, who returned them.

A place in a forward pass is named by ordinals (the n-th activation function, the n-th call of a module), which are the
same in every pass of a network, whatever the batch.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from threading import get_ident
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from ierf.errors import IerfError, UnknownNameError
from ierf.operations import ACTIVATIONS, in_place, map_tensors, operation_name, tensors_in, without_inplace_flag

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
    """Which call of the layer, counted from 1: the last."""
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


class Following(TorchFunctionMode):
    """Inside this context, what depends on the pixels is known and activation functions are counted.

    The base of what captures, replaces and cuts; by itself it changes nothing. `start` is called with the pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self._marks: Any = WeakIdKeyDictionary()
        self._modules: list[str] = []
        self._calls: Counter[str] = Counter()
        self._activations = 0

    def start(self, x: Tensor) -> Tensor:
        """The pixels that the network is to be given."""
        self._marks[x] = 1
        return x

    @contextmanager
    def on(self, net: nn.Module) -> Iterator[Self]:
        """The context in which `net` runs; the names of running modules come from torch's global hooks."""
        names = {id(module): name for name, module in net.named_modules()}
        thread = get_ident()

        def enter(module: nn.Module, args: Any) -> None:
            if get_ident() == thread:
                self._modules.append(names.get(id(module), ""))

        def leave(module: nn.Module, args: Any, output: Any) -> Any:
            return self._left(output) if get_ident() == thread else None

        with ExitStack() as stack:
            for handle in (
                torch_module.register_module_forward_pre_hook(enter),
                torch_module.register_module_forward_hook(leave),
            ):
                stack.callback(handle.remove)
            stack.enter_context(self)
            yield self

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = operation_name(func)
        args, kwargs = map_tensors(self.current, (args, kwargs or {}))
        followed = [t for t in tensors_in(args, kwargs) if t in self._marks]
        if not followed:
            return func(*args, **kwargs)
        written = in_place(name) or name == "__setitem__" or without_inplace_flag(func, args, kwargs)[2]
        name = name[:-1] if in_place(name) else name
        entering = None
        if _is_activation(name, args, kwargs, followed):
            (x,) = followed
            entering = Entering(self._activations, self._entering(self._activations, x))
            self._activations += 1
            args, kwargs = map_tensors(lambda t: entering.tensor if t is x else t, (args, kwargs))
            followed = [entering.tensor]
        operation = Operation(name, func, args, kwargs, followed, entering, args[0] if written else None)
        output = self._run(operation)
        if name not in FACTORIES:
            for tensor in tensors_in(output, args[0] if written else ()):
                if tensor not in self._marks and (tensor.is_floating_point() or tensor.is_complex()):
                    self._marks[tensor] = self._mark(operation, tensor)
        return output

    def current(self, tensor: Tensor) -> Tensor:
        """What a tensor stands for."""
        return tensor

    def _entering(self, activation: int, x: Tensor) -> Tensor:
        """What enters the activation function of this number in the place of `x`."""
        return x

    def _run(self, operation: Operation) -> Any:
        """The result of an operation on tensors that depend on the pixels."""
        return operation.run()

    def _mark(self, operation: Operation, output: Tensor) -> Any:
        """What is noted of a tensor that an operation returned."""
        return 1

    def _left(self, output: Any) -> Any:
        name = self._modules.pop()
        self._calls[name] += 1
        tensor = next((t for t in map(self.current, tensors_in(output)) if t in self._marks), None)
        if not name or tensor is None:
            return None
        replaced = self._returned(name, self._calls[name], tensor)
        return replaced if isinstance(output, Tensor) and replaced is not output else None

    def _returned(self, layer: str, call: int, tensor: Tensor) -> Tensor:
        """What stands for the first tensor in what a layer returns."""
        return tensor

    @property
    def _where(self) -> str:
        """Where the pass is, for messages."""
        return next((f" in {name!r}" for name in reversed(self._modules) if name), "")


def _is_activation(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], followed: list[Tensor]) -> bool:
    if len(followed) != 1:
        return False
    first = args[0] if args else kwargs.get("input")
    return (name in ACTIVATIONS and first is followed[0]) or name in _LARGER_OR_SMALLER
