"""How far a long computation is, as every function that takes `progress=` says it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

Progress = Callable[[str, int, int], None]
"""`(stage, done, total)`: what is done now, how many steps are done, and of how many. It may raise to end the work."""


@dataclass(eq=False)
class StepCounter:
    """Steps that are counted as they begin."""

    told: Progress | None = None
    total: int = 0
    begun: int = 0

    def begin(self, stage: str) -> None:
        """The next step."""
        if self.told is not None:
            self.told(stage, self.begun, self.total)
        self.begun += 1


def of_two(given: Callable[..., Any] | None, former: Callable[[str, int, int], tuple[Any, Any]]) -> Progress | None:
    """`given`, which may take the two arguments that it was once called with: then with those, and a warning."""
    if given is None or _takes(given, 3) or not _takes(given, 2):
        return given
    warnings.warn("progress= is called with (stage, done, total) now", DeprecationWarning, stacklevel=3)
    return lambda stage, done, total: given(*former(stage, done, total))


def _takes(given: Callable[..., Any], count: int) -> bool:
    try:
        signature(given).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        return count == 3
    return True
