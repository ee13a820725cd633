"""Where the channels of a tensor are, and which pixels one of its positions can see."""

from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from ierf.rules.operations import ACTIVATIONS

_ELEMENTWISE = ACTIVATIONS | frozenset(
    "add sub rsub mul div neg batch_norm layer_norm contiguous clone to float double half dropout dropout2d "
    "feature_dropout cat concat softmax".split()
)


@dataclass(frozen=True, slots=True)
class Field:
    """Theoretical receptive field along one axis: position `p` sees pixels `stride·p + low … stride·p + high`."""

    stride: int = 1
    low: int = 0
    high: int = 0

    def through(self, kernel: int, stride: int, padding: int, dilation: int) -> "Field":
        """The field after a window slides over this axis."""
        low = self.low - padding * self.stride
        return Field(self.stride * stride, low, self.high + (dilation * (kernel - 1) - padding) * self.stride)

    def joined(self, other: "Field") -> "Field | None":
        if self.stride != other.stride:
            return None
        return Field(self.stride, min(self.low, other.low), max(self.high, other.high))


Fields = tuple[Field, ...]
"""One field for each spatial axis."""


def pixel_fields(x: Tensor) -> Fields:
    """The fields of the picture itself: a pixel sees itself."""
    return (Field(),) * (x.ndim - 2)


def channel_axis(name: str, parent: Tensor, axis: int, output: Tensor) -> int:
    """The channel axis of an operation's output, given that of its first activation.

    1 after a convolution, last after a linear layer, carried along by everything that reorders or reshapes axes.
    """
    if name.startswith("conv"):
        return 1
    if name == "linear":
        return output.ndim - 1
    if name in ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "T", "mT"):
        return _moved_axis(parent, axis, output)
    if name in ("unsqueeze", "squeeze", "select", "__getitem__", "mean", "sum", "unbind", "amax", "max", "stack"):
        return _surviving_axis(parent, axis, output)
    if output.shape[:1] == parent.shape[:1] and output.ndim == parent.ndim:
        return axis
    return _reshaped_axis(parent, axis, output)


def _moved_axis(parent: Tensor, axis: int, output: Tensor) -> int:
    """A permuted view keeps its strides, which identify the axis wherever sizes do not."""
    wanted = (parent.shape[axis], parent.stride(axis))
    candidates = [i for i in range(output.ndim) if (output.shape[i], output.stride(i)) == wanted]
    return candidates[0] if candidates else _default_axis(output)


def _surviving_axis(parent: Tensor, axis: int, output: Tensor) -> int:
    if output.ndim == parent.ndim:
        return axis
    candidates = [i for i in range(1, output.ndim) if output.shape[i] == parent.shape[axis]]
    nearest = sorted(candidates, key=lambda i: abs(i - axis))
    return nearest[0] if nearest else _default_axis(output)


def _reshaped_axis(parent: Tensor, axis: int, output: Tensor) -> int:
    """The axis of equal size with equally many elements in front of it, which is what a reshape preserves."""
    before, size = prod(parent.shape[:axis]), parent.shape[axis]
    for i in range(output.ndim):
        if output.shape[i] == size and prod(output.shape[:i]) == before:
            return i
    return _default_axis(output)


def _default_axis(output: Tensor) -> int:
    return 1 if output.ndim in (2, 4, 5) else output.ndim - 1


def receptive_fields(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    parents: list[tuple[Tensor, Fields | None]],
    output: Tensor,
) -> Fields | None:
    """Fields of an operation's output; None where they are unbounded or not known (then nothing is assumed)."""
    known = [fields for _, fields in parents]
    if any(fields is None for fields in known):
        return None
    fields = known[0]
    assert fields is not None
    if name.startswith(("conv", "avg_pool", "max_pool")) and "transpose" not in name:
        window = _window(name, args, kwargs, parents[0][0])
        return None if window is None else tuple(f.through(*w) for f, w in zip(fields, window, strict=True))
    if name not in _ELEMENTWISE or (name in ("cat", "concat") and output.shape[2:] != parents[0][0].shape[2:]):
        return None
    joined: list[Field] = list(fields)
    largest = max(parents, key=lambda parent: parent[0].numel())[0]
    for tensor, others in parents[1:]:
        if tensor.shape[2:] != largest.shape[2:] or parents[0][0].shape[2:] != largest.shape[2:]:
            return None
        for i, other in enumerate(others or ()):
            both = joined[i].joined(other)
            if both is None:
                return None
            joined[i] = both
    return tuple(joined)


def _window(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], parent: Tensor
) -> list[tuple[int, int, int, int]] | None:
    """(kernel, stride, padding, dilation) for each spatial axis of a convolution or pooling call."""
    n = parent.ndim - 2
    names = ["input", "weight", "bias", "stride", "padding", "dilation"]
    if "pool" in name:
        names = ["input", "kernel_size", "stride", "padding", "ceil_mode" if name.startswith("avg") else "dilation"]
    given = dict(zip(names, args, strict=False)) | kwargs
    kernel = tuple(given["weight"].shape[2:]) if "weight" in given else per_axis(given["kernel_size"], n)
    stride = per_axis(given.get("stride") or (kernel if "pool" in name else 1), n)
    padding = given.get("padding", 0)
    if isinstance(padding, str):
        return None
    dilation = per_axis(1 if name.startswith("avg") else given.get("dilation", 1), n)
    return list(zip(kernel, stride, per_axis(padding, n), dilation, strict=True))


def per_axis(value: Any, n: int) -> tuple[int, ...]:
    """An int or a sequence of one or `n` ints as `n` ints, as torch reads it."""
    if isinstance(value, int):
        return (value,) * n
    values = tuple(value)
    return values * n if len(values) == 1 else values
