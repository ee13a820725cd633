"""How far a graph is."""

from collections.abc import Callable
from dataclasses import dataclass

Told = Callable[[str, int, int], None]
"""What is done now, how many steps are done, and of how many. It may raise to end the work."""


@dataclass(eq=False)
class Progress:
    """Steps that are counted as they begin."""

    told: Told | None = None
    total: int = 0
    begun: int = 0

    def begin(self, stage: str) -> None:
        """The next step."""
        if self.told is not None:
            self.told(stage, self.begun, self.total)
        self.begun += 1
