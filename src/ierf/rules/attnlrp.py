"""Layer-wise relevance propagation for attention as a table: operation -> rule (AttnLRP, arXiv 2402.05602).

Relevance is carried as the gradient `g` with `R = x ⊙ g`, so that most rules are gradients (ε → 0 throughout):

linear, convolution           ε-rule: own gradient; with γ > 0 see `GammaAffine`
softmax                       R_x = x ⊙ (R − s Σ R): own gradient (attention="cp": the weights are constants)
product of n activations      an n-th of the gradient each
activation f                  R stays: (f(x) − f(0)) / x; f(0), of a sigmoid say, is a bias
x · s(x) written out          an activation
gate times map                the gate is a constant: pooled, bounded (a sigmoid, a softmax), or a normaliser
norm, deviation, root         as a feature: own gradient, for which R is conserved; as a divisor a constant
layer-norm, RMS-norm, …       the standard deviation is a constant
quotient                      the denominator is a constant
sums, pooling, reshaping      own gradient

A bias, an added constant or a class token keeps its part of the relevance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor
from torch.autograd import Function

from ierf.errors import IerfError, UnknownNameError
from ierf.operations import ACTIVATIONS, CONVOLUTIONS, LINEAR, SELECTING, SIZES
from ierf.rules.attention import Attention, attention_product, attention_weights
from ierf.rules.attnlrp_products import (
    addcmul,
    elementwise_product,
    group_norm,
    half,
    instance_norm,
    layer_norm,
    product,
    sum_and_product,
)
from ierf.rules.bias import Affine, along
from ierf.rules.call import UNKNOWN, Call, Rule, Unknown, fallback
from ierf.rules.primitives import Backward, gradient_of, through
from ierf.rules.srd import with_constant_denominator
from ierf.rules.srd_affine import addmm, batch_norm, convolution, linear, normalize, rms_norm, steered

ATTENTION: tuple[str, ...] = get_args(Attention)


@dataclass(frozen=True)
class AttnLRPRules:
    """Options of the rules.

    attention: "lrp" passes relevance through the softmax to queries and keys, "cp" holds the attention weights constant
    (CP-LRP, arXiv 2202.07304). conv_gamma, linear_gamma: how much more what agrees with an output's sign counts; None:
    0.25 in convolutions behind another layer, 0 (the ε-rule) at the pixels.
    unknown: see `ierf.rules.call`.
    """

    attention: Attention = "lrp"
    conv_gamma: float | None = None
    linear_gamma: float = 0.0
    unknown: Unknown = "raise"

    def __post_init__(self) -> None:
        for name, value, choices in (("attention", self.attention, ATTENTION), ("unknown", self.unknown, UNKNOWN)):
            if value not in choices:
                raise UnknownNameError(f"choice for {name}", str(value), choices)
        for name, gamma in (("conv_gamma", self.conv_gamma or 0.0), ("linear_gamma", self.linear_gamma)):
            if not 0 <= gamma < float("inf"):
                raise IerfError(f"{name} is a number from 0 up, not {gamma}")

    def table(self) -> Mapping[str, Rule]:
        """Operation name -> rule."""
        own_gradient = LINEAR | SELECTING | {"add", "sub", "rsub", "maximum", "minimum"}
        return (
            dict.fromkeys(own_gradient, Call.run)
            | dict.fromkeys(ACTIVATIONS, partial(activation, self.fallback))
            | dict.fromkeys(CONVOLUTIONS, with_gamma(self.conv_gamma, partial(convolution, "drop")))
            | dict.fromkeys(SIZES, Call.run)
            | {
                "var": half,
                "grid_sample": steered,
                "linear": with_gamma(self.linear_gamma, partial(linear, "drop")),
                "addmm": with_gamma(self.linear_gamma, partial(addmm, "drop", sum_and_product)),
                "baddbmm": sum_and_product,
                "batch_norm": partial(batch_norm, "drop"),
                "layer_norm": layer_norm,
                "rms_norm": rms_norm,
                "group_norm": group_norm,
                "instance_norm": instance_norm,
                "normalize": normalize,
                "mul": elementwise_product,
                "matmul": product,
                "einsum": product,
                "addcmul": addcmul,
                "div": partial(with_constant_denominator, self.fallback),
                "softmax": partial(attention_weights, self.attention),
                "scaled_dot_product_attention": partial(attention_product, self.attention),
            }
        )

    def fallback(self, call: Call) -> Any:
        """An operation without a rule."""
        return fallback(self.unknown, call)


_ZERO_AT_ZERO = frozenset(
    "relu relu6 leaky_relu elu selu celu silu gelu mish hardswish prelu rrelu softsign tanh tanhshrink hardshrink "
    "softshrink erf square sqrt abs log1p expm1".split()
)


def activation(fallback: Rule, call: Call) -> Any:
    """`R_x = R`, less what a constant `f(0)` keeps; `clamp` between computed bounds, say, has no rule."""
    x, kwargs = call.argument(0, "input"), {name: value for name, value in call.kwargs.items() if name != "input"}
    if call.node_of(x) is None or len(call.activations()) > 1:
        return fallback(call)
    if call.name == "pow" and not (isinstance(exponent := call.argument(1, "exponent"), int | float) and exponent > 0):
        return fallback(call)
    function = partial(_of_first, call.func, call.args[1:], kwargs)
    at_zero = None if call.name in _ZERO_AT_ZERO else function(torch.zeros_like(x.detach()))
    return through(_Identity, x, function, at_zero, call.backward)


def _of_first(func: Callable[..., Tensor], rest: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor) -> Tensor:
    return func(x, *rest, **kwargs)


class _Identity(Function):
    """`f(x)`, whose gradient is `(f(x) − f(0)) / x`; 0 where x is, which has no relevance."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], at_zero: Tensor | None, backward: Backward
    ) -> Tensor:
        y = function(x)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, _slope(x, y, at_zero))
        ctx.function, ctx.at_zero, ctx.switch = function, at_zero, backward
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return None, None, None, None
        x, slope = ctx.saved_tensors
        if ctx.switch.plain:
            return gradient_of(ctx.function, x, grad), None, None, None
        if torch.is_grad_enabled():
            slope = _secant(x, ctx.function(x), ctx.at_zero)
        return grad * slope, None, None, None


def _slope(x: Tensor, y: Tensor, at_zero: Tensor | None) -> Tensor:
    """`_secant` for those who need no gradient of it, with half of its passes over memory."""
    return (y if at_zero is None else y - at_zero).div(x).nan_to_num_(0, 0, 0)


def _secant(x: Tensor, y: Tensor, at_zero: Tensor | None) -> Tensor:
    return (y if at_zero is None else y - at_zero) / x.masked_fill(x == 0, torch.inf)


INNER_GAMMA = 0.25
"""What the authors of AttnLRP use for the convolutions of vision transformers."""


@dataclass(frozen=True)
class GammaAffine(Affine):
    """A convolution or linear layer, by itself or with a batch-norm folded in, whose way back is the γ-rule.

    What agrees with an output's sign counts more: `R_i = Σ_j (c_ij + γ c_ij^σ) / (Σ_i' (c_i'j + γ c_i'j^σ) + b_j +
    γ b_j^σ) R_j` with the contributions `c_ij = a_i w_ij`, where `c^σ` is c if it has the sign of `z_j` and 0 otherwise
    (Montavon et al. 2019, for inputs and outputs of either sign). Since `c^σ = (c + sign(z_j) |c|) / 2`, two products
    of matrices with |a| and |w| serve:

        g_a = (1 + γ/2) Wᵀ s + γ/2 sign(a) ⊙ |W|ᵀ (sign(z) ⊙ s),
        s   = |z| ⊙ g_z / ((1 + γ/2) |z| + γ/2 (|W| |a| + |b|)).

    γ → 0 is the ε-rule, the plain gradient; γ → ∞ asks only what agrees.
    """

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
