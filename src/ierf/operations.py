"""The vocabulary: what an intercepted torch function is called and which family it belongs to.

Rules are chosen by the operation that runs, never by the class of the module that runs it, so that `nn.ReLU`,
`F.relu`, `torch.relu`, `x.relu()` and `x.relu_()` are one thing.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache, partial
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import resolve_name

from ierf.errors import UnsupportedOperationError

ACTIVATIONS = frozenset(
    "relu relu6 hardtanh leaky_relu elu selu celu silu gelu mish hardswish prelu rrelu threshold softplus "
    "softsign tanh tanhshrink hardshrink softshrink logsigmoid clamp clamp_min clamp_max clip sigmoid "
    "hardsigmoid erf pow square sqrt abs log1p expm1".split()
)
"""Elementwise non-linearities (powers and roots: squared ReLU, generalised-mean pooling)."""

BOUNDED = frozenset("sigmoid hardsigmoid tanh softmax erf relu6 hardtanh clamp clip".split())
"""Operations whose output is made to multiply something else: a gate or an attention weight."""

LINEAR = frozenset(
    "neg cat concat concatenate hstack vstack stack pad constant_pad_nd reshape reshape_as view view_as "
    "flatten unflatten ravel permute transpose swapaxes swapdims movedim moveaxis T mT squeeze unsqueeze "
    "expand expand_as broadcast_to repeat repeat_interleave tile chunk split tensor_split unsafe_chunk "
    "unsafe_split unbind __getitem__ __setitem__ select narrow index_select gather take_along_dim roll flip rot90 "
    "t H mH adjoint cpu cuda copy index_add scatter_add index_copy select_scatter slice_scatter tensordot "
    "max_unpool1d max_unpool2d max_unpool3d broadcast_tensors meshgrid split_with_sizes hsplit vsplit dsplit dstack "
    "column_stack fliplr flipud as_strided diag_embed atleast_1d atleast_2d atleast_3d block_diag positive "
    "real contiguous clone to type type_as float double half bfloat16 mean sum cumsum avg_pool1d avg_pool2d "
    "avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample grid_sample "
    "upsample_nearest upsample_bilinear pixel_shuffle pixel_unshuffle channel_shuffle fold unfold tril triu diagonal "
    "dropout dropout1d dropout2d "
    "conv_transpose1d conv_transpose2d conv_transpose3d "
    "dropout3d alpha_dropout feature_dropout feature_alpha_dropout".split()
)
"""Linear in their one activation (or list of activations): the gradient already is the right way back."""

SELECTING = frozenset(
    "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices max amax min amin "
    "where masked_fill topk sort masked_select masked_scatter".split()
)
"""Pass some of their inputs on unchanged: the gradient leads to the winners."""

SIZES = frozenset("norm linalg_norm linalg_vector_norm vector_norm std".split())
"""Homogeneous of degree one, `f(αx) = α f(x)`, so that `⟨x, ∇f⟩ = f`: what normalisations divide by, or a feature."""

INVERSES = frozenset("rsqrt reciprocal rdiv".split())
"""What normalisations multiply by."""

JOINING = frozenset(
    "cat concat concatenate hstack vstack dstack column_stack stack where masked_fill masked_scatter __setitem__ "
    "index_add scatter_add index_copy select_scatter slice_scatter".split()
)
"""Put several tensors into one, some of which may be constants: linear in the activations among them."""

COMPOSED = frozenset(["multi_head_attention_forward"])
"""Functions of torch written in Python, whose own operations have rules."""

CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d"])

TRANSPOSED = frozenset(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])

LAYERS = CONVOLUTIONS | {"linear", "addmm"}
"""Operations with weights that mix channels."""

_ALIASES = {
    "__add__": "add", "__radd__": "add", "__iadd__": "add_", "__sub__": "sub", "__isub__": "sub_",
    "subtract": "sub", "__rsub__": "rsub", "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul_",
    "multiply": "mul", "__truediv__": "div", "__itruediv__": "div_", "__idiv__": "div_", "true_divide": "div",
    "divide": "div", "__div__": "div", "__rtruediv__": "rdiv", "__rdiv__": "rdiv", "__matmul__": "matmul",
    "__pow__": "pow", "mm": "matmul", "bmm": "matmul", "negative": "neg", "__neg__": "neg",
}  # fmt: skip


_OF_TWO = {"max": "maximum", "min": "minimum", "fmax": "maximum", "fmin": "minimum"}
"""Reductions, or functions like the others, that compare two tensors elementwise."""


@lru_cache(maxsize=8192)
def operation_name(func: Callable[..., Any], of_two: bool = False) -> str:
    """The canonical short name: `torch.Tensor.add` and `operator +` are both "add"; "relu_" keeps its underscore.

    of_two: whether the second argument is a tensor, as in `torch.max(x, y)`, which is "maximum". The setter of a
    property is called "set data".
    """
    if isinstance(func, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        name = (func._schema.name if isinstance(func, torch._ops.OpOverload) else func._qualified_op_name).split("::")[
            1
        ]
    else:
        parts = (resolve_name(func) or getattr(func, "__name__", repr(func))).split(".")
        name = parts[-2] if parts[-1] == "__get__" and len(parts) > 1 else parts[-1]
        if name == "__set__":
            return f"set {parts[-2]}"
    name = str(_ALIASES.get(name, name))
    return _OF_TWO.get(name, name) if of_two or name.startswith("f") else name


class Unified(NamedTuple):
    """A call in one form whatever its spelling: computed out of place, with the arguments of `torch.nn.functional`."""

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Tensor | None
    """The tensor that the network wants the result written to."""


def written_to(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The tensor that a call writes its result to, by whatever spelling."""
    if args and (name == "__setitem__" or in_place(name) or without_inplace_flag(func, args, kwargs)[2]):
        return args[0] if isinstance(args[0], Tensor) else None
    out = kwargs.get("out")
    return out if isinstance(out, Tensor) else None


def unified(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Unified:
    """The same call without its writing. Raises `UnsupportedOperationError` for one that has no such form."""
    target, native = written_to(name, func, args, kwargs), not isinstance(func, FunctionType)
    if isinstance(func, torch._ops.OpOverload) and not in_place(name):
        func = next((found for home in (F, torch, Tensor) if (found := getattr(home, name, None)) is not None), func)
    args, kwargs, _ = without_inplace_flag(func, args, kwargs)
    if kwargs.get("out") is not None:
        kwargs = {key: value for key, value in kwargs.items() if key != "out"}
        if target is None:
            raise UnsupportedOperationError(f"{name!r} writes to several tensors by out=; let it return them")
    if name == "view" and isinstance(args[-1], torch.dtype):
        return Unified("view_as", partial(_as_type, args[-1]), args[:1], {}, None)
    if name == "__setitem__":
        func = _with_item
    elif name == "copy_":
        return Unified("copy", partial(_copied, target), args[1:2] or (kwargs["src"],), {}, target)
    elif name == "fill_":
        value = args[1] if len(args) > 1 else kwargs["value"]
        return Unified("copy", partial(_copied, target), (torch.as_tensor(value, device=args[0].device),), {}, target)
    elif name == "zero_":
        return Unified("copy", partial(_copied, target), (torch.zeros((), device=args[0].device),), {}, target)
    elif in_place(name):
        func, name = out_of_place(name), name[:-1]
    if name in _NATIVE_ORDER and native:
        args, kwargs = _reordered(name, args, kwargs)
        func = getattr(F, name)
    return Unified(name, func, args, kwargs, target)


def _as_type(dtype: torch.dtype, x: Tensor) -> Tensor:
    if dtype != x.dtype:
        raise UnsupportedOperationError(
            f"the bits of {x.dtype} are read as {dtype} by view(), which no rule can follow"
        )
    return x.view_as(x)


def _with_item(x: Tensor, index: Any, value: Any) -> Tensor:
    copy = x.clone()
    copy[index] = value
    return copy


def _copied(target: Any, source: Tensor) -> Tensor:
    return source.to(target.device, target.dtype).expand(target.shape).clone()


_NATIVE_ORDER = {
    "batch_norm": ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps"),
    "instance_norm": ("input", "weight", "bias", "running_mean", "running_var", "use_input_stats", "momentum", "eps"),
}
"""Functions whose built-in form, `torch.batch_norm`, takes the arguments of `F.batch_norm` in another order."""


def _reordered(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    given = dict(zip(_NATIVE_ORDER[name], args, strict=False)) | kwargs
    known = inspect.signature(getattr(F, name)).parameters
    return (given.pop("input"),), {key: value for key, value in given.items() if key in known}


@lru_cache(maxsize=64)
def opened(func: Callable[..., Any]) -> Callable[..., Any]:
    """The Python body of one of `COMPOSED`, without its question whether a function mode wants the call as a whole."""
    code, names = func.__code__, {**func.__globals__, "has_torch_function": lambda tensors: False}
    body = FunctionType(code, names, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__
    return body


def in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


@lru_cache(maxsize=1024)
def out_of_place(name: str) -> Callable[..., Any]:
    """The function that computes what `name` ("add_", "relu_") would write, without writing it."""
    base = name[:-1]
    homes: tuple[Any, ...] = (torch, Tensor, F)
    for home in homes:
        if hasattr(home, base):
            return getattr(home, base)  # type: ignore[no-any-return]
    raise UnsupportedOperationError(
        f"the in-place operation {name!r} has no counterpart that leaves its input as it was"
    )


@lru_cache(maxsize=4096)
def _signature(func: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(func)
    except (TypeError, ValueError):
        return None


def without_inplace_flag(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
    """Arguments with `inplace=True` turned off, and whether it was on (it can be positional: `F.elu(x, 1.0, True)`)."""
    signature = _signature(func)
    if signature is None or "inplace" not in signature.parameters:
        return args, kwargs, False
    bound = signature.bind(*args, **kwargs)
    if not bound.arguments.get("inplace", False):
        return args, kwargs, False
    bound.arguments["inplace"] = False
    return bound.args, bound.kwargs, True


def tensors_in(*collections: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists and dictionaries."""
    found: list[Tensor] = []
    for item in collections:
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, tuple | list):
            found += tensors_in(*item)
        elif isinstance(item, dict):
            found += tensors_in(*item.values())
    return found


def map_items(function: Callable[[Any], Any], item: Any) -> Any:
    """The same nested tuples, lists and dictionaries with `function` applied to everything in them."""
    if isinstance(item, tuple | list) and type(item) in (tuple, list):
        return type(item)(map_items(function, part) for part in item)
    if type(item) is dict:
        return {key: map_items(function, part) for key, part in item.items()}
    return function(item)


def map_tensors(function: Callable[[Tensor], Any], item: Any) -> Any:
    """The same nested structure with `function` applied to every tensor."""
    if isinstance(item, Tensor):
        return function(item)
    if isinstance(item, tuple):
        mapped = [map_tensors(function, part) for part in item]
        if hasattr(item, "_fields"):
            return type(item)(*mapped)
        return tuple(mapped) if type(item) is tuple else type(item)(mapped)
    if isinstance(item, list):
        return [map_tensors(function, part) for part in item]
    if isinstance(item, dict):
        return {key: map_tensors(function, part) for key, part in item.items()}
    return item
