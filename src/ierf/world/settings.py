"""What all scenes of a world depend on."""

from dataclasses import dataclass

from ierf.errors import IerfError, UnknownNameError
from ierf.world.parts import CLASSES


@dataclass(frozen=True)
class Settings:
    """A world: its seed, the pictures' side, how much clutter there is, and a spurious cue.

    Raises `IerfError` for settings that no world can have.
    """

    size: int = 64
    seed: int = 0
    clutter: int = 10
    """Muted shapes in the background, at most."""
    cue_class: str | None = None
    """The class that a tint of the background goes with; None: there is no tint."""
    cue: float = 1.0
    """The correlation (φ) of the tint with that class: 0 none, 1 they always come together."""

    def __post_init__(self) -> None:
        if self.size < 32:
            raise IerfError(f"a scene of {self.size} pixels is too small for its parts; take 32 or more")
        if self.cue_class is not None and self.cue_class not in CLASSES:
            raise UnknownNameError("class of the world", self.cue_class, CLASSES)
        if not 0 <= self.cue <= 1:
            raise IerfError(f"the correlation of a cue lies between 0 and 1, not {self.cue}")
        if self.seed < 0 or self.clutter < 0:
            raise IerfError("a world's seed and its number of muted shapes are not negative")

    def cue_chance(self, label: str) -> float:
        """The chance of the tint in a scene of a class: `q + φ (1 − q)` in the cue's own, else `q (1 − φ)`.

        With q = 1 / (number of classes) the tint is as frequent as its class, so φ is the phi coefficient of both.
        """
        if self.cue_class is None:
            return 0.0
        q = 1 / len(CLASSES)
        return q + self.cue * (1 - q) if label == self.cue_class else q * (1 - self.cue)
