"""The sharing ratio, as a rule at an activation and as numbers; how relevance enters and leaves a pass (Eq. 3).

Between two activations a network is affine, `v_j = Σ_i W_ij a_i + b`. The sharing ratio of PFV `i` in PFV `j` is
`μ_ij = ⟨W_ij a_i, v_j⟩ / ‖v_j‖²` (arXiv 2605.00474, Eq. 3), so the relevance `R_i = Σ_j μ_ij R_j` is

    R_i = ⟨a_i, g_i⟩,    g = vector-Jacobian product of the affine part with the cotangent v_j R_j / ‖v_j‖².

That is autograd, with one rule at each activation. Beside its output an activation has a port: a map of zeros, one for
each position. The gradient that somebody sends to the port is relevance of that position, so that a bias's relevance
reaches `a_j` without a vector `a_j e_j / ‖a_j‖²` being written and added to the gradient. Where `a_j` is 0 it is lost.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from ierf.rules.bias import Affine, projected
from ierf.rules.primitives import Axes, Backward, gradient_of, inner, inverse_square
from ierf.rules.window import Window


class _SharingRatio(Function):
    @staticmethod
    def forward(
        ctx: Any, v: Tensor, activation: Callable[[Tensor], Tensor], axis: Axes, backward: Backward
    ) -> tuple[Tensor, Tensor]:
        a = activation(v)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(v, a)
        ctx.activation, ctx.axis, ctx.switch, ctx.kept = activation, axis, backward, None
        return a, v.new_zeros(_one_per_position(v, axis))

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, sent: Tensor | None) -> Any:
        v, a = ctx.saved_tensors
        if ctx.switch.plain:
            return None if grad is None else gradient_of(ctx.activation, v, grad), None, None, None
        if grad is None and sent is None:
            return None, None, None, None
        inverse, speaks = _of_each_position(ctx, v, a)
        relevance = 0 if grad is None else inner(a, grad, ctx.axis)
        if sent is not None:
            relevance = relevance + sent * speaks
        return v * (relevance * inverse), None, None, None


def _one_per_position(v: Tensor, axis: Axes) -> list[int]:
    axes = (axis,) if isinstance(axis, int) else axis
    return [1 if i in axes else size for i, size in enumerate(v.shape)]


def _of_each_position(ctx: Any, v: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """`1 / ‖v‖²`, and whether `a` is anything: kept for the next backward pass unless they are to be differentiated."""
    if ctx.kept is not None and not torch.is_grad_enabled():
        return ctx.kept  # type: ignore[no-any-return]
    found = inverse_square(v, ctx.axis), inverse_square(a.detach(), ctx.axis) > 0
    if not torch.is_grad_enabled():
        ctx.kept = found
    return found


def sharing_ratio(
    v: Tensor, activation: Callable[[Tensor], Tensor], axis: Axes, backward: Backward
) -> tuple[Tensor, Tensor]:
    """`activation(v)`, on whose way back `R_j = ⟨a_j, g_j⟩` becomes the cotangent `v_j R_j / ‖v_j‖²`; and its port."""
    both: tuple[Tensor, Tensor] = _SharingRatio.apply(v, activation, axis, backward)  # type: ignore[no-untyped-call]
    return both


def as_cotangent(relevance: Tensor, pfvs: Tensor, axis: int) -> Tensor:
    """Relevance `R_i`, one scalar per position, as the gradient `a_i R_i / ‖a_i‖²` that carries it.

    `relevance` has the shape of `pfvs` without `axis`; leading batch axes more are allowed.
    """
    relevance = relevance.unsqueeze(axis + relevance.ndim - pfvs.ndim + 1)
    return pfvs * (relevance * inverse_square(pfvs, axis))


def as_relevance(gradient: Tensor, pfvs: Tensor, axis: int) -> Tensor:
    """The inverse: `R_i = ⟨a_i, g_i⟩` over the channels. Leading batch axes of `gradient` are kept."""
    return (gradient * pfvs).sum(axis + gradient.ndim - pfvs.ndim)


_NUMBERS = 1 << 26
"""At most this many numbers at once (256 MiB in float32), or one sample."""


def sharing_ratios(affine: Affine, v: Float[Tensor, "N C *out"]) -> Float[Tensor, "N taps *out"]:
    """`μ_ij = (⟨W_ij a_i, v_j⟩ + share_ij ⟨b, v_j⟩) / ‖v_j‖²` of the input that each output position sees by each tap.

    v: what the convolution, with the batch-norm folded into it, gave for `affine.a`.
    `⟨W_ij a_i, v_j⟩ = ⟨a_i, W_ijᵀ v_j⟩` takes the products of one backward pass, for all taps. Inputs outside the
    picture have the ratio 0, and vectors that are 0 neither give nor take.
    """
    window, a = affine.window, affine.a
    assert window is not None
    at_once = max(1, _NUMBERS // (window.taps * a.shape[1] * v[0, 0].numel()))
    parts = zip(torch.split(a, at_once), torch.split(v, at_once), strict=True)
    ratios = torch.cat([_products(some, out, affine.kernel, window) for some, out in parts])
    if affine.bias is not None and affine.changes_gradient:
        speaks = (inverse_square(a, 1) > 0).to(a).expand(-1, window.taps, *a.shape[2:])
        shares = 1 if window.pointwise else affine.shares
        ratios = ratios + shares * window.gather(speaks) * projected(v, affine.bias, 1)
    return ratios * inverse_square(v, 1)


def _products(
    a: Float[Tensor, "N C *in"], v: Float[Tensor, "N D *out"], kernel: Float[Tensor, "D c *kernel"], window: Window
) -> Float[Tensor, "N taps *out"]:
    """`⟨a_i, W_ijᵀ v_j⟩`."""
    groups, taps = window.groups, window.taps
    seen = window.patches(a)
    rows = v.movedim(1, -1).reshape(seen.shape[1], groups, -1).transpose(0, 1)
    kernels = kernel.flatten(2).permute(2, 0, 1).reshape(taps, groups, -1, kernel.shape[1])
    back = rows @ kernels
    seen = seen.reshape(taps, -1, groups, kernel.shape[1]).transpose(1, 2)
    return (back * seen).sum((1, 3)).reshape(taps, len(a), *v.shape[2:]).transpose(0, 1)
