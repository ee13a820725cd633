"""Convolutions, linear layers, added constants, normalisations: own gradient, and somebody inherits the bias (SRD).

What a normalisation divides by is a constant, and its shift stays on its own PFV.
"""

from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ierf.axes import isolated, per_axis
from ierf.operations import map_tensors, tensors_in
from ierf.rules.bias import Affine, TransposedAffine, along, own_shift
from ierf.rules.call import Call, Rule, replaced
from ierf.rules.primitives import constant
from ierf.rules.srd_activations import written_out
from ierf.rules.window import Window

BiasMode = Literal["norm", "uniform", "drop"]
BIAS_MODES: tuple[str, ...] = get_args(BiasMode)


def convolution(mode: BiasMode, call: Call) -> Tensor:
    given = call.given("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    if call.node_of(given["input"]) is None:
        return call.run()  # type: ignore[no-any-return]
    a, weight, bias = given["input"], _weight(call, given["weight"]), given.get("bias")
    n, alone = weight.ndim - 2, given["input"].ndim < weight.ndim
    a = a.unsqueeze(0) if alone else a
    dilation, padding = per_axis(given.get("dilation", 1), n), given.get("padding", 0)
    stride, groups = per_axis(given.get("stride", 1), n), given.get("groups", 1)
    if isinstance(padding, str):
        a, padding = _padded(a, padding, weight.shape[2:], dilation)
    window = Window(tuple(weight.shape[2:]), stride, per_axis(padding, n), dilation, groups)
    affine = Affine(a, weight, _weight(call, bias), window, 1, mode, call.backward, call.port_of(a))
    z: Tensor = call.func(a, weight, affine.bias, stride, padding, dilation, groups)
    if alone:
        return affine.share(z).squeeze(0)
    call.affine = affine
    return z


def transposed_convolution(mode: BiasMode, call: Call) -> Tensor:
    given = call.given("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    a, weight, bias = given["input"], given["weight"], given.get("bias")
    n = weight.ndim - 2
    if call.node_of(a) is None or a.ndim < weight.ndim:
        return call.run()  # type: ignore[no-any-return]
    weight, bias = _weight(call, weight), _weight(call, bias)
    stride, padding, extra, dilation = (
        per_axis(given.get(name, default), n)
        for name, default in (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))
    )
    window = Window(tuple(weight.shape[2:]), stride, padding, dilation, given.get("groups", 1))
    call.affine = TransposedAffine(a, weight, bias, window, 1, mode, call.backward, call.port_of(a), None, extra)
    z: Tensor = call.func(a, weight, bias, stride, padding, extra, window.groups, dilation)
    return z


def steered(call: Call) -> Any:
    """What says where to look, such as a grid of sampling points, is a constant."""
    x = call.argument(0, "input")
    return call.run(hold=[t for t in call.activations() if t is not x] if call.node_of(x) is not None else [])


def joined(mode: BiasMode, call: Call) -> Any:
    """Several tensors in one: own gradient, and what the constants among them put in stays on its own PFV."""
    if call.name == "stack" and mode != "drop":
        return _stacked(call)
    if call.name in ("where", "masked_fill") and (v := written_out(call)) is not None:
        return v
    z = call.run()
    if mode == "drop" or not isinstance(z, Tensor) or not _has_constants(call):
        return z
    args, kwargs = map_tensors(partial(_silenced, call), (call.args, call.kwargs))
    args = tuple(0 if _is_value(call, i, value) else value for i, value in enumerate(args))
    activations = call.func(*args, **{k: 0 if k in ("value", "other") else v for k, v in kwargs.items()})
    channels = call.channels_of(z)
    (z_apart, axes), (apart, _) = isolated(z, channels), isolated(activations, channels)
    shift = (z_apart - apart).detach().nan_to_num(0, 0, 0)
    return own_shift(z_apart, apart, shift, axes, call.backward).reshape(z.shape)


def _stacked(call: Call) -> Tensor:
    """Constants in a stack lie beside an activation's positions, which get their relevance."""
    x = call.activations()[0]
    node = call.node_of(x)
    assert node is not None

    def beside(tensor: Tensor) -> Tensor:
        if id(tensor) in call.tracked or not tensor.is_floating_point() or tensor.shape != x.shape:
            return tensor
        return own_shift(tensor, x, tensor, node.axis, call.backward)

    args, kwargs = map_tensors(beside, (call.args, call.kwargs))
    stacked: Tensor = call.func(*args, **kwargs)
    return stacked


def _has_constants(call: Call) -> bool:
    found = [t for t in tensors_in(call.args, call.kwargs) if id(t) not in call.tracked and t.is_floating_point()]
    numbers = [v for i, v in enumerate(call.args) if _is_value(call, i, v)] + list(call.kwargs.values())
    return bool(found) or any(isinstance(v, float | int) and not isinstance(v, bool) and v != 0 for v in numbers)


def _is_value(call: Call, position: int, value: Any) -> bool:
    """Whether an argument is a number that an operation writes into its output (not an axis, not an index)."""
    return (
        call.name in ("where", "masked_fill", "__setitem__")
        and position > 0
        and type(value) in (int, float)
        and (call.name != "__setitem__" or position == 2)
    )


def _silenced(call: Call, tensor: Tensor) -> Tensor:
    return tensor if id(tensor) in call.tracked or not tensor.is_floating_point() else torch.zeros_like(tensor)


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
    if call.node_of(a) is None:
        return call.run()  # type: ignore[no-any-return]
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


def batch_norm(mode: BiasMode, call: Call) -> Tensor:
    given = call.given("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    x, mean, var = given["input"], given.get("running_mean"), given.get("running_var")
    weight, bias = (None if given.get(name) is None else given[name].detach() for name in ("weight", "bias"))
    eps = given.get("eps", 1e-5)
    affine = _affine_before(call, x)
    if given.get("training", False) or mean is None or var is None:
        axes = [i for i in range(x.ndim) if i != 1]
        mean = constant(x.mean(axes), call.backward)
        var = constant(x.var(axes, correction=0), call.backward)
    scale = (var + eps).rsqrt() if weight is None else (var + eps).rsqrt() * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    z = torch.addcmul(along(shift, 1, x.ndim), x, along(scale, 1, x.ndim))
    if mode == "drop" and (affine is None or not affine.changes_gradient):
        return z
    if affine is not None:
        call.whole = affine.folded(scale, shift)
        return call.whole.share(z)
    return shifted(mode, call, z, x, along(shift, 1, x.ndim))


def _affine_before(call: Call, x: Tensor) -> Affine | None:
    """The convolution that this batch-norm folds into, which is noted."""
    node = call.node_of(x)
    if node is None or node.affine is None or node.affine.axis != 1 or call.name != "batch_norm":
        return None
    call.folds = call.tracked[id(x)]
    call.place.account = node.place
    return node.affine


def layer_norm(mode: BiasMode, call: Call) -> Tensor:
    given = call.given("input", "normalized_shape", "weight", "bias", "eps")
    x, weight, bias = given["input"], given.get("weight"), given.get("bias")
    axes = list(range(-len(given["normalized_shape"]), 0))
    centred = x - x.mean(axes, keepdim=True)
    scale = constant((centred.square().mean(axes, keepdim=True) + given.get("eps", 1e-5)).rsqrt(), call.backward)
    z = centred * (scale if weight is None else scale * weight.detach())
    return z if bias is None else shifted(mode, call, z + bias.detach(), x, bias.detach())


def rms_norm(call: Call) -> Tensor:
    given = call.given("input", "normalized_shape", "weight", "eps")
    x, weight, eps = given["input"], given.get("weight"), given.get("eps")
    axes = list(range(-len(given["normalized_shape"]), 0))
    mean_square = x.square().mean(axes, keepdim=True)
    scale = constant((mean_square + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt(), call.backward)
    return x * (scale if weight is None else scale * weight.detach())  # type: ignore[no-any-return]


def group_norm(mode: BiasMode, call: Call) -> Tensor:
    given = call.given("input", "num_groups", "weight", "bias", "eps")
    return _standardised(mode, call, given["input"], given["num_groups"], given)


def instance_norm(mode: BiasMode, call: Call) -> Tensor:
    given = call.given("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    if not given.get("use_input_stats", True):
        return batch_norm(mode, call)
    return _standardised(mode, call, given["input"], given["input"].shape[1], given)


def _standardised(mode: BiasMode, call: Call, x: Tensor, groups: int, given: dict[str, Any]) -> Tensor:
    """Mean and deviation span positions, so both are constants: what they add belongs to no other PFV."""
    grouped = x.reshape(x.shape[0], groups, -1)
    mean = grouped.mean(-1, keepdim=True).expand_as(grouped).reshape_as(x)
    var = grouped.var(-1, keepdim=True, correction=0).expand_as(grouped).reshape_as(x)
    scale = constant((var + given.get("eps", 1e-5)).rsqrt(), call.backward)
    shift = constant(-mean, call.backward) * scale
    for name, combine in (("weight", torch.mul), ("bias", torch.add)):
        if given.get(name) is not None:
            parameter = along(given[name].detach(), 1, x.ndim)
            shift = combine(shift, parameter)
            scale = scale * parameter if name == "weight" else scale
    return shifted(mode, call, x * scale + shift, x, shift)


def normalize(call: Call) -> Tensor:
    x, p, dim = call.argument(0, "input"), call.argument(1, "p", 2.0), call.argument(2, "dim", 1)
    norm = x.norm(p, dim, keepdim=True).clamp_min(call.argument(3, "eps", 1e-12))
    return x / constant(norm, call.backward)  # type: ignore[no-any-return]
