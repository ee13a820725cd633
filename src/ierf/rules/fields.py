"""Which pixels a position of a tensor can see: its theoretical receptive field."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ierf.axes import per_axis
from ierf.operations import ACTIVATIONS

_ELEMENTWISE = ACTIVATIONS | frozenset(
    "add sub rsub mul div neg addcmul batch_norm layer_norm rms_norm normalize contiguous clone to float double half "
    "dropout dropout2d feature_dropout cat concat maximum minimum".split()
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


def receptive_fields(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    parents: list[tuple[Tensor, Fields | None]],
    axis: int,
    output: Tensor,
) -> Fields | None:
    """Fields of an operation's output; None where they are unbounded or not known (then nothing is assumed).

    `axis` is the channel axis of the first parent.
    """
    first, fields = parents[0]
    if fields is None or any(others is None for _, others in parents):
        return None
    if name.startswith(("conv", "avg_pool", "max_pool")) and "transpose" not in name:
        window = _window(name, args, kwargs, first)
        return None if window is None else tuple(f.through(*w) for f, w in zip(fields, window, strict=True))
    if name in ("layer_norm", "rms_norm", "normalize") and not _within_one_pfv(name, args, kwargs, first, axis):
        return None
    if name not in _ELEMENTWISE or any(_map_shape(t, axis) != _map_shape(output, axis) for t, _ in parents):
        return None
    joined: Fields | None = fields
    for _, others in parents[1:]:
        joined = _joined(joined, others)
    return joined


def _map_shape(tensor: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(size for i, size in enumerate(tensor.shape) if i != axis)


def _within_one_pfv(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor, axis: int) -> bool:
    """Whether a normalisation takes its statistics from the channels of each position alone."""
    if name == "normalize":
        dim = args[2] if len(args) > 2 else kwargs.get("dim", 1)
        return isinstance(dim, int) and dim % x.ndim == axis
    shape = args[1] if len(args) > 1 else kwargs["normalized_shape"]
    return len(shape) == 1 and axis == x.ndim - 1


def _joined(one: Fields | None, other: Fields | None) -> Fields | None:
    if one is None or other is None or len(one) != len(other):
        return None
    both = [a.joined(b) for a, b in zip(one, other, strict=True)]
    return None if any(field is None for field in both) else tuple(field for field in both if field is not None)


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
