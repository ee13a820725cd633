"""Running a network in one precision throughout, whatever its forward casts to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ierf.operations import map_items, operation_name

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
