"""Sharing Ratio Decomposition as a table: operation -> rule (arXiv 2605.00474, Sec. IV-A and VII-A).

activation                    the sharing-ratio rule
convolution, linear           own gradient; the bias is shared among the inputs; a batch-norm that follows folds in
batch-norm alone, constants   own gradient; the shift stays on its own PFV (μ = 1)
layer-norm, RMS-norm          the standard deviation is a constant
group-norm, instance-norm     mean and standard deviation are constants
product of two activations    the gate is a constant, all relevance goes to what it gates
attention                     the weights are constants
pooling, adds, reshaping      own gradient
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ierf.errors import UnknownNameError
from ierf.rules.bias import Affine, along, own_shift
from ierf.rules.layout import per_axis
from ierf.rules.mode import Call, Rule, replaced
from ierf.rules.operations import ACTIVATIONS, CONVOLUTIONS, LINEAR, SELECTING, map_tensors
from ierf.rules.primitives import constant, unruled
from ierf.rules.sharing_ratio import sharing_ratio
from ierf.rules.window import Window

BiasMode = Literal["norm", "uniform", "drop"]
Unknown = Literal["raise", "gradient"]
BIAS_MODES: tuple[str, ...] = get_args(BiasMode)
UNKNOWN: tuple[str, ...] = get_args(Unknown)


@dataclass(frozen=True)
class SRDRules:
    """Options of the rules.

    bias: who inherits a bias's relevance, see `ierf.rules.bias`. unknown: what an operation without a rule does once
    relevance reaches it: "raise", or "gradient" to pass it by its plain gradient (the ledger shows what that leaks).
    """

    bias: BiasMode = "norm"
    unknown: Unknown = "raise"

    def __post_init__(self) -> None:
        for name, value, choices in (("bias", self.bias, BIAS_MODES), ("unknown", self.unknown, UNKNOWN)):
            if value not in choices:
                raise UnknownNameError(f"choice for {name}", str(value), choices)

    def table(self) -> Mapping[str, Rule]:
        """Operation name -> rule."""
        bias = self.bias
        return (
            dict.fromkeys(LINEAR | SELECTING, Call.run)
            | dict.fromkeys(ACTIVATIONS, partial(_activation, self.fallback))
            | dict.fromkeys(CONVOLUTIONS, partial(_convolution, bias))
            | {
                "linear": partial(_linear, bias),
                "batch_norm": partial(_batch_norm, bias),
                "layer_norm": partial(_layer_norm, bias),
                "rms_norm": _rms_norm,
                "group_norm": partial(_group_norm, bias),
                "instance_norm": partial(_instance_norm, bias),
                "add": partial(_sum, bias),
                "sub": partial(_sum, bias),
                "rsub": partial(_sum, bias),
                "addcmul": partial(_addcmul, bias, self.fallback),
                "addmm": partial(_addmm, bias, self.fallback),
                "mul": partial(_product, self.fallback),
                "matmul": partial(_product, self.fallback),
                "einsum": partial(_product, self.fallback),
                "div": partial(_quotient, self.fallback),
                "maximum": _larger_or_smaller,
                "minimum": _larger_or_smaller,
                "scaled_dot_product_attention": _attention,
                "normalize": _normalize,
                "__setitem__": Call.run,
            }
        )

    def fallback(self, call: Call) -> Any:
        """An operation without a rule: computed as it is, an error once relevance wants to pass through it."""
        output = call.run()
        if self.unknown == "gradient":
            call.place.operation += " (plain gradient)"
            return output
        way_out = (
            'pass unknown="gradient" to let relevance through it by the plain gradient (the ledger shows what leaks)'
        )
        return map_tensors(lambda t: unruled(t, call.backward, call.place, way_out) if t.requires_grad else t, output)


def _activation(fallback: Rule, call: Call) -> Any:
    """The sharing-ratio rule; `clamp` between computed bounds, say, has none."""
    v, kwargs = call.argument(0, "input"), {name: value for name, value in call.kwargs.items() if name != "input"}
    node = call.node_of(v)
    if node is None or len(call.activations()) > 1:
        return fallback(call)
    call.scalar = True
    return sharing_ratio(v, partial(_call_first, call.func, call.args[1:], kwargs), node.axis, call.backward)


def _larger_or_smaller(call: Call) -> Any:
    """Of two activations each position's winner; against a constant an activation function like ReLU."""
    activations = call.activations()
    if len(activations) != 1 or activations[0].shape != call.run().shape:
        return call.run()
    (v,) = activations
    node = call.node_of(v)
    assert node is not None
    other = call.args[1] if call.args[0] is v else call.args[0]
    call.scalar = True
    return sharing_ratio(v, partial(_call_first, call.func, (other,), {}), node.axis, call.backward)


def _call_first(func: Callable[..., Tensor], rest: tuple[Any, ...], kwargs: dict[str, Any], v: Tensor) -> Tensor:
    return func(v, *rest, **kwargs)


def _convolution(mode: BiasMode, call: Call) -> Tensor:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, call.args, strict=False)) | call.kwargs
    a, weight, bias = given["input"], _weight(call, given["weight"]), given.get("bias")
    n = weight.ndim - 2
    dilation, padding = per_axis(given.get("dilation", 1), n), given.get("padding", 0)
    stride, groups = per_axis(given.get("stride", 1), n), given.get("groups", 1)
    if isinstance(padding, str):
        a, padding = _padded(a, padding, weight.shape[2:], dilation)
    window = Window(tuple(weight.shape[2:]), stride, per_axis(padding, n), dilation, groups)
    call.affine = Affine(a, weight, _weight(call, bias), window, 1, mode, call.backward)
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


def _linear(mode: BiasMode, call: Call) -> Tensor:
    a, weight, bias = call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias")
    weight, bias = _weight(call, weight), _weight(call, bias)
    call.affine = Affine(a, weight, bias, None, a.ndim - 1, mode, call.backward)
    return F.linear(a, weight, bias)


def _batch_norm(mode: BiasMode, call: Call) -> Tensor:
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, call.args, strict=False)) | call.kwargs
    x, mean, var = given["input"], given.get("running_mean"), given.get("running_var")
    if mean is None or var is None:
        axes = [i for i in range(x.ndim) if i != 1]
        mean = constant(x.mean(axes), call.backward)
        var = constant(x.var(axes, correction=0), call.backward)
    scale = (var + given.get("eps", 1e-5)).rsqrt()
    if given.get("weight") is not None:
        scale = scale * given["weight"].detach()
    shift = -mean * scale if given.get("bias") is None else given["bias"].detach() - mean * scale
    along_channels = [-1 if i == 1 else 1 for i in range(x.ndim)]
    z = torch.addcmul(shift.view(along_channels), x, scale.view(along_channels))
    node = call.node_of(x)
    if node is None or node.affine is None or node.affine.axis != 1 or call.name != "batch_norm":
        return _shifted(mode, call, z, x, shift.view(along_channels))
    call.folds = call.tracked[id(x)]
    call.place.account = node.place
    return node.affine.folded(scale, shift).share(z)


def _shifted(mode: BiasMode, call: Call, z: Tensor, x: Tensor, shift: Tensor) -> Tensor:
    """`z = (linear in x) + shift` with the shift's relevance on its own PFV; `x` may be broadcast to `z`."""
    node = call.node_of(x)
    if mode == "drop" or node is None:
        return z
    return own_shift(z, x.expand_as(z), shift, node.axis + z.ndim - x.ndim, call.backward)


def _layer_norm(mode: BiasMode, call: Call) -> Tensor:
    names = ("input", "normalized_shape", "weight", "bias", "eps")
    given = dict(zip(names, call.args, strict=False)) | call.kwargs
    x, weight, bias = given["input"], given.get("weight"), given.get("bias")
    axes = list(range(-len(given["normalized_shape"]), 0))
    centred = x - x.mean(axes, keepdim=True)
    scale = constant((centred.square().mean(axes, keepdim=True) + given.get("eps", 1e-5)).rsqrt(), call.backward)
    z = centred * (scale if weight is None else scale * weight.detach())
    return z if bias is None else _shifted(mode, call, z + bias.detach(), x, bias.detach())


def _rms_norm(call: Call) -> Tensor:
    names = ("input", "normalized_shape", "weight", "eps")
    given = dict(zip(names, call.args, strict=False)) | call.kwargs
    x, weight, eps = given["input"], given.get("weight"), given.get("eps")
    axes = list(range(-len(given["normalized_shape"]), 0))
    mean_square = x.square().mean(axes, keepdim=True)
    scale = constant((mean_square + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt(), call.backward)
    return x * (scale if weight is None else scale * weight.detach())  # type: ignore[no-any-return]


def _group_norm(mode: BiasMode, call: Call) -> Tensor:
    names = ("input", "num_groups", "weight", "bias", "eps")
    given = dict(zip(names, call.args, strict=False)) | call.kwargs
    return _standardised(mode, call, given["input"], given["num_groups"], given)


def _instance_norm(mode: BiasMode, call: Call) -> Tensor:
    names = ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    given = dict(zip(names, call.args, strict=False)) | call.kwargs
    if not given.get("use_input_stats", True):
        return _batch_norm(mode, call)
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
    return _shifted(mode, call, x * scale + shift, x, shift)


def _sum(mode: BiasMode, call: Call) -> Tensor:
    """A sum of activations has its own gradient; an added constant is a bias of its own position."""
    z: Tensor = call.run()
    activations = call.activations()
    return z if len(activations) != 1 else _shifted(mode, call, z, activations[0], _at_zero(call, activations[0]))


def _at_zero(call: Call, x: Tensor) -> Tensor:
    """What the operation returns where `x` is zero: the shift of an affine operation."""
    args, kwargs = map_tensors(partial(replaced, x, torch.zeros_like(x)), (call.args, call.kwargs))
    shift: Tensor = call.func(*args, **kwargs).detach()
    return shift


def _addcmul(mode: BiasMode, fallback: Rule, call: Call) -> Any:
    """`x + value · a · b`: a product and a sum."""
    x, *factors = call.args[:3]
    varying = [t for t in factors if call.node_of(t) is not None]
    gates = _gates(call, varying) if len(varying) == 2 else []
    if len(varying) == 2 and not gates:
        return fallback(call)
    z = call.run(hold=gates)
    if call.node_of(x) is not None or not varying:
        return z if varying else _shifted(mode, call, z, x, _at_zero(call, x))
    (main,) = [t for t in varying if not any(t is gate for gate in gates)]
    return _shifted(mode, call, z, main, x.detach())


def _product(fallback: Rule, call: Call) -> Any:
    """Linear in one activation; of two, the one that looks like a gate is a constant."""
    activations = call.activations()
    if len(activations) == 1:
        return call.run()
    gates = _gates(call, activations)
    return call.run(hold=gates) if gates else fallback(call)


def _gates(call: Call, factors: list[Tensor]) -> list[Tensor]:
    """The factor that is broadcast over the other, else the one that comes from the more gate-like operation."""
    if len(factors) != 2 or factors[0] is factors[1]:
        return []
    for rank in (lambda t: -t.numel() if call.name == "mul" else 0, lambda t: getattr(call.node_of(t), "gate", 0)):
        first, second = map(rank, factors)
        if first != second:
            return [factors[0] if first > second else factors[1]]
    return []


def _quotient(fallback: Rule, call: Call) -> Any:
    """A denominator computed from the picture is a constant."""
    x, by = call.args[0], call.argument(1, "other")
    if call.node_of(by) is None:
        return call.run()
    return fallback(call) if call.node_of(x) is None or x is by else call.run(hold=[by])


def _attention(call: Call) -> Tensor:
    """Query and key, hence the weights, are constants."""
    names = ("query", "key", "value")
    given = dict(zip(names, call.args, strict=False)) | {k: v for k, v in call.kwargs.items() if k in names}
    query, key = (call.hold(t) if call.node_of(t) is not None else t for t in (given["query"], given["key"]))
    rest = {k: v for k, v in call.kwargs.items() if k not in names}
    return call.func(query, key, given["value"], *call.args[3:], **rest)  # type: ignore[no-any-return]


def _normalize(call: Call) -> Tensor:
    x, p, dim = call.argument(0, "input"), call.argument(1, "p", 2.0), call.argument(2, "dim", 1)
    norm = x.norm(p, dim, keepdim=True).clamp_min(call.argument(3, "eps", 1e-12))
    return x / constant(norm, call.backward)  # type: ignore[no-any-return]


def _addmm(mode: BiasMode, fallback: Rule, call: Call) -> Any:
    """`bias + x @ weight`, the linear layer of some libraries."""
    bias, x, weight = call.args[:3]
    if call.kwargs or call.node_of(x) is None or call.node_of(weight) is not None or call.node_of(bias) is not None:
        return fallback(call)
    call.args, call.kwargs = (x, weight.t(), bias), {}
    return _linear(mode, call)
