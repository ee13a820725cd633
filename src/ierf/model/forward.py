"""Running a network: in evaluation mode that is given back, in one precision, and the scores in what it returns."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ierf.errors import IerfError
from ierf.operations import map_items, operation_name

_HELD: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Modules that were in training mode -> how many contexts, of any thread, hold them in evaluation mode."""
_HOLDING = Lock()


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Every module of `net` in eval mode; on exit each training flag is what it was, also after an exception.

    Where several threads run one network, the last to leave gives it back.
    """
    with _HOLDING:
        held = [module for module in net.modules() if module.training or module in _HELD]
        for module in held:
            _HELD[module] = _HELD.get(module, 0) + 1
            module.training = False
    try:
        yield
    finally:
        with _HOLDING:
            for module, times in Counter(held).items():
                _HELD[module] -= times
                if not _HELD[module]:
                    del _HELD[module]
                    module.training = True


def logits_of(output: Any) -> Float[Tensor, "N T"]:
    """The scores in a network's output: a tensor, the first of a tuple or list, or `.logits` of an object or mapping.

    A backbone without a classifier gives `.image_embeds` or `.pooler_output`: its features stand for classes.
    Raises `IerfError` where the output holds none of these.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    for name in ("logits", "image_embeds", "pooler_output"):
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    raise IerfError(
        f"the network returned {type(output).__name__}, where a tensor of class scores was expected; "
        "wrap the network in a module whose forward returns that tensor"
    )


_LOW = (torch.float16, torch.bfloat16)
_CASTS = {"half": torch.float16, "bfloat16": torch.bfloat16}


_LOWERED: ContextVar[bool] = ContextVar("lowered", default=False)


@contextmanager
def lowered(device: str) -> Iterator[None]:
    """Inside, networks compute in bfloat16 on purpose, where the device is faster so."""
    token = _LOWERED.set(True)
    try:
        with torch.autocast(device, torch.bfloat16):
            yield
    finally:
        _LOWERED.reset(token)


def is_lowered() -> bool:
    """Whether this thread is inside `lowered`."""
    return _LOWERED.get()


class FullPrecision(TorchFunctionMode):
    """Inside, what a network computes in half precision (autocast, `.half()`) is computed in `dtype`.

    Relevance divides by squared norms, for which half precision is too coarse.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_lowered():
            return func(*args, **kwargs)
        if operation_name(func) in _CASTS:
            return args[0].to(self._dtype)
        if any(value in _LOW for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)):
            args, kwargs = map_items(self._raised, (args, kwargs))
        device = next((t.device.type for t in args if isinstance(t, Tensor)), "cpu")
        if _autocast(device):
            with torch.autocast(device, enabled=False):
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _raised(self, item: Any) -> Any:
        return self._dtype if isinstance(item, torch.dtype) and item in _LOW else item


class PlainPass(FullPrecision):
    """The same for a pass whose gradients are torch's own.

    torch's backward pass of a batch-norm in evaluation mode misreads a gradient that lies in memory in another order
    (of a batch of one, behind a transposition): it is given one in the usual order.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = super().__torch_function__(func, types, args, kwargs)
        if operation_name(func) == "batch_norm" and isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]
        return output


def _autocast(device: str) -> bool:
    try:
        return torch.is_autocast_enabled(device)
    except RuntimeError:  # a device that knows no autocast
        return False
