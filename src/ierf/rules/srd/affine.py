"""Convolutions, linear layers and added constants: own gradient, and somebody inherits the bias."""

from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ierf.axes import per_axis
from ierf.operations import map_tensors
from ierf.rules.bias import Affine, own_shift
from ierf.rules.mode import Call, Rule, replaced
from ierf.rules.window import Window

BiasMode = Literal["norm", "uniform", "drop"]
BIAS_MODES: tuple[str, ...] = get_args(BiasMode)


def convolution(mode: BiasMode, call: Call) -> Tensor:
    given = call.given("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    a, weight, bias = given["input"], _weight(call, given["weight"]), given.get("bias")
    n = weight.ndim - 2
    dilation, padding = per_axis(given.get("dilation", 1), n), given.get("padding", 0)
    stride, groups = per_axis(given.get("stride", 1), n), given.get("groups", 1)
    if isinstance(padding, str):
        a, padding = _padded(a, padding, weight.shape[2:], dilation)
    window = Window(tuple(weight.shape[2:]), stride, per_axis(padding, n), dilation, groups)
    call.affine = Affine(a, weight, _weight(call, bias), window, 1, mode, call.backward, call.port_of(a))
    return call.func(a, weight, bias, stride, padding, dilation, groups)  # type: ignore[no-any-return]


def _padded(a: Tensor, padding: str, kernel: Any, dilation: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...] | int]:
    """`padding="same"` or "valid" as numbers, with the odd cell of an even kernel added to the picture itself."""
    if padding == "valid":
        return a, 0
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    odd = [t % 2 for t in total]
    if any(odd):
        a = F.pad(a, [side for extra in reversed(odd) for side in (0, extra)])
    return a, tuple(t // 2 for t in total)


def _weight(call: Call, weight: Any) -> Any:
    """A parameter as a constant: no memory for its gradient, and no relevance if it was computed from the picture."""
    if not isinstance(weight, Tensor):
        return weight
    return weight.detach() if call.node_of(weight) is None else call.hold(weight)


def linear(mode: BiasMode, call: Call) -> Tensor:
    a, weight, bias = call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias")
    weight, bias = _weight(call, weight), _weight(call, bias)
    call.affine = Affine(a, weight, bias, None, a.ndim - 1, mode, call.backward, call.port_of(a))
    return F.linear(a, weight, bias)


def addmm(mode: BiasMode, fallback: Rule, call: Call) -> Any:
    """`bias + x @ weight`, the linear layer of some libraries."""
    bias, x, weight = call.args[:3]
    if call.kwargs or call.node_of(x) is None or call.node_of(weight) is not None or call.node_of(bias) is not None:
        return fallback(call)
    call.args, call.kwargs = (x, weight.t(), bias), {}
    return linear(mode, call)


def sum_or_difference(mode: BiasMode, call: Call) -> Tensor:
    """A sum of activations has its own gradient; an added constant is a bias of its own position."""
    z: Tensor = call.run()
    activations = call.activations()
    return z if len(activations) != 1 else shifted(mode, call, z, activations[0], value_at_zero(call, activations[0]))


def shifted(mode: BiasMode, call: Call, z: Tensor, x: Tensor, shift: Tensor) -> Tensor:
    """`z = (linear in x) + shift` with the shift's relevance on its own PFV; `x` may be broadcast to `z`."""
    node = call.node_of(x)
    if mode == "drop" or node is None:
        return z
    return own_shift(z, x.expand_as(z), shift, node.axis + z.ndim - x.ndim, call.backward)


def value_at_zero(call: Call, x: Tensor) -> Tensor:
    """What the operation returns where `x` is zero: the shift of an affine operation."""
    args, kwargs = map_tensors(partial(replaced, x, torch.zeros_like(x)), (call.args, call.kwargs))
    shift: Tensor = call.func(*args, **kwargs).detach()
    return shift
