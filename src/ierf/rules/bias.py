"""Who inherits the relevance of a bias.

The bias-free part of `v_j = Σ_i v̂_ij + b`, with `v̂_ij = W_ij a_i`, is passed on by autograd; the bias keeps
`e_j = ⟨b, g_j⟩`. Each input of the operation takes over a part of it:

    norm     e_j ‖v̂_ij‖ / Σ_i' ‖v̂_i'j‖       (the authors' code; conserves)
    uniform  e_j / number of inputs inside the picture
    drop     nothing                          (fastest, leaks)

A scalar `e_i` enters at `a_i` as the gradient `a_i e_i / ‖a_i‖²`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from ierf.rules.primitives import Backward, Place, inner, over_square

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
_CHUNK = 1 << 24
"""At most this many numbers of `v̂` at once (64 MiB in float32)."""


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution, one number for each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    @property
    def pointwise(self) -> bool:
        """Every output position sees the one input position at the same place."""
        return self.taps == 1 and not any(self.padding) and set(self.stride) == {1}

    def _one_hot(self, like: Tensor) -> Tensor:
        return torch.eye(self.taps, dtype=like.dtype, device=like.device).view(self.taps, 1, *self.kernel)

    def gather(self, maps: Tensor) -> Tensor:
        """`(N, taps, *in)` -> `(N, taps, *out)`: for output j and tap k, the k-th map at the input that j sees by k."""
        return _CONV[len(self.kernel)](
            maps, self._one_hot(maps), None, self.stride, self.padding, self.dilation, groups=self.taps
        )

    def scatter(self, shares: Tensor, size: tuple[int, ...]) -> Tensor:
        """`(N, taps, *out)` -> `(N, 1, *in)`: every share goes back to the input that it came from and is summed."""
        geometry = zip(size, shares.shape[2:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        rest = tuple(i - ((o - 1) * s - 2 * p + d * (k - 1) + 1) for i, o, k, s, p, d in geometry)
        return _CONV_TRANSPOSE[len(self.kernel)](
            shares, self._one_hot(shares), None, self.stride, self.padding, rest, 1, self.dilation
        )


def contribution_norms(a: Tensor, weight: Tensor, window: Window) -> Tensor:
    """`‖v̂_ij‖` over the output channels, as `(N, taps, *out)`: one convolution's worth of work, in matrix products.

    Few channels in a group (a stem, a depthwise convolution): `‖W_k a‖² = aᵀ (W_kᵀ W_k) a`, linear in the products of
    channels. Otherwise `W_k a` for all taps is one 1×1 convolution with `taps · C_out` outputs.
    """
    grams = a.shape[1] // window.groups <= 4
    squares = _squares_by_gram(a, weight, window) if grams else _squares_by_product(a, weight, window)
    return window.gather(_root(squares))


def _root(squares: Tensor) -> Tensor:
    """The square root with derivative 0, not ∞, at 0."""
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1).sqrt(), 0)


def _squares_by_gram(a: Tensor, weight: Tensor, window: Window) -> Tensor:
    n, c, *size = a.shape
    g, channels, taps = window.groups, c // window.groups, window.taps
    w = weight.reshape(g, -1, channels, taps)
    gram = torch.einsum("goit,gojt->tgij", w, w).reshape(taps, g * channels**2, *[1] * len(size))
    grouped = a.reshape(n, g, channels, *size)
    products = (grouped.unsqueeze(3) * grouped.unsqueeze(2)).reshape(n, g * channels**2, *size)
    return _CONV[len(size)](products, gram)


def _squares_by_product(a: Tensor, weight: Tensor, window: Window) -> Tensor:
    n, _, *size = a.shape
    g, taps, ones = window.groups, window.taps, [1] * len(size)
    c_out, channels = weight.shape[:2]
    w = weight.reshape(g, c_out // g, channels, taps).permute(3, 0, 1, 2)
    at_once = max(1, _CHUNK // max(1, n * c_out * prod(size)))
    squares = []
    for some in torch.split(w, at_once):
        k = some.shape[0]
        kernels = some.transpose(0, 1).reshape(g * k * (c_out // g), channels, *ones)
        partial = _CONV[len(size)](a, kernels, groups=g)
        squares.append(partial.view(n, g, k, c_out // g, *size).square().sum((1, 3)))
    return torch.cat(squares, 1)


@dataclass(frozen=True)
class Affine:
    """A convolution or linear layer as it ran on `a`: what its bias needs to know.

    `weight` is `(C_out, C_in / groups, *kernel)`; `window` is None for a linear layer, which acts on each PFV alone.
    """

    a: Tensor
    weight: Tensor
    bias: Tensor | None
    window: Window | None
    axis: int
    mode: str
    backward: Backward
    place: Place

    def share(self, z: Tensor) -> Tensor:
        """The operation's output `z`, whose bias passes its relevance on to the inputs."""
        return z if self.bias is None else _BiasShare.apply(z, self.a, self)

    def folded(self, scale: Tensor, shift: Tensor) -> "Affine":
        """This and `scale · (…) + shift` (a batch-norm that follows) as one affine operation."""
        bias = shift if self.bias is None else shift + scale * self.bias
        return replace(self, weight=self.weight * along(scale, 0, self.weight.ndim), bias=bias)

    @cached_property
    def shares(self) -> Tensor:
        """The part of each tap in an output position's bias, `(N, taps, *out)`; sums to 1, or 0 where no input acts."""
        assert self.window is not None
        if self.mode == "norm":
            weight = contribution_norms(self.a, self.weight, self.window)
        else:
            inside = torch.ones_like(self.a[:1, :1]).expand(1, self.window.taps, *self.a.shape[2:])
            weight = self.window.gather(inside)
        total = weight.sum(1, keepdim=True)
        return torch.where(total > 0, weight / torch.where(total > 0, total, 1), 0)

    def inherit(self, e: Tensor) -> Tensor:
        """The relevance `e` of the bias at each output position, as it reaches the input positions."""
        if self.window is None or self.window.pointwise:
            return e
        shares = self.shares if not torch.is_grad_enabled() else Affine.shares.func(self)  # type: ignore[attr-defined]
        return self.window.scatter(shares * e, tuple(self.a.shape[2:]))


def along(vector: Tensor, axis: int, ndim: int) -> Tensor:
    """A vector of channels, shaped to broadcast along `axis`."""
    return vector.view([-1 if i == axis else 1 for i in range(ndim)])


class _BiasShare(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, a: Tensor, affine: Affine) -> Tensor:
        ctx.save_for_backward(a)
        ctx.affine = affine
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        affine: Affine = ctx.affine
        if affine.backward.plain:
            return grad, None, None
        (a,) = ctx.saved_tensors
        e = inner(along(affine.bias, affine.axis, grad.ndim), grad, affine.axis)  # type: ignore[arg-type]
        return grad, _inject(a, affine.inherit(e), e, affine.axis, affine.backward, affine.place), None


class _OwnShift(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, x: Tensor, shift: Tensor, axis: int, backward: Backward, place: Place) -> Tensor:
        ctx.save_for_backward(x, shift)
        ctx.axis, ctx.switch, ctx.place = axis, backward, place
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, shift = ctx.saved_tensors
        if ctx.switch.plain:
            return grad, None, None, None, None, None
        e = inner(shift, grad, ctx.axis)
        return grad, _inject(x, e, e, ctx.axis, ctx.switch, ctx.place), None, None, None, None


def own_shift(z: Tensor, x: Tensor, shift: Tensor, axis: int, backward: Backward, place: Place) -> Tensor:
    """`z = (linear in x) + shift`, position by position: the shift's relevance stays on its own PFV."""
    return _OwnShift.apply(z, x, shift, axis, backward, place)


def _inject(a: Tensor, inherited: Tensor, e: Tensor, axis: int, backward: Backward, place: Place) -> Tensor:
    gradient = a * over_square(inherited, inner(a, a, axis))
    if backward.leaks is not None:
        backward.lost(place._replace(operation=f"bias of {place.operation}"), e.sum(), inner(a, gradient, axis).sum())
    return gradient
