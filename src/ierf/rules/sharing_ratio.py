"""The sharing-ratio rule at an activation, and how relevance enters and leaves a backward pass.

Between two activations a network is affine, `v_j = Σ_i W_ij a_i + b`. The sharing ratio of PFV `i` in PFV `j` is
`μ_ij = ⟨W_ij a_i, v_j⟩ / ‖v_j‖²` (arXiv 2605.00474, Eq. 3), so the relevance `R_i = Σ_j μ_ij R_j` is

    R_i = ⟨a_i, g_i⟩,    g = vector-Jacobian product of the affine part with the cotangent v_j R_j / ‖v_j‖².

That is autograd, with one rule at each activation.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd import Function

from ierf.rules.primitives import Backward, gradient_of, inner, over_square, square_norm, through


class _SharingRatio(Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, activation: Callable[[Tensor], Tensor], axis: int, backward: Backward) -> Tensor:
        a = activation(v)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(v, a)
        ctx.activation, ctx.axis, ctx.switch = activation, axis, backward
        return a

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return None, None, None, None
        v, a = ctx.saved_tensors
        if ctx.switch.plain:
            return gradient_of(ctx.activation, v, grad), None, None, None
        cotangent = v * over_square(inner(a, grad, ctx.axis), square_norm(v, ctx.axis))
        return cotangent, None, None, None


def sharing_ratio(v: Tensor, activation: Callable[[Tensor], Tensor], axis: int, backward: Backward) -> Tensor:
    """`activation(v)`, on whose way back `R_j = ⟨a_j, g_j⟩` becomes the cotangent `v_j R_j / ‖v_j‖²`."""
    return through(_SharingRatio, v, activation, axis, backward)


def as_cotangent(relevance: Tensor, pfvs: Tensor, axis: int) -> Tensor:
    """Relevance `R_i`, one scalar per position, as the gradient `a_i R_i / ‖a_i‖²` that carries it.

    `relevance` has the shape of `pfvs` without `axis`; leading batch axes more are allowed.
    """
    relevance = relevance.unsqueeze(axis + relevance.ndim - pfvs.ndim + 1)
    return pfvs * over_square(relevance, square_norm(pfvs, axis))


def as_relevance(gradient: Tensor, pfvs: Tensor, axis: int) -> Tensor:
    """The inverse: `R_i = ⟨a_i, g_i⟩` over the channels. Leading batch axes of `gradient` are kept."""
    return (gradient * pfvs).sum(axis + gradient.ndim - pfvs.ndim)
