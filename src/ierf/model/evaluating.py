"""Evaluation mode that gives back what it took."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from weakref import WeakKeyDictionary

from torch import nn

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
