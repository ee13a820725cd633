"""The sharing-ratio rule, wherever a network is not affine."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from ierf.rules.mode import Call, Rule
from ierf.rules.sharing_ratio import sharing_ratio


def activation(fallback: Rule, call: Call) -> Any:
    """The sharing-ratio rule; `clamp` between computed bounds, say, has none."""
    v, kwargs = call.argument(0, "input"), {name: value for name, value in call.kwargs.items() if name != "input"}
    node = call.node_of(v)
    if node is None or len(call.activations()) > 1:
        return fallback(call)
    return _shared(call, v, partial(_call_first, call.func, call.args[1:], kwargs), node.axis)


def larger_or_smaller(call: Call) -> Any:
    """Of two activations each position's winner; against a constant an activation function like ReLU."""
    activations = call.activations()
    if len(activations) != 1 or activations[0].shape != call.run().shape:
        return call.run()
    (v,) = activations
    node = call.node_of(v)
    assert node is not None
    other = call.args[1] if call.args[0] is v else call.args[0]
    return _shared(call, v, partial(_call_first, call.func, (other,), {}), node.axis)


def _shared(call: Call, v: Tensor, function: Callable[[Tensor], Tensor], axis: int) -> Tensor:
    a, port = sharing_ratio(v, function, axis, call.backward)
    call.scalar, call.port = True, port
    return a


def _call_first(func: Callable[..., Tensor], rest: tuple[Any, ...], kwargs: dict[str, Any], v: Tensor) -> Tensor:
    return func(v, *rest, **kwargs)
