"""Where the channels of a tensor are, carried from operation to operation."""

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

INDEXED_AWAY = -1
MASKED_AWAY = -2


def channel_axis(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], parent: Tensor, axis: int, output: Tensor
) -> int:
    """The channel axis of an operation's output, given that of its first activation.

    1 after a convolution, last after a linear layer, carried along by everything that reorders or reshapes axes.
    `INDEXED_AWAY` where one channel was taken out and its axis is gone, until an axis is inserted for it.
    """
    if name.startswith("conv"):
        return output.ndim - 1 - int(name[-2])
    if name == "linear":
        return output.ndim - 1
    if name in _CHANNELS_FIRST or (name == "unfold" and output.ndim < parent.ndim):
        return 1
    if name == "einsum":
        return _summed_axis(args, parent, axis, output)
    if name == "tensordot":
        return _contracted_axis(args, kwargs, parent, axis, output)
    if name in _MOVES:
        return _moved_axis(name, args, kwargs, parent, axis)
    if name in ("unsqueeze", "stack"):
        dim = _dimension(args[1:], kwargs, 0) % output.ndim
        return dim if axis == INDEXED_AWAY else axis + (dim <= axis)
    if name == "__getitem__":
        return _indexed_axis(args[1], parent, axis)
    if name == "__setitem__" and len(args) == 3 and args[0] is not parent and axis >= 0:
        return _written_axis(args[0], args[1], parent, axis)
    if axis == INDEXED_AWAY:
        return INDEXED_AWAY if output.shape == parent.shape else default_axis(output)
    if name in _ELEMENTWISE and output.ndim > parent.ndim:
        return axis + output.ndim - parent.ndim
    if output.ndim == parent.ndim - 1 and name in _REMOVE_ONE:
        dim = _dimension(args[1:], kwargs, 0) % parent.ndim
        return INDEXED_AWAY if dim == axis else axis - (dim < axis)
    if output.ndim == parent.ndim and (output.shape[:1] == parent.shape[:1] or name in _KEEP_AXES):
        return axis
    return _reshaped_axis(parent, axis, output)


def sample_axis(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], parent: Tensor, axis: int, output: Tensor
) -> int:
    """The axis of the samples in an operation's output; `INDEXED_AWAY` where one sample was taken out, in a loop say.

    A mask leaves no axis (`MASKED_AWAY`) until a reshape makes them again. Operations that want the samples in front
    have them there.
    """
    if selects_by_mask(name, args):
        return MASKED_AWAY
    if axis == MASKED_AWAY:
        return 0 if (name in RESHAPES or name == "__setitem__") and output.ndim > 1 else MASKED_AWAY
    if name in _SAMPLES_FIRST and output.ndim == int(name[-2]) + 2:
        return 0
    if name == "__setitem__" and output.ndim > parent.ndim:
        return axis + output.ndim - parent.ndim if parent.ndim > 1 else 0
    if axis == INDEXED_AWAY:
        inserted = name in _INSERT and channel_axis(name, args, kwargs, parent, axis, output) == 0
        return 0 if inserted else axis
    if name in _FOLLOWED or (name in _REMOVE_ONE and output.ndim == parent.ndim - 1):
        return channel_axis(name, args, kwargs, parent, axis, output)
    return axis


_INSERT = ("unsqueeze", "stack", "__getitem__")
_MOVES = ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "T", "mT")
_FOLLOWED = frozenset([*_MOVES, *_INSERT, "einsum", "tensordot"])
_SAMPLES_FIRST = frozenset(
    f"{kind}{n}d"
    for kind in ("conv", "conv_transpose", "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
    for n in (1, 2, 3)
)
_CHANNELS_FIRST = frozenset(
    "fold pixel_shuffle pixel_unshuffle channel_shuffle conv_transpose1d conv_transpose2d conv_transpose3d".split()
)
_ELEMENTWISE = frozenset("add sub rsub mul div maximum minimum where addcmul lerp pow".split())
_KEEP_AXES = frozenset(
    "add sub rsub mul div chunk split tensor_split split_with_sizes narrow cat concat concatenate index_select roll "
    "flip repeat repeat_interleave pad gather expand broadcast_to matmul __setitem__".split()
)
"""Leave every axis in its place, whatever becomes of its size."""
_REMOVE_ONE = ("squeeze", "select", "unbind", "mean", "sum", "amax", "amin", "max", "min")


class Channels(NamedTuple):
    """Where channels are in an axis: the channel of index `i` is `i // inner % size`; (axis, 1, n) for a whole axis."""

    axis: int
    inner: int
    size: int

    def whole(self, tensor: Tensor) -> bool:
        return self.inner == 1 and self.size == tensor.shape[self.axis]

    def apart(self, tensor: Tensor) -> bool:
        """Whether no samples share the axis."""
        return self.axis > 0 or self.whole(tensor)


def selects_by_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Whether single numbers are picked by a mask, which leaves no axis as it was."""
    if name != "__getitem__":
        return name == "masked_select"
    parts = args[1] if isinstance(args[1], tuple) else (args[1],)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool and part.ndim > 1 for part in parts)


RESHAPES = frozenset("view reshape reshape_as view_as flatten unflatten ravel contiguous clone".split())


def channels_of(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    parent: Tensor,
    channels: tuple[Channels, ...],
    before: int,
    output: Tensor,
    axis: int,
) -> tuple[Channels, ...]:
    """All places that hold the channels of an operation's output, given those of its first activation.

    Heads split them over two axes, a reshape may put them into one axis with positions or samples. Empty: not known,
    or indexed away. `before`, `axis`: what `channel_axis` says of the activation and of the output.
    """
    if not channels:
        return () if axis == INDEXED_AWAY else (Channels(axis, 1, output.shape[axis]),)
    if name in RESHAPES and output.numel() == parent.numel():
        found = _reshaped_channels(parent, channels, output)
        return found or ((Channels(axis, 1, output.shape[axis]),) if axis > 0 else ())
    if name in ("conv1d", "conv2d", "conv3d"):
        return (Channels(axis, 1, output.shape[axis] // _beside(channels, parent, axis)),)
    alone = len(channels) == 1 and channels[0].whole(parent) and channels[0].axis == before
    if alone or name == "linear":
        return () if axis == INDEXED_AWAY else (Channels(axis, 1, output.shape[axis]),)
    moved = []
    for one in channels:
        there = channel_axis(name, args, kwargs, parent, one.axis, output)
        if there == INDEXED_AWAY or there >= output.ndim:
            continue
        if one.whole(parent):
            moved.append(Channels(there, 1, output.shape[there]))
        elif output.shape[there] % (one.inner * one.size) == 0:
            moved.append(Channels(there, one.inner, one.size))
    return tuple(moved)


class Layout(NamedTuple):
    """Where the channels of a tensor are."""

    axis: int
    channels: tuple[Channels, ...] = ()
    """All places of them; empty: not known, or indexed away."""
    taken: bool = False
    """Whether one channel was indexed out, so that `axis` is only a guess."""

    @classmethod
    def along(cls, axis: int, tensor: Tensor) -> "Layout":
        """The whole of one axis."""
        return cls(axis, (Channels(axis, 1, tensor.shape[axis]),))


def layout_of(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    parent: Tensor,
    known: Layout,
    output: Tensor,
    axis: int | None = None,
) -> Layout:
    """The layout of an operation's output, given that of its first activation; `axis`: of its channels, if known."""
    if axis is None:
        before = INDEXED_AWAY if known.taken else known.axis
        axis = channel_axis(name, args, kwargs, parent, before, output)
    channels = channels_of(name, args, kwargs, parent, known.channels, known.axis, output, axis)
    if name in RESHAPES:
        axis = next((one.axis for one in channels if one.axis > 0), axis)
    return Layout(default_axis(output) if axis == INDEXED_AWAY else axis, channels, axis == INDEXED_AWAY)


def _beside(channels: tuple[Channels, ...], parent: Tensor, axis: int) -> int:
    """How many samples lie beside the channels in the axis that a convolution takes for channels, one in each group."""
    here = [one for one in channels if one.axis == axis]
    return parent.shape[axis] // (here[0].inner * here[0].size) if len(here) == 1 and here[0].inner == 1 else 1


def isolated(v: Tensor, channels: tuple[Channels, ...], exact: bool = False) -> tuple[Tensor, tuple[int, ...]]:
    """`v` with the axis split that holds channels and samples, and the axes of channels in it.

    Other axes that hold channels are channels as a whole, unless `exact`. Where none does, each number is a PFV of one.
    """
    size: list[int] = []
    axes: list[int] = []
    for i, n in enumerate(v.shape):
        inside = [one for one in channels if one.axis == i]
        if inside and not exact and inside[0].apart(v):
            axes.append(len(size))
            inside = []
        left = n
        for one in reversed(inside):
            size += [left // (one.inner * one.size), one.size]
            axes.append(len(size) - 1)
            left = one.inner
        size.append(left)
    if not axes:
        return v.unsqueeze(-1), (v.ndim,)
    return v.reshape(size), tuple(axes)


def _reshaped_channels(parent: Tensor, channels: tuple[Channels, ...], output: Tensor) -> tuple[Channels, ...]:
    """A reshape keeps the order of elements: an axis holds the channels whose steps through that order it shares."""
    found = []
    for i in range(output.ndim):
        step, size = prod(output.shape[i + 1 :]), output.shape[i]
        for one in channels:
            low = prod(parent.shape[one.axis + 1 :]) * one.inner
            start, end = max(step, low), min(step * size, low * one.size)
            if start < end and start % step == 0 and end % start == 0:
                found.append(Channels(i, start // step, end // start))
    return _joined_channels(found)


def _joined_channels(found: list[Channels]) -> tuple[Channels, ...]:
    """Neighbouring parts of one axis as one."""
    joined: list[Channels] = []
    for one in sorted(found):
        last = joined[-1] if joined else None
        if last is not None and last.axis == one.axis and last.inner * last.size == one.inner:
            joined[-1] = Channels(one.axis, last.inner, last.size * one.size)
        else:
            joined.append(one)
    return tuple(joined)


def _summed_axis(args: tuple[Any, ...], parent: Tensor, axis: int, output: Tensor) -> int:
    """Where `einsum` puts the channels: under their own letter, or under the one that takes their place."""
    operands = args[1] if isinstance(args[1], tuple | list) else args[1:]
    if not isinstance(args[0], str) or axis == INDEXED_AWAY:
        return default_axis(output)
    inputs, arrow, result = args[0].replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        result = "".join(sorted(c for c in set(inputs) - set(",.") if inputs.count(c) == 1))
        result = f"...{result}" if "..." in inputs else result
    place = next((i for i, operand in enumerate(operands) if operand is parent), 0)
    mine, made = _letters(terms[place], parent.ndim), _letters(result, output.ndim)
    if mine[axis] in made:
        return made.index(mine[axis])
    new = [i for i, letter in enumerate(made) if letter not in mine]
    return new[0] if new else default_axis(output)


def _letters(term: str, ndim: int) -> list[str]:
    """One letter for each axis; numbers, counted from the right, where an ellipsis stands."""
    before, dots, after = term.partition("...")
    if not dots:
        return list(term)
    return [*before, *(str(i) for i in reversed(range(ndim - len(before) - len(after)))), *after]


def _contracted_axis(args: tuple[Any, ...], kwargs: dict[str, Any], parent: Tensor, axis: int, output: Tensor) -> int:
    """Where `tensordot` puts the channels, or what it summed them with."""
    first, second, dims = (*args, kwargs.get("dims", 2))[:3]
    if isinstance(dims, int):
        dims = list(range(first.ndim - dims, first.ndim)), list(range(dims))
    gone = [
        [d % t.ndim for d in ([some] if isinstance(some, int) else some)]
        for t, some in zip((first, second), dims, strict=True)
    ]
    left = [[i for i in range(t.ndim) if i not in of] for t, of in zip((first, second), gone, strict=True)]
    mine, before = (0, 0) if parent is first else (1, len(left[0]))
    if axis in left[mine]:
        return before + left[mine].index(axis)
    if len(left[1 - mine]):
        return len(left[0]) if mine == 0 else 0
    return default_axis(output)


def _dimension(rest: tuple[Any, ...], kwargs: dict[str, Any], default: int) -> int:
    dim = rest[0] if rest else kwargs.get("dim", default)
    return int(dim[0] if isinstance(dim, tuple | list) else dim)


def _indexed_axis(index: Any, parent: Tensor, axis: int) -> int:
    """Where an axis goes under `x[index]` with integers, slices, None and Ellipsis, or masks of several axes.

    An axis that is indexed away, or was, is found again in one that is inserted.
    """
    parts = index if isinstance(index, tuple) else (index,)
    used = sum(part is not None and part is not Ellipsis for part in parts)
    source = target = 0
    inserted = INDEXED_AWAY
    for part in parts:
        if part is None:
            inserted, target = target, target + 1
        elif part is Ellipsis:
            skipped = parent.ndim - used
            source, target = source + skipped, target + skipped
        elif isinstance(part, int):
            source += 1
        elif isinstance(part, Tensor) and part.dtype == torch.bool:
            if source <= axis < source + part.ndim:
                return inserted
            source, target = source + part.ndim, target + 1
        else:
            source, target = source + 1, target + 1
        if source > axis >= 0:
            return inserted if isinstance(part, int) else target - (source - axis)
    return inserted if axis == INDEXED_AWAY else target + axis - source


def _written_axis(target: Tensor, index: Any, value: Tensor, axis: int) -> int:
    """Along which axis of a tensor the channels of a value run that is written to a part of it."""
    if value.ndim < 2 or any(isinstance(i, Tensor) for i in (index if isinstance(index, tuple) else (index,))):
        return default_axis(target)
    part = target[index]
    step, size = part.stride(axis + part.ndim - value.ndim), part.shape[axis + part.ndim - value.ndim]
    found = [i for i in range(target.ndim) if target.stride(i) == step and target.shape[i] >= size]
    return found[-1] if found else default_axis(target)


def _moved_axis(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], parent: Tensor, axis: int) -> int:
    """Where an axis goes, told by its size in a tensor without values whose axes all differ."""
    if axis == INDEXED_AWAY:
        return INDEXED_AWAY
    sizes = torch.empty(tuple(range(2, 2 + parent.ndim)), device="meta")
    if name in ("T", "mT"):
        moved = getattr(sizes, name)
    else:
        move = _permuted if name == "permute" else getattr(torch, name)
        moved = move(sizes, *args[1:], **kwargs)
    return int(moved.shape.index(axis + 2))


def _permuted(x: Tensor, *args: Any, dims: tuple[int, ...] = ()) -> Tensor:
    """`torch.permute`, or the method, which takes the axes one by one as well."""
    return x.permute(*(args or dims))


def _reshaped_axis(parent: Tensor, axis: int, output: Tensor) -> int:
    """The axis in whose range of memory the old axis lies: the first part of a split one, the whole of a merged one."""
    before = prod(parent.shape[:axis])
    step = prod(parent.shape[axis + 1 :])
    for i in range(output.ndim):
        if output.shape[i] == parent.shape[axis] and prod(output.shape[:i]) == before and (i or not axis):
            return i
    if output.numel() == parent.numel():
        for i in range(1, output.ndim):
            inside = prod(output.shape[i + 1 :])
            if output.shape[i] > 1 and step <= inside and inside * output.shape[i] <= step * parent.shape[axis]:
                return i
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
