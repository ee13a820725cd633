"""Scenes: which parts are where; and what becomes of a scene whose parts are taken away or repainted."""

from dataclasses import dataclass, replace

import numpy as np

from ierf.errors import IerfError, UnknownNameError
from ierf.world.parts import CLASSES, NOTHING, PARTS, Part, classes_of


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


LAYOUT, BACKGROUND, NOISE, CUE = range(4)
"""Streams of random numbers: what one of them gives does not depend on the others."""

_RADII = 0.098, 0.128
"""Of parts, in sides of the picture."""
_APART = 1.17
"""Distance of touching parts, in sums of their radii."""
_TURN = 0.3
"""Radians that a part is turned, at most."""
_REPEATED = 0.25
"""Share of the parts beside the deciding ones that are of a kind that is there already."""
_TRIES = 200


@dataclass(frozen=True)
class Placed:
    """A part at its place, in pixels."""

    part: Part
    x: float
    y: float
    radius: float
    angle: float
    gain: tuple[float, float, float]
    """Factors of its red, green and blue."""


@dataclass(frozen=True)
class Glow:
    """The spurious cue: a tint of the background around a place, in pixels."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """A picture's whole content; `render` draws it, and equal scenes give equal pixels."""

    settings: Settings
    index: int
    parts: tuple[Placed, ...]
    glow: Glow | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts."""
        return tuple(placed.part.name for placed in self.parts)

    @property
    def label(self) -> int:
        """The class. Raises `IerfError` if the parts, after they were changed, make up several."""
        found = classes_of(self.names)
        if len(found) > 1:
            raise IerfError(f"the parts of this scene make up several classes: {', '.join(found)}")
        return list(CLASSES).index(found[0])

    @property
    def deciding(self) -> tuple[int, ...]:
        """The numbers of the parts that make the class what it is; none of `NOTHING`."""
        wanted = CLASSES[list(CLASSES)[self.label]]
        return tuple(i for i, name in enumerate(self.names) if name in wanted)

    def random(self, stream: int) -> np.random.Generator:
        """The random numbers of a stream, of this scene alone."""
        return np.random.default_rng([self.settings.seed, self.index, stream])

    def without(self, *numbers: int) -> "Scene":
        """The scene without some parts; all else stays as it is, pixel by pixel."""
        self._check(numbers)
        return replace(self, parts=tuple(p for i, p in enumerate(self.parts) if i not in numbers))

    def repainted(self, number: int, colour: str) -> "Scene":
        """The scene with another colour of a part's body."""
        self._check([number])
        return self.swapped(number, self.parts[number].part.repainted(colour))

    def swapped(self, number: int, part: Part) -> "Scene":
        """The scene with another part in the place of one."""
        self._check([number])
        parts = list(self.parts)
        parts[number] = replace(parts[number], part=part)
        return replace(self, parts=tuple(parts))

    def without_cue(self) -> "Scene":
        """The scene without the tint of its background."""
        return replace(self, glow=None)

    def _check(self, numbers: tuple[int, ...] | list[int]) -> None:
        for number in numbers:
            if not 0 <= number < len(self.parts):
                raise IerfError(f"there is no part {number}; the scene has {len(self.parts)}, counted from 0")


def compose(settings: Settings, index: int) -> Scene:
    """The scene of this number: a class, drawn evenly; its parts; parts that decide nothing there; the cue.

    The two parts of a pair touch, three of a kind lie anywhere. The others are drawn from all kinds that leave the
    class what it is and are not its own, so every deciding part is needed.
    """
    if index < 0:
        raise IerfError(f"scenes are counted from 0, not {index}")
    random = np.random.default_rng([settings.seed, index, LAYOUT])
    label = str(random.choice(list(CLASSES)))
    names = _with_others(label, random)
    while (parts := _placed(names, len(CLASSES[label]) == 2, settings, random)) is None:
        pass
    return Scene(
        settings, index, tuple(parts[i] for i in random.permutation(len(parts))), _glow(label, settings, index)
    )


def _with_others(label: str, random: np.random.Generator) -> list[str]:
    needed = CLASSES[label]
    names = list(needed)
    count = len(names) + int(random.integers(2, 6) if label == NOTHING else random.integers(1, 4))
    while len(names) < count:
        known = names[len(needed) :]
        name = str(random.choice(known if known and random.random() < _REPEATED else list(PARTS)))
        if name not in needed and classes_of([*names, name]) == (label,):
            names.append(name)
    return names


def _placed(names: list[str], touching: bool, settings: Settings, random: np.random.Generator) -> list[Placed] | None:
    """The parts at places where they do not overlap; None if that was not found."""
    placed: list[Placed] = []
    for name in names:
        for _ in range(_TRIES):
            partner = placed[0] if touching and len(placed) == 1 else None
            one = _somewhere(name, partner, settings, random)
            if _inside(one, settings) and all(_distance(one, other) >= 0.999 for other in placed):
                placed.append(one)
                break
        else:
            return None
    return placed


def _somewhere(name: str, partner: Placed | None, settings: Settings, random: np.random.Generator) -> Placed:
    radius = settings.size * random.uniform(*_RADII)
    x, y = random.uniform(0, settings.size, 2)
    if partner is not None:
        direction, reach = random.uniform(0, 2 * np.pi), _APART * (radius + partner.radius)
        x, y = partner.x + reach * np.cos(direction), partner.y + reach * np.sin(direction)
    gain = tuple(random.uniform(0.85, 1.1) * random.uniform(0.93, 1.07, 3))
    return Placed(PARTS[name], float(x), float(y), radius, random.uniform(-_TURN, _TURN), gain)


def _inside(one: Placed, settings: Settings) -> bool:
    return all(one.radius <= at <= settings.size - one.radius for at in (one.x, one.y))


def _distance(one: Placed, other: Placed) -> float:
    """1 where two parts touch."""
    return float(np.hypot(one.x - other.x, one.y - other.y)) / (_APART * (one.radius + other.radius))


def _glow(label: str, settings: Settings, index: int) -> Glow | None:
    random = np.random.default_rng([settings.seed, index, CUE])
    x, y = random.uniform(0.2 * settings.size, 0.8 * settings.size, 2)
    there = random.random() < settings.cue_chance(label)
    return Glow(float(x), float(y), 0.22 * settings.size) if there else None
