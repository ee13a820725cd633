"""Who inherits the relevance of a bias.

The bias-free part of `v_j = Σ_i v̂_ij + b`, with `v̂_ij = W_ij a_i`, is passed on by autograd; the bias keeps
`e_j = ⟨b, g_j⟩`. Each input of the operation takes over a part of it:

    norm     e_j ‖v̂_ij‖ / Σ_i' ‖v̂_i'j‖       (the authors' code; conserves)
    uniform  e_j / number of inputs inside the picture
    drop     nothing                          (fastest, leaks)

A scalar `e_i` enters at `a_i` by its port (`ierf.rules.sharing_ratio`), or as the gradient `a_i e_i / ‖a_i‖²`.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from ierf.rules.primitives import Axes, Backward, inner, inverse_square, through
from ierf.rules.window import CONVOLUTION, Window, contribution_norms, norms_of_taps


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
    port: Tensor | None = None
    """Where relevance can be sent to the positions of `a`."""
    scale: Tensor | None = None
    """What a batch-norm multiplies each output channel by."""

    def share(self, z: Tensor) -> Tensor:
        """The operation's output `z`, whose bias passes its relevance on to the inputs."""
        if self.bias is None or not self.changes_gradient:
            return z
        return through(_BiasShare, z, self.a if self.port is None else self.port, self)

    @property
    def changes_gradient(self) -> bool:
        """Whether the way back differs from the operation's own gradient."""
        return self.mode != "drop"

    def folded(self, scale: Tensor, shift: Tensor) -> "Affine":
        """This and `scale · (…) + shift` (a batch-norm that follows) as one affine operation."""
        bias = shift if self.bias is None else shift + scale * self.bias
        return replace(self, scale=scale, bias=bias)

    @cached_property
    def shares(self) -> Tensor:
        """The part of each tap in an output position's bias, `(N, taps, *out)`; sums to 1, or 0 where no input acts."""
        assert self.window is not None
        if self.mode == "norm":
            weight = contribution_norms(self.a, self.kernel, self.window)
        else:
            inside = torch.ones_like(self.a[:1, :1]).expand(1, self.window.taps, *self.a.shape[2:])
            weight = self.window.gather(inside)
        total = weight.sum(1, keepdim=True)
        return weight / total.masked_fill(total == 0, torch.inf)

    @property
    def kernel(self) -> Tensor:
        """The weight, times what a batch-norm multiplies it by."""
        return self.weight if self.scale is None else self.weight * along(self.scale, 0, self.weight.ndim)

    def apply(self, a: Tensor, kernel: Tensor) -> Tensor:
        """This operation with another kernel, and without the bias."""
        if self.window is None:
            return F.linear(a, kernel)
        w = self.window
        return CONVOLUTION[len(w.kernel)](a, kernel, None, w.stride, w.padding, w.dilation, w.groups)

    def inherit(self, e: Tensor) -> Tensor:
        """The relevance `e` of the bias at each output position, as it reaches the input positions."""
        if self.window is None or self.window.pointwise:
            return e
        shares = self.shares if not torch.is_grad_enabled() else Affine.shares.func(self)  # type: ignore[attr-defined]
        return self.window.scatter(shares * e, tuple(self.a.shape[2:]))


def projected(x: Tensor, vector: Tensor, axis: int) -> Tensor:
    """`⟨x_i, vector⟩` over the channels, the axis kept; channels in front need no copy to be multiplied."""
    if axis == 1 and x.ndim > 2:
        return torch.matmul(vector, x.flatten(2)).reshape(len(x), 1, *x.shape[2:])
    return torch.matmul(x.movedim(axis, -1), vector).unsqueeze(axis)


def along(vector: Tensor, axis: int, ndim: int) -> Tensor:
    """A vector of channels, shaped to broadcast along `axis`."""
    return vector.view([-1 if i == axis else 1 for i in range(ndim)])


class _BiasShare(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, heir: Tensor, affine: Affine) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(heir)
        ctx.affine = affine
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        affine: Affine = ctx.affine
        if grad is None or affine.backward.plain:
            return grad, None, None
        assert affine.bias is not None
        relevance = affine.inherit(projected(grad, affine.bias, affine.axis))
        if affine.port is None:
            relevance = injected(ctx.saved_tensors[0], relevance, affine.axis)
        return grad, relevance, None


class _OwnShift(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, x: Tensor, shift: Tensor, axis: Axes, backward: Backward) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, shift)
        ctx.axis, ctx.switch = axis, backward
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None or ctx.switch.plain:
            return grad, None, None, None, None
        x, shift = ctx.saved_tensors
        return grad, injected(x, inner(shift, grad, ctx.axis), ctx.axis), None, None, None


def own_shift(z: Tensor, x: Tensor, shift: Tensor, axis: Axes, backward: Backward) -> Tensor:
    """`z = (linear in x) + shift`, position by position: the shift's relevance stays on its own PFV."""
    return through(_OwnShift, z, x, shift, axis, backward)


def injected(a: Tensor, relevance: Tensor, axis: Axes) -> Tensor:
    """The gradient that adds a scalar relevance to each PFV of `a`."""
    return a * (relevance * inverse_square(a, axis))


_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class TransposedAffine(Affine):
    """A transposed convolution as it ran on `a`; `weight` is `(C_in, C_out / groups, *kernel)`.

    The bias of an output position is shared among the inputs that reach it. Input i reaches output `j = s·i + d·k − p`
    by tap k with `v̂_ij = W_k a_i`. The norms `‖W_k a_i‖` are known at the inputs, so that the sum over those that reach
    j is a transposed convolution of them with a one-hot kernel, and going back to the inputs is the convolution with
    the same kernel. An output that no tap reaches (a stride wider than the kernel) has no one to leave its bias to:
    that part leaks.
    """

    output_padding: tuple[int, ...] = ()

    @property
    def kernel(self) -> Tensor:
        if self.scale is None:
            return self.weight
        per_group = self.scale.view(self._groups, 1, -1)
        weight = self.weight.reshape(self._groups, -1, *self.weight.shape[1:])
        return (weight * per_group.view(*per_group.shape, *[1] * (weight.ndim - 3))).view(self.weight.shape)

    def inherit(self, e: Tensor) -> Tensor:
        assert self.window is not None
        w, n = self.window, len(self.window.kernel)
        one_hot = torch.eye(w.taps, dtype=e.dtype, device=e.device).view(w.taps, 1, *w.kernel)
        size = self.a.shape[2:]
        if self.mode == "norm":
            norms = norms_of_taps(self.a, self._tap_by_tap(), w.groups)
        else:
            norms = torch.ones_like(self.a[:, :1]).expand(-1, w.taps, *size)
        reached = _TRANSPOSED[n](norms, one_hot, None, w.stride, w.padding, self.output_padding, 1, w.dilation)
        due = e / reached.masked_fill(reached == 0, torch.inf)
        back = CONVOLUTION[n](due, one_hot, None, w.stride, w.padding, w.dilation)
        for axis, side in enumerate(size, 2):
            back = back.narrow(axis, 0, side)
        return (norms * back).sum(1, keepdim=True)

    def _tap_by_tap(self) -> Tensor:
        """(taps, C_out, C_in / groups)."""
        weight = self.kernel.reshape(self._groups, -1, self.weight.shape[1], self.weight.shape[2:].numel())
        return weight.permute(3, 0, 2, 1).flatten(1, 2)

    @property
    def _groups(self) -> int:
        assert self.window is not None
        return self.window.groups
