"""Activation functions: relevance stays where it is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ierf.rules.mode import Call, Rule
from ierf.rules.primitives import Backward, gradient_of, through

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
