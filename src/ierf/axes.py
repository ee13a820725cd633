"""Where the channels of a tensor are, carried from operation to operation."""

from math import prod
from typing import Any

from torch import Tensor

INDEXED_AWAY = -1


def channel_axis(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], parent: Tensor, axis: int, output: Tensor
) -> int:
    """The channel axis of an operation's output, given that of its first activation.

    1 after a convolution, last after a linear layer, carried along by everything that reorders or reshapes axes.
    `INDEXED_AWAY` where one channel was taken out and its axis is gone, until an axis is inserted for it.
    """
    if name.startswith("conv"):
        return 1
    if name == "linear":
        return output.ndim - 1
    if name in ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "T", "mT"):
        return _moved_axis(parent, axis, output)
    if name in ("unsqueeze", "stack"):
        dim = _dimension(args[1:], kwargs, 0) % output.ndim
        return dim if axis == INDEXED_AWAY else axis + (dim <= axis)
    if axis == INDEXED_AWAY:
        return INDEXED_AWAY if output.shape == parent.shape else default_axis(output)
    if name == "__getitem__":
        return _indexed_axis(args[1], parent, axis)
    if output.ndim == parent.ndim - 1 and name in _REMOVE_ONE:
        dim = _dimension(args[1:], kwargs, 0) % parent.ndim
        return INDEXED_AWAY if dim == axis else max(1, axis - (dim < axis))
    if output.shape[:1] == parent.shape[:1] and output.ndim == parent.ndim:
        return axis
    return _reshaped_axis(parent, axis, output)


_REMOVE_ONE = ("squeeze", "select", "unbind", "mean", "sum", "amax", "amin", "max", "min")


def _dimension(rest: tuple[Any, ...], kwargs: dict[str, Any], default: int) -> int:
    dim = rest[0] if rest else kwargs.get("dim", default)
    return int(dim[0] if isinstance(dim, tuple | list) else dim)


def _indexed_axis(index: Any, parent: Tensor, axis: int) -> int:
    """Where an axis goes under `x[index]` with integers, slices, None and Ellipsis."""
    parts = index if isinstance(index, tuple) else (index,)
    used = sum(part is not None and part is not Ellipsis for part in parts)
    source = target = 0
    for part in parts:
        if part is None:
            target += 1
        elif part is Ellipsis:
            skipped = parent.ndim - used
            source, target = source + skipped, target + skipped
        elif isinstance(part, int):
            source += 1
        else:
            source, target = source + 1, target + 1
        if source > axis:
            return INDEXED_AWAY if isinstance(part, int) else target - (source - axis)
    return target + axis - source


def _moved_axis(parent: Tensor, axis: int, output: Tensor) -> int:
    """A permuted view keeps its strides, which identify the axis wherever sizes do not."""
    wanted = (parent.shape[axis], parent.stride(axis))
    candidates = [i for i in range(output.ndim) if (output.shape[i], output.stride(i)) == wanted]
    return candidates[0] if candidates else default_axis(output)


def _reshaped_axis(parent: Tensor, axis: int, output: Tensor) -> int:
    """The axis in whose range of memory the old axis lies: the first part of a split one, the whole of a merged one."""
    before = prod(parent.shape[:axis])
    for i in range(1, output.ndim):
        if prod(output.shape[:i]) <= before < prod(output.shape[: i + 1]):
            return i
    return default_axis(output)


def default_axis(output: Tensor) -> int:
    return 1 if output.ndim in (2, 4, 5) else output.ndim - 1


def per_axis(value: Any, n: int) -> tuple[int, ...]:
    """An int or a sequence of one or `n` ints as `n` ints, as torch reads it."""
    if isinstance(value, int):
        return (value,) * n
    values = tuple(value)
    return values * n if len(values) == 1 else values
