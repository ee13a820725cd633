"""Stopping a computation between two of its operations."""

from collections.abc import Callable
from threading import Event
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Cancelled(BaseException):
    """Nobody wants the result any more; no error, and not to be caught by a network."""


class Interruptible(TorchFunctionMode):
    """Inside this context every operation on tensors is counted, and the next one after `stop` raises `Cancelled`.

    It is raised once, and never in the place of switching gradients on or off: contexts such as `torch.no_grad`
    end by an operation as well, and what they have changed has to be put back.
    """

    def __init__(self, stop: Event) -> None:
        super().__init__()
        self.operations = 0
        self._stop = stop
        self._raised = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self._raised and func is not torch._C._set_grad_enabled:
            self.check()
        self.operations += 1
        return func(*args, **(kwargs or {}))

    def check(self) -> None:
        """Raises `Cancelled` after `stop`."""
        if self._stop.is_set():
            self._raised = True
            raise Cancelled
