"""The z⁺ rule of layer-wise relevance propagation as a table: operation -> rule (arXiv 1512.02479).

An operation `z_j = Σ_i w_ij a_i + b_j` hands the relevance of its output to what speaks for it:

    R_i = Σ_j (a_i w_ij)⁺ / Σ_i' (a_i' w_i'j)⁺ R_j          (Montavon et al., arXiv 1512.02479)

with `(a w)⁺` in place of `a w⁺`, so that negative inputs are allowed (the αβ rule with α = 1, β = 0; Bach et al., PLoS
ONE 2015, Eq. 60). Biases receive nothing, hence `Σ_i R_i = Σ_j R_j` wherever anything speaks for `z_j`. Relevance is
carried as the gradient `g` with `R = a ⊙ g`.

convolution, linear           z⁺; a batch-norm that follows is folded into the weights
the first of them             w²: `R_i = Σ_j w_ij² / Σ_i' w_i'j² R_j` (same paper), which asks nothing of
                              the pixels (their z^B rule needs to know the darkest and brightest); `g` is R itself here
sum of two activations        z⁺
activation                    R stays where it is
max-pool                      to the winner
all else                      as in Sharing Ratio Decomposition (`ierf.rules.srd`)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ierf.operations import ACTIVATIONS, LAYERS
from ierf.rules.bias import Affine
from ierf.rules.call import Call, Rule, Unknown
from ierf.rules.primitives import Backward, gradient_of, through
from ierf.rules.srd import SRDRules

Part = Callable[..., Tensor]
"""Inputs -> what speaks for each output, by functions whose gradient distributes relevance."""


def zplus_table(unknown: Unknown = "raise") -> tuple[Mapping[str, Rule], Rule]:
    """Operation name -> rule, and the rule for the rest (see `SRDRules.unknown`)."""
    rules = SRDRules("norm", unknown)
    table = rules.table()
    return (
        {
            **table,
            **dict.fromkeys(ACTIVATIONS, partial(_activation, rules.fallback)),
            **{name: partial(_affine, table[name]) for name in LAYERS},
            **{name: partial(_sum, table[name]) for name in ("add", "sub")},
            **{name: partial(_normalising, table[name]) for name in ("mul", "div", "batch_norm")},
        },
        rules.fallback,
    )


@dataclass(frozen=True)
class PositiveAffine(Affine):
    """A convolution or linear layer, by itself or with a batch-norm folded in, whose way back is z⁺ (or w²)."""

    first: bool = False
    """Whether no other layer lies between it and the pixels."""

    def share(self, z: Tensor) -> Tensor:
        if self.first:
            return through(_Redistributed, z, self._squares, True, self.backward, self.a)
        return through(_Redistributed, z, self._positive, False, self.backward, self.a)

    def _positive(self, a: Tensor) -> Tensor:
        kernel = self.kernel
        speaks = self.apply(a.relu(), kernel.clamp_min(0))
        return speaks if bool((a >= 0).all()) else speaks + self.apply(-(-a).relu(), kernel.clamp_max(0))

    def _squares(self, a: Tensor) -> Tensor:
        """Linear in an `a` of ones, whose gradient it takes: every pixel speaks by its squared weight."""
        return self.apply(a - a.detach() + 1, self.kernel.square())


class _Redistributed(Function):
    """`z`, whose relevance `R = z ⊙ g` goes to the inputs in proportion to their part in `part(*inputs)`.

    `fixed`: whether the value of `part` is the same for all inputs, and only its gradient is asked for.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, part: Part, fixed: bool, backward: Backward, *inputs: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, *inputs)
        ctx.part, ctx.fixed, ctx.switch = part, fixed, backward
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        z, *inputs = ctx.saved_tensors
        if grad is None or ctx.switch.plain:
            return grad, None, None, None, *[None] * len(inputs)
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            points = [a.view_as(a) if again else a.detach().requires_grad_() for a in inputs]
            speaks = ctx.part(*points)
        total = speaks.detach() if ctx.fixed else speaks
        silent = total <= torch.finfo(total.dtype).tiny ** 0.5
        per_part = z * grad / total.masked_fill(silent, torch.inf)
        return None, None, None, None, *torch.autograd.grad(speaks, points, per_part, create_graph=again)


class _Straight(Function):
    """`z` in place of `x`, position by position: what comes back is handed on as it is."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, x: Tensor, backward: Backward) -> Tensor:
        ctx.switch = backward
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return (grad, None, None) if ctx.switch.plain else (None, grad, None)


class _Kept(Function):
    """`a = f(z)`, whose relevance `a ⊙ g_a` is that of z: `g_z = g_a a / z`, 0 where z is."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, function: Callable[[Tensor], Tensor], backward: Backward) -> Tensor:
        a = function(z)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, a)
        ctx.function, ctx.switch = function, backward
        return a

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return None, None, None
        z, a = ctx.saved_tensors
        if ctx.switch.plain:
            return gradient_of(ctx.function, z, grad), None, None
        return grad * a / z.masked_fill(z == 0, torch.inf), None, None


def _affine(rule: Rule, call: Call) -> Any:
    """What the sharing-ratio rule makes of the operation, but for its way back."""
    z = rule(call)
    if call.affine is not None:
        known = {f.name: getattr(call.affine, f.name) for f in fields(Affine)}
        call.affine = PositiveAffine(**known, first=not call.tape.behind_a_layer(call.nodes))
    return z


def _normalising(rule: Rule, call: Call) -> Any:
    """Between the pixels and the first layer `g` is R: a normalisation inside the network leaves it as it is."""
    terms = call.activations()
    if len(terms) != 1 or call.tape.behind_a_layer(call.nodes):
        return rule(call)
    z: Tensor = call.run()
    return through(_Straight, z, terms[0], call.backward) if z.shape == terms[0].shape else rule(call)


def _sum(rule: Rule, call: Call) -> Any:
    """z⁺ for two activations; a constant is a bias."""
    terms = call.activations()
    if len(terms) != 2 or call.kwargs:
        return _normalising(rule, call)
    sign = -1 if call.name == "sub" else 1
    z: Tensor = call.run()
    return through(_Redistributed, z, lambda a, b: a.relu() + (sign * b).relu(), False, call.backward, *terms)


def _activation(fallback: Rule, call: Call) -> Any:
    z, kwargs = call.argument(0, "input"), {name: value for name, value in call.kwargs.items() if name != "input"}
    if len(call.activations()) != 1 or call.node_of(z) is None:
        return fallback(call)
    function, rest = call.func, call.args[1:]
    return through(_Kept, z, lambda v: function(v, *rest, **kwargs), call.backward)
