"""Products of n activations: an n-th of the relevance for each (AttnLRP, Prop. 3.3); and normalisations.

Subtracting a mean is linear, and what a normalisation divides by is a constant.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ierf.operations import map_tensors
from ierf.rules.bias import along
from ierf.rules.call import Call, replaced
from ierf.rules.primitives import Backward, constant, gradient_of, through
from ierf.rules.srd_activations import own_gate
from ierf.rules.srd_affine import batch_norm


def product(call: Call) -> Any:
    """A product of matrices, or any that `einsum` makes; one that only multiplies a map by a gate is such."""
    factors = varying(call, call.activations())
    return _gated_or_shared(call, factors) if _sums_nothing(call) else shared_out(call, factors)


def _sums_nothing(call: Call) -> bool:
    """Whether `einsum` has every letter in its output."""
    equation = call.args[0] if call.name == "einsum" else None
    if not isinstance(equation, str) or "->" not in equation:
        return False
    inputs, _, output = equation.replace(" ", "").partition("->")
    return set(inputs) - set(",") <= set(output)


def elementwise_product(call: Call) -> Any:
    """An activation function that is written out, `x · s(x)`, and what a gate lets through keep all relevance.

    Other products share it out.
    """
    return _gated_or_shared(call, varying(call, call.activations()))


def addcmul(call: Call) -> Any:
    """`x + value · a · b`."""
    return _gated_or_shared(call, varying(call, call.args[1:3]))


def _gated_or_shared(call: Call, factors: list[Tensor]) -> Any:
    gate = gate_among(call, factors)
    return shared_out(call, factors) if gate is None else call.run(hold=[gate])


def gate_among(call: Call, factors: list[Tensor]) -> Tensor | None:
    """The factor that does not carry the map: one computed from the other, pooled, bounded, or a normaliser."""
    if len(factors) != 2 or factors[0] is factors[1]:
        return None
    if (own := own_gate(call, factors)) is not None:
        return own
    by_size, by_kind = ([rank(f) for f in factors] for rank in (call.own_size, lambda f: gate_strength(call, f)))
    if by_size[0] != by_size[1]:
        return factors[0] if by_size[0] < by_size[1] else factors[1]
    if max(by_kind) >= 2 and by_kind[0] != by_kind[1]:
        return factors[0] if by_kind[0] > by_kind[1] else factors[1]
    return None


def gate_strength(call: Call, factor: Tensor) -> int:
    node = call.node_of(factor)
    return 0 if node is None else node.gate


def sum_and_product(call: Call) -> Any:
    """`β · x + α · a @ b`."""
    return shared_out(call, varying(call, call.args[1:3]))


def varying(call: Call, factors: Sequence[Tensor]) -> list[Tensor]:
    """Those that relevance can flow through."""
    nodes = [call.node_of(factor) for factor in factors]
    return [factor for factor, node in zip(factors, nodes, strict=True) if node is not None and not node.constant]


def shared_out(call: Call, factors: Sequence[Tensor]) -> Any:
    """The operation itself, with an equal part of the relevance for each factor."""
    args: Any = (call.args, call.kwargs)
    for factor in {id(f): f for f in factors}.values():
        args = map_tensors(partial(replaced, factor, part(factor, 1 / len(factors), call.backward)), args)
    return call.func(*args[0], **args[1])


def part(x: Tensor, share: float, backward: Backward) -> Tensor:
    """`x`, which gets `share` of the relevance that comes back."""
    return x if share == 1 else through(_Part, x, share, backward)


class _Part(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float, backward: Backward) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.share, ctx.switch = share, backward
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        return (grad if grad is None or ctx.switch.plain else grad * ctx.share), None, None


def layer_norm(call: Call) -> Tensor:
    given = call.given("input", "normalized_shape", "weight", "bias", "eps")
    weight, bias = (None if given.get(name) is None else given[name].detach() for name in ("weight", "bias"))
    shape, eps = list(given["normalized_shape"]), given.get("eps", 1e-5)
    return through(_LayerNorm, given["input"], shape, weight, bias, eps, call.backward)


def group_norm(call: Call) -> Tensor:
    given = call.given("input", "num_groups", "weight", "bias", "eps")
    return _by_groups(call, given["input"], given["num_groups"], given)


def instance_norm(call: Call) -> Tensor:
    given = call.given("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    if not given.get("use_input_stats", True):
        return batch_norm("drop", call)
    return _by_groups(call, given["input"], given["input"].shape[1], given)


def _by_groups(call: Call, x: Tensor, groups: int, given: dict[str, Any]) -> Tensor:
    grouped = x.reshape(x.shape[0], groups, -1)
    z = through(_LayerNorm, grouped, list(grouped.shape[2:]), None, None, given.get("eps", 1e-5), call.backward)
    z = z.reshape_as(x)
    if given.get("weight") is not None:
        z = z * along(given["weight"].detach(), 1, x.ndim)
    return z if given.get("bias") is None else z + along(given["bias"].detach(), 1, x.ndim)


def half(call: Call) -> Any:
    """A variance, homogeneous of degree two: `⟨x, ∇f⟩ = 2 f`."""
    (x,) = call.activations()
    args, kwargs = map_tensors(partial(replaced, x, part(x, 0.5, call.backward)), (call.args, call.kwargs))
    return call.func(*args, **kwargs)


def statistic(call: Call) -> Any:
    """Computed from the picture, and taken for a constant."""
    call.constant = True
    return map_tensors(partial(constant, backward=call.backward), call.run())


class _LayerNorm(Function):
    """`(x − mean) / σ ⊙ weight + bias` with a constant σ: the gradient is `h − mean(h)`, `h = g ⊙ weight / σ`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shape: Sequence[int],
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        backward: Backward,
    ) -> Tensor:
        z, _, inverse = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, inverse)
        ctx.shape, ctx.weight, ctx.bias, ctx.eps, ctx.switch = shape, weight, bias, eps, backward
        return z

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return (None,) * 6
        x, inverse = ctx.saved_tensors
        axes = list(range(-len(ctx.shape), 0))
        if ctx.switch.plain:
            normalise = partial(
                torch.layer_norm, normalized_shape=ctx.shape, weight=ctx.weight, bias=ctx.bias, eps=ctx.eps
            )
            return gradient_of(normalise, x, grad), *(None,) * 5
        if torch.is_grad_enabled():
            inverse = (x.var(axes, correction=0, keepdim=True) + ctx.eps).rsqrt()
        h = grad * inverse if ctx.weight is None else grad * ctx.weight * inverse
        return h - h.mean(axes, keepdim=True), *(None,) * 5
