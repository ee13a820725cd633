"""Which axis of a network's input holds the channels: 1, the last (N, H, W, C), or behind frames (N, F, C, H, W)."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ierf.operations import CONVOLUTIONS, TRANSPOSED, operation_name, tensors_in

_FEW = 4
"""Pictures have at most this many channels where nothing else tells them from rows and columns."""
_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], int]] = WeakKeyDictionary()


def channels_of_pixels(net: nn.Module, forward: Callable[[Tensor], Any], x: Tensor) -> int:
    """The axis of `x` that arrives at the channels of the first convolution; found once for each network and shape.

    forward: the network as a function. What happens to the pixels before the first layer (permuted, reshaped, padded,
    normalised, resized) is followed by its gradient: two values that differ in the channel alone come from pixels that
    do. Where a single axis is short enough for channels that is it, without a pass; a network that begins with a linear
    layer says nothing: then it is the first of 1, the last, and 2 that is short enough.
    """
    short = [i for i in range(1, x.ndim) if x.shape[i] <= _FEW]
    if len(short) == 1:
        return short[0]
    known = _KNOWN.setdefault(net, {})
    shape = tuple(x.shape[1:])
    if shape not in known:
        known[shape] = _followed(forward, x[:1]) or _guessed(shape)
    return known[shape]


def _guessed(shape: tuple[int, ...]) -> int:
    """The axis, of a sample's shape, that is short enough."""
    few = [i for i in (0, len(shape) - 1, 1) if shape[i] <= _FEW]
    return few[0] + 1 if few else 1


_POOLINGS = frozenset(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3))
_NORMS = frozenset(["batch_norm", "group_norm", "instance_norm"])
_FIRST = CONVOLUTIONS | TRANSPOSED | _POOLINGS | _NORMS | {"linear", "addmm", "matmul", "einsum", "tensordot"}
"""What a pass is followed to. All but the last few say where the channels of their input are."""


class _FirstLayer(Exception):  # noqa: N818
    """Carries what enters the first layer out of a forward pass that need not go on."""

    def __init__(self, entered: Tensor, operation: str) -> None:
        super().__init__(operation)
        self.entered, self.operation = entered, operation


class _UntilFirstLayer(TorchFunctionMode):
    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        self._of_pixels = {id(pixels): pixels}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = operation_name(func), kwargs or {}
        entered = next((t for t in tensors_in(args, kwargs) if id(t) in self._of_pixels), None)
        if name in _FIRST and entered is not None:
            raise _FirstLayer(entered, name)
        output = func(*args, **kwargs)
        if entered is not None:
            self._of_pixels |= {id(t): t for t in tensors_in(output)}
        return output


def _followed(forward: Callable[[Tensor], Any], x: Tensor) -> int | None:
    pixels = x.detach().clone().requires_grad_()
    try:
        with torch.enable_grad(), _UntilFirstLayer(pixels):
            forward(pixels)
    except _FirstLayer as first:
        behind = 0 if first.operation not in CONVOLUTIONS | TRANSPOSED | _POOLINGS else int(first.operation[-2])
        channels = first.entered.ndim - 1 - behind if behind else 1
        if behind or first.operation in _NORMS:
            with suppress(RuntimeError):  # torch cannot go back through what the network does in place
                return _origin(first.entered, channels, pixels)
    except Exception:  # the pass itself will say what is wrong with the network
        return None
    return None


def _origin(entered: Tensor, channels: int, pixels: Tensor) -> int | None:
    """The axis of the pixels along which the axis `channels` of what enters a layer runs."""
    varied = _varied(entered, channels, pixels)
    if varied:
        return varied.pop() if len(varied) == 1 else None
    others = [_varied(entered, i, pixels) for i in range(channels + 1, entered.ndim)]
    left = set(range(1, pixels.ndim)).difference(*others)
    return left.pop() if len(left) == 1 else None


def _varied(entered: Tensor, axis: int, pixels: Tensor) -> set[int]:
    """The axes of the pixels in which two neighbours along an axis differ by where they come from."""
    if entered.shape[axis] < 2:
        return set()
    here = [size // 2 for size in entered.shape]
    places = []
    for step in (0, 1):
        here[axis] = entered.shape[axis] // 2 - 1 + step
        (slope,) = torch.autograd.grad(entered[tuple(here)], pixels, retain_graph=True)
        size = slope.abs()
        if int((size > size.max() / 2).sum()) > max(16, size.numel() // 20):
            return set()
        places.append(torch.unravel_index(size.argmax(), size.shape))
    return {i for i, (one, other) in enumerate(zip(*places, strict=True)) if i > 0 and int(one) != int(other)}
