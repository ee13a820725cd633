"""Normalisations: what they divide by is a constant, and their shift stays on its own PFV."""

from typing import Any

import torch
from torch import Tensor

from ierf.rules.bias import Affine, along
from ierf.rules.mode import Call
from ierf.rules.primitives import constant
from ierf.rules.srd.affine import BiasMode, shifted


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
