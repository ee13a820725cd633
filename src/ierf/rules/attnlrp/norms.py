"""Normalisations: subtracting the mean is linear, what they divide by is a constant."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ierf.operations import map_tensors
from ierf.rules.attnlrp.products import part
from ierf.rules.bias import along
from ierf.rules.mode import Call, replaced
from ierf.rules.primitives import Backward, constant, gradient_of, through
from ierf.rules.srd.norms import batch_norm


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
