"""The γ-rule of linear layers and convolutions: what agrees with an output's sign counts more.

`R_i = Σ_j (c_ij + γ c_ij^σ) / (Σ_i' (c_i'j + γ c_i'j^σ) + b_j + γ b_j^σ) R_j` with the contributions `c_ij = a_i w_ij`,
where `c^σ` is c if it has the sign of `z_j` and 0 otherwise (Montavon et al. 2019, for inputs and outputs of either
sign). Since `c^σ = (c + sign(z_j) |c|) / 2`, two products of matrices with |a| and |w| serve:

    g_a = (1 + γ/2) Wᵀ s + γ/2 sign(a) ⊙ |W|ᵀ (sign(z) ⊙ s),
    s   = |z| ⊙ g_z / ((1 + γ/2) |z| + γ/2 (|W| |a| + |b|)).

γ → 0 is the ε-rule, the plain gradient; γ → ∞ asks only what agrees. A batch-norm that follows is folded in.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ierf.rules.bias import Affine, along
from ierf.rules.mode import Call, Rule
from ierf.rules.primitives import through

INNER_GAMMA = 0.25
"""What the authors of AttnLRP use for the convolutions of vision transformers."""


@dataclass(frozen=True)
class GammaAffine(Affine):
    """A convolution or linear layer, by itself or with a batch-norm folded in, whose way back is the γ-rule."""

    gamma: float = 0.0

    @property
    def changes_gradient(self) -> bool:
        return True

    def share(self, z: Tensor) -> Tensor:
        return through(_Gamma, z, self.a, self)


def with_gamma(gamma: float | None, rule: Rule) -> Rule:
    """The rule of an affine operation with γ in place of ε; None: `INNER_GAMMA`, but ε for a layer at the pixels."""

    def affine(call: Call) -> Any:
        z = rule(call)
        if call.affine is not None and (gamma is not None or call.tape.behind_a_layer(call.nodes)):
            known = {f.name: getattr(call.affine, f.name) for f in fields(Affine)}
            call.affine = GammaAffine(**known, gamma=INNER_GAMMA if gamma is None else gamma)
        return z

    return rule if gamma == 0 else affine


class _Gamma(Function):
    """`z`, whose own gradient is that of the ε-rule, to which this adds what γ makes of it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, a: Tensor, affine: GammaAffine) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, a)
        ctx.affine = affine
        with torch.enable_grad():
            ctx.size = a.detach().abs().requires_grad_()
            ctx.sizes = affine.apply(ctx.size, affine.kernel.abs())
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        affine: GammaAffine = ctx.affine
        if grad is None or affine.backward.plain:
            return grad, None, None
        z, a = ctx.saved_tensors
        half, whole = affine.gamma / 2, ctx.sizes.detach()
        if affine.bias is not None:
            whole = whole + along(affine.bias.abs(), affine.axis, z.ndim)
        whole = (1 + half) * z.abs() + half * whole
        s = z.abs() * grad / whole.masked_fill(whole == 0, torch.inf)
        (agreeing,) = torch.autograd.grad(ctx.sizes, ctx.size, z.sign() * s, retain_graph=True)
        return (1 + half) * s, half * a.sign() * agreeing, None
